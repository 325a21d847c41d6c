"""The arguments of a call: whether they are JSON, whether the tool takes them, and what to say if not.

A call starts nothing before these checks. `silo.schema.checker` checks a value against a schema; `silo.schema.files`
finds the files among the arguments.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from silo.errors import ArgumentsInvalid, ResultInvalid, SkillMetadataInvalid
from silo.model import File, Skill, Tool
from silo.names import suggestion
from silo.schema.checker import CheckTooLong, SchemaChecker, SchemaUnusable
from silo.schema.walk import Schema, describe_path, is_file, properties, required, resolve
from silo.sizes import MIB
from silo.wire.messages import Json

MAX_ARGUMENTS_BYTES = MIB
"""The longest JSON text of all arguments without files; larger data belongs in a file argument."""

MAX_DEPTH = 32
"""How deep arguments may nest. The wire takes twice as much; agents don't need more."""


def check_json(arguments: Mapping[str, Any], tool_id: str) -> None:
    """Check that arguments are JSON values of bounded size, or `File` objects.

    Raises:
        ArgumentsInvalid: a value isn't JSON (NaN, bytes, a lone surrogate, a key that is not text), or the arguments
            are too deep or too large.
    """
    left = MAX_ARGUMENTS_BYTES
    stack: list[tuple[_Path, Json]] = [((), arguments)]
    while stack:  # no recursion: the depth is not known yet
        path, value = stack.pop()
        if isinstance(value, Mapping):
            left -= sum(_key_size(key, path) for key in value)
        elif isinstance(value, list | tuple):
            left -= len(value)
        else:
            left -= _size(value, path)
        if left < 0:
            raise ArgumentsInvalid(
                f"the arguments of {tool_id} are larger than {MAX_ARGUMENTS_BYTES // 1024} KiB",
                hint="pass large data as a file argument",
            )
        if isinstance(value, Mapping | list | tuple):
            if len(path) == MAX_DEPTH:
                raise ArgumentsInvalid(
                    f"the arguments of {tool_id} nest deeper than {MAX_DEPTH}",
                    hint="pass deep structures as a file or as text",
                )
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            stack.extend(((*path, key), item) for key, item in items)


_Path = tuple[str | int, ...]

_HUGE = 10**308
# Above this, a number does not fit into a float, and many JSON parsers only have floats.


def _size(leaf: object, path: _Path) -> int:
    """Check that a value is a JSON scalar or a key; return about how long it is in JSON."""
    wrong = ""
    hint = "use text, numbers, true, false, null, lists, objects, and silo.File where the tool takes a file"
    if isinstance(leaf, str):
        try:
            return len(leaf.encode()) + 1
        except UnicodeEncodeError:
            wrong, hint = "holds a lone surrogate", "send well-formed Unicode text"
    elif isinstance(leaf, float) and not math.isfinite(leaf):
        wrong, hint = f"is {leaf}, which JSON does not have", "use null or a text for it"
    elif isinstance(leaf, int) and abs(leaf) >= _HUGE:
        wrong, hint = "is too large a number", "send such a number as text"
    elif not (leaf is None or isinstance(leaf, int | float | File)):
        wrong = f"is of type {type(leaf).__name__}, which JSON does not have"
    if wrong:
        raise ArgumentsInvalid(f"{describe_path('arguments', path)} {wrong}", hint=hint)
    return 1


def _key_size(key: object, path: _Path) -> int:
    if not isinstance(key, str):
        raise ArgumentsInvalid(
            f"{describe_path('arguments', path)} has the key {key!r}, and keys are text in JSON", hint="quote it"
        )
    return _size(key, path)


def to_checker(tool: Tool) -> SchemaChecker:
    """Return the checker of a tool's arguments.

    Raises:
        SkillMetadataInvalid: its input schema can't be checked.
    """
    return _checker(tool, "input", tool.input_schema)


def to_result_checker(tool: Tool) -> SchemaChecker | None:
    """Return the checker of a tool's results, or None if it promises no shape.

    Raises:
        SkillMetadataInvalid: its output schema can't be checked.
    """
    return None if tool.output_schema is None else _checker(tool, "output", tool.output_schema)


class Checkers:
    """The checkers of tools that were called lately: making one takes milliseconds, as long as a warm call does."""

    def __init__(self, *, limit: int = 128) -> None:
        self._limit = limit
        self._made: OrderedDict[tuple[str, str], tuple[SchemaChecker, SchemaChecker | None]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, skill: Skill, tool: Tool) -> tuple[SchemaChecker, SchemaChecker | None]:
        """Return the checkers of a tool's arguments and of its results, for this version of its skill.

        Raises:
            SkillMetadataInvalid: one of its schemas can't be checked.
        """
        key = (skill.digest, tool.id)
        with self._lock:
            if (found := self._made.get(key)) is not None:
                self._made.move_to_end(key)
                return found
        made = to_checker(tool), to_result_checker(tool)
        with self._lock:
            self._made[key] = made
            while len(self._made) > self._limit:
                self._made.popitem(last=False)
        return made


def with_defaults(tool: Tool, checker: SchemaChecker, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with the defaults of the tool's schema for what was left out, at every depth.

    Raises:
        ArgumentsInvalid: that takes too long, or makes them too large.
    """
    try:
        filled: dict[str, Any] = checker.filled(dict(arguments))
    except CheckTooLong as error:
        raise ArgumentsInvalid(
            f"the arguments of {tool.id} take too long to complete by its schema, or become too large",
            hint=f"send less at once; {tool.id} takes: {signature(tool)}",
        ) from error
    except SchemaUnusable as error:
        raise _refused(tool, "input", error) from error
    return filled


def check_arguments(tool: Tool, checker: SchemaChecker, arguments: Mapping[str, Any]) -> None:
    """Check arguments, in which files are `FileArgument`s, against the tool's schema.

    Raises:
        ArgumentsInvalid: which argument is wrong, why, and what the tool takes.
    """
    expected = f"{tool.id} takes: {signature(tool)}"
    try:
        flaw = checker.flaw(dict(arguments))
    except CheckTooLong as error:
        raise ArgumentsInvalid(
            f"the arguments of {tool.id} take too long to check against its schema",
            hint=f"send less at once; {expected}",
        ) from error
    except SchemaUnusable as error:
        raise _refused(tool, "input", error) from error
    if flaw is None:
        return
    where = describe_path("arguments", flaw.path)
    # A misspelt name also means a missing one; the message about the misspelt name helps more.
    unknown = _unknown(tool.input_schema, arguments) if not flaw.path else None
    if unknown is not None:
        names = properties(tool.input_schema)
        raise ArgumentsInvalid(
            f"{tool.id} has no argument {unknown[:80]!r}",
            hint=f"{suggestion(unknown, names, otherwise='leave it out;')} {expected}",
        )
    raise ArgumentsInvalid(f"{where}: {flaw.message}" if flaw.path else f"{tool.id}: {flaw.message}", hint=expected)


def _unknown(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> str | None:
    """The first argument that the schema neither names nor leaves open."""
    if schema.get("additionalProperties") is not False or schema.get("patternProperties"):
        return None
    return next((name for name in arguments if name not in properties(schema)), None)


def check_result(tool: Tool, checker: SchemaChecker, data: Json) -> None:
    """Check what a tool returned against its output schema.

    Raises:
        ResultInvalid: says where it differs. The message quotes the result, so it must be redacted like a result.
    """
    hint = "the skill breaks its own promise; report it to whoever wrote it"
    try:
        flaw = checker.flaw(data)
    except CheckTooLong as error:
        raise ResultInvalid(f"the result of {tool.id} takes too long to check against its schema", hint=hint) from error
    except SchemaUnusable as error:
        raise _refused(tool, "output", error) from error
    if flaw is not None:
        raise ResultInvalid(f"{describe_path('result', flaw.path)}: {flaw.message}", hint=hint)


def signature(tool: Tool) -> str:
    """Return the expected arguments in one line: `data: file, sql: string, limit?: integer = 100`."""
    schema = tool.input_schema
    needed = required(schema)
    namer = _Namer(schema)
    parts = []
    for name, part in properties(schema).items():
        text = f"{name}{'' if name in needed else '?'}: {namer.kind(part, depth=0)}"
        if isinstance(part, Mapping) and "default" in part:
            text += f" = {json.dumps(part['default'], ensure_ascii=False)[:40]}"
        parts.append(text)
    text = ", ".join(parts) or "no arguments"
    return text if len(text) <= 1000 else text[:1000] + "…"


class _Namer:
    """Names the kinds of values that the schemas of a document take, in words for a sentence."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = _MAX_NAMED

    def kind(self, schema: Json, *, depth: int) -> str:
        return " | ".join(dict.fromkeys(self._kinds(schema, depth=depth)))

    def _kinds(self, schema: Json, *, depth: int) -> list[str]:
        """Name each kind of value that a schema takes; a branch of a union may take several itself."""
        self._left -= 1
        if not isinstance(schema, Mapping) or depth > 4 or self._left < 0:
            return ["any"]
        if is_file(schema):
            return ["file"]
        if isinstance(reference := schema.get("$ref"), str):
            try:
                return self._kinds(resolve(reference, self._root), depth=depth + 1)
            except LookupError:
                return ["any"]
        if "const" in schema:
            return [json.dumps(schema["const"], ensure_ascii=False)]
        if isinstance(values := schema.get("enum"), list):
            shown = [json.dumps(value, ensure_ascii=False) for value in values[:12]]
            return [*shown, "…"] if len(values) > 12 else shown
        for keyword in ("anyOf", "oneOf"):
            if isinstance(branches := schema.get(keyword), list):
                return [kind for branch in branches[:6] for kind in self._kinds(branch, depth=depth + 1)]
        kind = schema.get("type", "any")
        if isinstance(kind, list):
            return [str(item) for item in kind]
        if kind == "array":
            return [f"list of {self.kind(schema['items'], depth=depth + 1)}" if "items" in schema else "list"]
        if kind == "object" and (inside := properties(schema)):
            needed = required(schema)
            parts = (
                f"{name}{'' if name in needed else '?'}: {self.kind(part, depth=depth + 1)}"
                for name, part in inside.items()
            )
            return ["{" + ", ".join(parts) + "}"]
        return [str(kind)]


_MAX_NAMED = 4000
"""How many schemas one signature names. Objects that refer to objects multiply, and only 1,000 characters are shown."""


def _checker(tool: Tool, side: str, schema: Mapping[str, Any]) -> SchemaChecker:
    try:
        return SchemaChecker(schema)
    except SchemaUnusable as error:
        raise _refused(tool, side, error) from error


def _refused(tool: Tool, side: str, error: SchemaUnusable) -> SkillMetadataInvalid:
    return SkillMetadataInvalid(
        f"the {side} schema of {tool.id} can't be used: {error}",
        hint="the skill's author has to change the annotation that it comes from",
    )
