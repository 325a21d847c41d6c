"""Walk a JSON Schema: follow its references, and visit what it combines and every schema inside it. Pure.

This is the one place that knows which keywords hold schemas. A schema comes from a skill, so it may be hostile: a
keyword whose value has the wrong type counts as absent, references reach only into the document, and each function
reads an object of the document once, however often something refers to it. `silo.catalog.schema_rules` decides which
schemas a skill may give; `silo.schema.checker` checks values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from silo.wire.messages import FILE_MARK, Json

Schema = Mapping[str, Any]

COMBINATORS = ("anyOf", "oneOf", "allOf")

_LITERALS = frozenset({"const", "default", "dependentRequired", "enum", "examples", "required"})
"""Keywords whose values are data, even where they look like schemas."""

_MAPS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
"""Keywords whose values hold a schema for each name; a name in them is never a keyword."""


class SchemaTooDeep(ValueError):
    """The schema nests deeper than the caller allows."""


# --- one schema -------------------------------------------------------------------------------------------------------


def is_file(schema: Schema) -> bool:
    """Whether a schema stands for a file."""
    return schema.get(FILE_MARK) is True


def properties(schema: Schema) -> Mapping[str, Any]:
    """Return the schemas of the properties that a schema names itself, references not followed."""
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def required(schema: Schema) -> frozenset[str]:
    """Return the names of the properties that must be given."""
    found = schema.get("required")
    return frozenset(name for name in found if isinstance(name, str)) if isinstance(found, list) else frozenset()


def takes(schema: Schema, kind: str) -> bool:
    """Whether a schema names a type, alone or among others."""
    types = schema.get("type")
    return types == kind or (isinstance(types, list) and kind in types)


def describe_path(root: str, path: Sequence[str | int]) -> str:
    """Return `root.items[2].price`; a long name is cut in its middle."""
    return root + "".join(f"[{part}]" if isinstance(part, int) else f".{_cut(part)}" for part in path)


def _cut(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:40]}…{name[-40:]}"


# --- references and combinations --------------------------------------------------------------------------------------


def resolve(reference: str, root: Schema) -> Json:
    """Return what a reference within the document leads to (RFC 6901, as the fragment of a URI).

    Raises:
        LookupError: it leads out of the document, or nowhere.
    """
    if not (reference == "#" or reference.startswith("#/")):
        raise LookupError(reference)
    found: Json = root
    for token in unquote(reference[1:]).split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and name in found:
            found = found[name]
        elif isinstance(found, list) and _INDEX.fullmatch(name) and int(name) < len(found):
            found = found[int(name)]
        else:
            raise LookupError(reference)
    return found


_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def flatten(schema: Json, root: Schema) -> list[Schema]:
    """Return a schema and the schemas that it refers to or combines, each once, in the order of the text.

    A reference that leads nowhere is left out. A file's schema is not taken apart: its text and links are meant for the
    tool's caller.
    """
    flat: list[Schema] = []
    seen: set[int] = set()
    todo = [schema]
    while todo:
        part = todo.pop()
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        seen.add(id(part))
        flat.append(part)
        if not is_file(part):
            todo += reversed(list(_combined(part, root)))
    return flat


def _combined(schema: Schema, root: Schema) -> Iterator[Json]:
    if isinstance(reference := schema.get("$ref"), str):
        with suppress(LookupError):
            yield resolve(reference, root)
    for keyword in COMBINATORS:
        if isinstance(branches := schema.get(keyword), list):
            yield from branches


def alternatives(schema: Json, root: Schema) -> list[Schema]:
    """Return the plain schemas that a schema stands for: `flatten` without those that only refer or combine."""
    return [part for part in flatten(schema, root) if is_file(part) or not _JOINTS & part.keys()]


_JOINTS = frozenset({"$ref", *COMBINATORS})


def inner(schemas: Sequence[Schema], key: str | int) -> Schema:
    """Return what describes the item `key` of a value that any of `schemas` may describe, joined by `anyOf`."""
    found = []
    for schema in schemas:
        if isinstance(key, str):
            named = properties(schema)
            found.append(named[key] if key in named else schema.get("additionalProperties"))
        else:
            prefix = schema.get("prefixItems")
            found.append(prefix[key] if isinstance(prefix, list) and key < len(prefix) else schema.get("items"))
    return {"anyOf": [part for part in found if isinstance(part, Mapping)]}


def applied_in_place(schema: Schema) -> Iterator[Json]:
    """Yield the schemas inside that a value is checked against together with this one, references left out."""
    for keyword in ("not", "if", "then", "else"):
        if keyword in schema:
            yield schema[keyword]
    for keyword in COMBINATORS:
        if isinstance(branches := schema.get(keyword), list):
            yield from branches
    if isinstance(dependent := schema.get("dependentSchemas"), Mapping):
        yield from dependent.values()


# --- a whole document -------------------------------------------------------------------------------------------------


def subschemas(schema: Json) -> Iterator[tuple[str, Schema]]:
    """Yield each schema of a document with its place, such as `#/properties/a`, outermost first.

    A value of an unknown keyword counts as a schema as well: a reference may lead there.
    """
    todo: list[tuple[str, Json]] = [("#", schema)]
    while todo:
        where, part = todo.pop()
        if isinstance(part, Mapping):
            yield where, part
            todo += reversed([(f"{where}/{step}", value) for step, value in _parts(part)])
        elif isinstance(part, list):
            todo += reversed([(f"{where}/{index}", value) for index, value in enumerate(part)])


def _parts(schema: Schema) -> Iterator[tuple[str, Json]]:
    for keyword, value in schema.items():
        if keyword in _MAPS and isinstance(value, Mapping):
            yield from ((f"{keyword}/{name}", part) for name, part in value.items())
        elif keyword not in _LITERALS:
            yield keyword, value


def rewrite(schema: Json, change: Callable[[Schema], Schema], *, max_depth: int = 64) -> Json:
    """Return a copy of a document in which each schema is what `change` returned for it, asked from outside in.

    Raises:
        SchemaTooDeep: it nests deeper than `max_depth`.
    """
    if max_depth < 0:
        raise SchemaTooDeep
    if isinstance(schema, list):
        return [rewrite(item, change, max_depth=max_depth - 1) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    copy: dict[str, Json] = {}
    for keyword, value in change(schema).items():
        if keyword in _LITERALS:
            copy[keyword] = value
        elif keyword in _MAPS and isinstance(value, Mapping):
            copy[keyword] = {str(name): rewrite(part, change, max_depth=max_depth - 1) for name, part in value.items()}
        else:
            copy[keyword] = rewrite(value, change, max_depth=max_depth - 1)
    return copy


def entries(
    document: Json, *, max_depth: int | None = None, max_items: int | None = None, closed: frozenset[str] = frozenset()
) -> Iterator[tuple[str, Json]]:
    """Yield each key with its value from every object in a document, data and schemas alike, in the document's order.

    Args:
        max_depth: objects and lists that nest deeper are left out.
        max_items: how much of each list is read.
        closed: keys whose lists are not entered.
    """
    open_now = [_members(document, max_items)]
    while open_now:
        key, value = next(open_now[-1], (None, _END))
        if value is _END:
            open_now.pop()
            continue
        if key is not None:
            yield key, value
        if key in closed and isinstance(value, list):
            continue
        if isinstance(value, Mapping | list) and (max_depth is None or len(open_now) <= max_depth):
            open_now.append(_members(value, max_items))


_END = object()


def _members(value: Json, max_items: int | None) -> Iterator[tuple[str | None, Json]]:
    if isinstance(value, Mapping):
        return iter(value.items())
    if isinstance(value, list):
        return ((None, item) for item in value[:max_items])
    return iter(())
