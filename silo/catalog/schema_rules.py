"""Which JSON Schemas a skill may give for its tools: valid, bounded, self-contained, and cheap enough to check against.

A schema comes out of a guest, so it may be hostile. `silo.schema.checker` checks arguments against it, with its own
deadline.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from silo.catalog.hidden_characters import has_hidden, show_hidden
from silo.schema.walk import Schema, applied_in_place, resolve, subschemas

# `silo uninstall` loads this module and checks no schema, so slow modules are imported where they are used:
# `jsonschema`.

MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 32
MAX_PATTERN_CHARS: Final = 512
MAX_CHECKS: Final = 2000
"""How many subschemas may check one value in place. A handful is normal; nested `allOf` doubles it per level."""

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_SHOWN = frozenset({"description", "title", "$comment"})
_REFUSED = frozenset({"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$vocabulary"})
# They move the place that a `$ref` is resolved against; no generator of schemas for arguments needs them.


class SchemaRefused(ValueError):
    """A schema breaks a rule; the message says which and where. `silo.catalog.metadata` names the tool."""


def check_schema(value: object, *, of_arguments: bool) -> dict[str, Any]:
    """Return the schema with hidden characters of its descriptions made visible.

    Args:
        value: what the guest sent.
        of_arguments: whether the root must be an object (`inputSchema` of MCP).

    Raises:
        SchemaRefused: it is not valid under JSON Schema 2020-12, too large or too deep, refers outside itself, holds
            hidden characters where they mean something, or a long pattern, or would be costly to check against.
    """
    if not isinstance(value, dict):
        raise SchemaRefused("it is not an object")
    if len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass")) > MAX_SCHEMA_BYTES:
        raise SchemaRefused(f"it has more than {MAX_SCHEMA_BYTES} bytes")
    schema = _cleaned(value, "#", 0)
    assert isinstance(schema, dict)
    if of_arguments and schema.get("type") != "object":
        raise SchemaRefused('its root is not of type "object"')
    if schema.get("$schema", DIALECT) != DIALECT:
        raise SchemaRefused(f"its '$schema' is not {DIALECT}")
    _check_valid(schema)
    places = dict(subschemas(schema))
    known = {id(one) for one in places.values()}
    for where, subschema in places.items():
        _check_keywords(subschema, where, schema)
        if "$ref" in subschema:
            target = _target(subschema["$ref"], where, schema)
            # A value that only looks like a schema, such as a default, went through none of the checks here.
            if id(target) not in known:
                raise SchemaRefused(f"'$ref' does not lead to a schema, at {where}")
            _check_valid(target)
    _check_cost(schema)
    return schema


def _cleaned(value: object, where: str, depth: int) -> object:
    if depth > MAX_DEPTH:
        raise SchemaRefused(f"it nests deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return [_cleaned(one, f"{where}/{index}", depth + 1) for index, one in enumerate(value)]
    if isinstance(value, str):
        if has_hidden(value):
            raise SchemaRefused(f"hidden characters at {where}: {show_hidden(value)[:100]!r}")
        return value
    if not isinstance(value, dict):
        return value
    cleaned: dict[str, object] = {}
    for key, one in value.items():
        if not isinstance(key, str) or has_hidden(key):
            raise SchemaRefused(f"a name with hidden characters at {where}: {show_hidden(str(key))[:100]!r}")
        if key in _SHOWN and isinstance(one, str):
            cleaned[key] = show_hidden(one)
        else:
            cleaned[key] = _cleaned(one, f"{where}/{key}", depth + 1)
    return cleaned


def _check_valid(schema: Schema) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = "/".join(str(part) for part in ("#", *error.absolute_path))
        raise SchemaRefused(f"not valid under JSON Schema 2020-12 at {where}: {error.message[:200]}") from error


def _check_keywords(schema: Schema, where: str, root: Schema) -> None:
    if found := sorted(_REFUSED & schema.keys()):
        raise SchemaRefused(f"'{found[0]}' is refused, at {where}")
    if "$schema" in schema and schema is not root:
        raise SchemaRefused(f"'$schema' inside the schema, at {where}")
    patterns = [schema["pattern"]] if "pattern" in schema else []
    if isinstance(named := schema.get("patternProperties"), dict):
        patterns += named
    for pattern in patterns:
        if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN_CHARS:
            raise SchemaRefused(f"a pattern of more than {MAX_PATTERN_CHARS} characters at {where}")
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise SchemaRefused(f"an invalid pattern at {where}: {error}") from error


def _target(ref: object, where: str, root: Schema) -> Schema:
    """Return the schema that a reference leads to."""
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        raise SchemaRefused(f"'$ref' leads out of the schema, at {where}")
    if "%" in ref:
        raise SchemaRefused(f"'$ref' with an escape, at {where}")
    try:
        target = resolve(ref, root)
    except LookupError:
        raise SchemaRefused(f"'$ref' leads nowhere ({ref[:100]}), at {where}") from None
    if not isinstance(target, dict):
        raise SchemaRefused(f"'$ref' does not lead to a schema ({ref[:100]}), at {where}")
    return target


def _check_cost(root: Schema) -> None:
    """Bound how often one value is checked in place: a `$ref` that comes back to itself would never end."""
    known: dict[int, int] = {}
    open_now: set[int] = set()

    def cost(schema: object) -> int:
        if not isinstance(schema, dict):
            return 1
        if id(schema) in known:
            return known[id(schema)]
        if id(schema) in open_now:
            raise SchemaRefused("a '$ref' comes back to itself without going into the value")
        if len(open_now) > 8 * MAX_DEPTH:
            raise SchemaRefused("a chain of '$ref' is too long")
        open_now.add(id(schema))
        total = 1
        if "$ref" in schema:
            total += cost(_target(schema["$ref"], "#", root))
        total += sum(cost(one) for one in applied_in_place(schema))
        open_now.discard(id(schema))
        if total > MAX_CHECKS:
            raise SchemaRefused(f"checking one value would take more than {MAX_CHECKS} checks")
        known[id(schema)] = total
        return total

    for _, one in subschemas(root):
        cost(one)
