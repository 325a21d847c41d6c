"""Turn the words of `silo run` into a tool and its arguments, by the tool's schema. No file is read, no value checked.

This module decides what a person probably meant. A word that no type of the schema takes stays text; the check in
`silo.schema.arguments` then says what is wrong with it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from silo.errors import ArgumentsInvalid, ToolUnknown, UsageError
from silo.names import suggest
from silo.remedies import LIST_TOOLS, command
from silo.schema.walk import Schema, alternatives, is_file, properties
from silo.wire.messages import FILE_MARK, Json

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_INTEGER = re.compile(r"[+-]?[0-9]{1,1000}")
_MAX_DEPTH = 8


@dataclass(frozen=True)
class FromFile:
    """A file argument that is still to be read: a path, or `-` for standard input."""

    path: str


def split_words(words: Sequence[str], ids: Callable[[], Sequence[str]] = tuple) -> tuple[str, list[str]]:
    """Return the tool's id and the words of its arguments, from `NS.TOOL key=value …` or `NS TOOL key=value …`.

    Args:
        ids: returns the ids of the installed tools; called only to suggest names.

    Raises:
        UsageError: the words name no tool.
        ToolUnknown: no skill has that name either.
    """
    if not words:
        raise UsageError(
            "which tool is to run?", hint='`silo run jwt.sign claims=\'{"sub": "42"}\'`; `silo list` shows tools'
        )
    first, *rest = words
    if "." in first or "__" in first:
        return first, rest
    if not rest or "=" in rest[0]:
        known = ids()
        if not any(one.startswith(f"{first}.") for one in known):
            raise ToolUnknown(
                f"there is no skill or tool {first[:120]!r}",
                hint=suggest(first, known, otherwise=LIST_TOOLS),
            )
        raise UsageError(
            f"{first!r} names a skill, and the tool is missing",
            hint=command(f"silo inspect {first}", f"{{}} shows the tools of {first}"),
        )
    return f"{first}.{rest[0]}", rest[1:]


def parse_words(words: Sequence[str], schema: Schema) -> dict[str, Json]:
    """Return the arguments that words give. Pure.

    `key=value` is converted to a type that the schema takes; a key that is given several times makes a list;
    `key=@path` is a file if the schema takes one; `key:=json` is JSON as it is; a bare `key` is true.

    Args:
        words: in the order in which they were given.
        schema: the tool's input schema. It is empty for an unknown tool, and all values stay text then.

    Raises:
        ArgumentsInvalid: a word without a name, a key given twice where no list is taken, or broken JSON.
    """
    given: dict[str, list[Json]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        is_json = name.endswith(":") and bool(equals)
        name = name.removesuffix(":") if is_json else name
        if not name:
            raise ArgumentsInvalid(f"{word[:80]!r} has no name", hint="write arguments as key=value")
        part = properties(schema).get(name)
        value = True if not equals else _from_json(name, text) if is_json else _convert(name, text, part, schema)
        given.setdefault(name, []).append(value)
    return {name: _one_or_list(name, values, properties(schema).get(name), schema) for name, values in given.items()}


def parse_document(text: str) -> dict[str, Json]:
    """Return the arguments that `--args` gives as one JSON object.

    Raises:
        ArgumentsInvalid: the text isn't JSON, or isn't an object.
    """
    value = _from_json("--args", text)
    if not isinstance(value, dict):
        raise ArgumentsInvalid("--args is not a JSON object", hint="""write --args '{"key": "value"}'""")
    return value


def _one_or_list(name: str, values: list[Json], part: Json, root: Schema) -> Json:
    if len(values) == 1:
        return values[0]
    if not any(one.get("type") == "array" for one in _kinds(part, root)):
        raise ArgumentsInvalid(f"argument {name!r} was given {len(values)} times", hint=f"give {name} once")
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def _from_json(name: str, text: str) -> Json:
    try:
        return json.loads(text)
    except RecursionError:
        raise ArgumentsInvalid(f"{name}: the JSON nests too deep", hint="pass it as a file") from None
    except ValueError as error:
        raise ArgumentsInvalid(
            f"{name} is not JSON: {error}",
            hint="put it in single quotes, so that the shell leaves its double quotes alone",
        ) from error


def _convert(name: str, text: str, part: Json, root: Schema) -> Json:
    """Return what the text means for the first kind of value that the schema takes."""
    kinds = _kinds(part, root)
    if text.startswith("@") and any(is_file(one) or _is_list_of_files(one, root) for one in kinds):
        return FromFile(text[1:]) if any(is_file(one) for one in kinds) else [FromFile(text[1:])]
    for one in kinds:
        value = _read(text, one, root)
        if value is not _NOTHING:
            return value
    if not kinds:
        value = _loose(text)
        return text if value is _NOTHING else value
    if all(one.get("type") in ("object", "array") for one in kinds):
        return _from_json(name, text)  # it can only be meant as JSON, so report the mistake in it
    return text


_NOTHING = object()


def _read(text: str, schema: Schema, root: Schema, *, depth: int = 0) -> Json:
    """Return the text as a value of one plain schema, or `_NOTHING`."""
    if is_file(schema):
        return text if text[:5].lower() in {"data:", "file:"} else _NOTHING
    choices = (
        schema["enum"] if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else None
    )
    if choices is not None:
        return next((one for one in choices if text == (one if isinstance(one, str) else json.dumps(one))), _NOTHING)
    kinds = schema.get("type")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        value = _of_kind(text, kind, schema, root, depth=depth)
        if value is not _NOTHING:
            return value
    return _NOTHING


def _of_kind(text: str, kind: object, schema: Schema, root: Schema, *, depth: int) -> Json:
    match kind:
        case "string":
            return text
        case "integer":
            return int(text) if _INTEGER.fullmatch(text) else _NOTHING
        case "number":
            return _number(text)
        case "boolean":
            lowered = text.lower()
            return True if lowered in _TRUE else False if lowered in _FALSE else _NOTHING
        case "null":
            return None if text == "null" else _NOTHING
        case "object":
            value = _loose(text)
            return value if isinstance(value, dict) else _NOTHING
        case "array":
            return _list(text, schema, root, depth=depth)
    return _NOTHING


def _number(text: str) -> Json:
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        value = float(text)
    except ValueError:
        return _NOTHING
    return value if math.isfinite(value) and "_" not in text else _NOTHING


def _list(text: str, schema: Schema, root: Schema, *, depth: int) -> Json:
    """Return the text as a JSON list, or as a list with this one item, which may itself be a list of one item."""
    if depth > _MAX_DEPTH:
        return _NOTHING  # a list of lists without end
    value = _loose(text)
    if isinstance(value, list):
        return value
    if text.lstrip().startswith("["):
        return _NOTHING  # meant as a list, but invalid
    items = _kinds(schema.get("items"), root)
    if not items:
        return [text if value is _NOTHING else value]
    item = next(
        (found for one in items if (found := _read(text, one, root, depth=depth + 1)) is not _NOTHING), _NOTHING
    )
    return _NOTHING if item is _NOTHING else [item]


def _loose(text: str) -> Json:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NOTHING


def _is_list_of_files(schema: Schema, root: Schema) -> bool:
    return schema.get("type") == "array" and any(is_file(one) for one in _kinds(schema.get("items"), root))


def _kinds(schema: Json, root: Schema) -> list[Schema]:
    """Return the plain schemas of a schema, in the skill's order."""
    return [one for one in alternatives(schema, root) if _SAY_WHAT & one.keys()]


_SAY_WHAT = frozenset({FILE_MARK, "type", "enum", "const"})
