"""Fill in the defaults that a schema states for what was left out, at every depth. Pure.

A rule, a person and an approval must see what the tool will get, so the host fills the defaults in and sends them. It
fills in only what is sure. Left out stay a default that its own schema refuses, one that contains itself, and those of
a union in which several branches fit the value: the guest might choose another. `silo.schema.possible` tells of a
property that is still absent whether the tool may have a default for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from silo.schema.walk import Schema, applied_in_place, properties, required, resolve, subschemas
from silo.wire.messages import Json

MAX_DEPTH = 64
"""How deep a value with its defaults may nest, as deep as `silo.schema.canonical` and the wire take it."""


class DefaultsTooLarge(ValueError):
    """The defaults would make the value longer than the caller allows, or deeper than `MAX_DEPTH`."""


class Filler:
    """Fills values by one schema document. Its `$ref`s stay inside it (`silo.schema.checker` refuses others)."""

    def __init__(
        self, root: Schema, *, fits: Callable[[Json, Json], bool], matches: Callable[[str, str], bool], max_bytes: int
    ) -> None:
        """Read the document; fast if it states no default.

        Args:
            root: the document.
            fits: whether a value is valid under a schema of the document.
            matches: whether a pattern of the document is found in a text.
            max_bytes: how long all defaults of one value may be together, as JSON.
        """
        self._root = root
        self._fits = fits
        self._matches = matches
        self._max_bytes = self._left = max_bytes
        self._leading = frozenset(_leading_to_defaults(root))
        self._open: set[int] = set()

    def fill(self, value: Json) -> Json:
        """Return a copy with the defaults of what is absent. What is given, null included, stays.

        Raises:
            DefaultsTooLarge: see `max_bytes` and `MAX_DEPTH`.
        """
        self._left = self._max_bytes
        self._open.clear()
        filled = self._fill(value, self._root)
        if self._leading and _is_too_deep(filled):
            raise DefaultsTooLarge
        return filled

    def _fill(self, value: Json, schema: Json) -> Json:
        if not (isinstance(value, Mapping | list) and isinstance(schema, Mapping) and id(schema) in self._leading):
            return value
        if isinstance(reference := schema.get("$ref"), str):
            value = self._fill(value, self._target(reference))
        value = self._object(value, schema) if isinstance(value, Mapping) else self._list(value, schema)
        for part in _list_of(schema, "allOf"):
            value = self._fill(value, part)
        if "if" in schema:
            value = self._fill(value, schema.get("then" if self._fits(value, schema["if"]) else "else"))
        if isinstance(dependent := schema.get("dependentSchemas"), Mapping) and isinstance(value, Mapping):
            for name in dependent.keys() & value.keys():
                value = self._fill(value, dependent[name])
        for keyword in ("anyOf", "oneOf"):
            value = self._in_branches(value, _list_of(schema, keyword))
        return value

    def _in_branches(self, value: Json, branches: list[Json]) -> Json:
        if not any(id(branch) in self._leading for branch in branches):
            return value
        filled = (self._fill(value, branch) for branch in branches)
        fitting = [one for one, branch in zip(filled, branches, strict=True) if self._fits(one, branch)]
        return fitting[0] if fitting and all(one == fitting[0] for one in fitting) else value

    def _object(self, value: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
        named, others = properties(schema), schema.get("additionalProperties")
        patterns = schema.get("patternProperties")
        patterns = patterns if isinstance(patterns, Mapping) else {}
        filled = {}
        for key, item in value.items():
            parts = [part for pattern, part in patterns.items() if self._matches(str(pattern), key)]
            if key in named:
                parts.append(named[key])
            for part in parts or [others]:
                item = self._fill(item, part)
            filled[key] = item
        for name in named.keys() - value.keys() - required(schema):
            for default in self._default(named[name]):
                filled[name] = default
        # In the order of the schema, whatever the order of a set is.
        return {key: filled[key] for key in [*value, *(name for name in named if name not in value)] if key in filled}

    def _list(self, value: list[Json], schema: Schema) -> list[Json]:
        prefix, others = _list_of(schema, "prefixItems"), schema.get("items")
        filled = [
            self._fill(item, prefix[index] if index < len(prefix) else others) for index, item in enumerate(value)
        ]
        for part in prefix[len(filled) :]:
            found = list(self._default(part))
            if not found:
                break
            filled += found
        return filled

    def _default(self, part: Json) -> Iterator[Json]:
        """Yield the default of an absent part, with defaults inside it; nothing if it has none that is sure."""
        stated = list(self._stated(part))
        if not stated or id(part) in self._open or any(one != stated[0] for one in stated):
            return
        self._left -= len(json.dumps(stated[0]))
        if self._left < 0:
            raise DefaultsTooLarge
        self._open.add(id(part))
        filled = self._fill(stated[0], part)
        self._open.discard(id(part))
        if self._fits(filled, part):
            yield filled

    def _stated(self, part: Json) -> Iterator[Json]:
        """Yield the defaults that a schema states: its own, else those that it refers to or combines."""
        if not isinstance(part, Mapping) or id(part) not in self._leading:
            return
        if "default" in part:
            yield part["default"]
            return
        if isinstance(reference := part.get("$ref"), str):
            yield from self._stated(self._target(reference))
        for one in _list_of(part, "allOf"):
            yield from self._stated(one)

    def _target(self, reference: str) -> Json:
        try:
            return resolve(reference, self._root)
        except LookupError:
            return None


def _is_too_deep(value: Json) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for one in level
            if isinstance(one, Mapping | list)
            for item in (one.values() if isinstance(one, Mapping) else one)
        ]
    return bool(level)


def _leading_to_defaults(root: Schema) -> Iterator[int]:
    """Yield the ids of the schemas that state a default, or lead to one that does."""
    parents: dict[int, list[int]] = {}
    todo = []
    for _, schema in subschemas(root):
        for inside in _inside(schema, root):
            parents.setdefault(id(inside), []).append(id(schema))
        if "default" in schema:
            todo.append(id(schema))
    found = set(todo)
    while todo:
        one = todo.pop()
        yield one
        new = [parent for parent in parents.get(one, ()) if parent not in found]
        found.update(new)
        todo += new


def _inside(schema: Schema, root: Schema) -> Iterator[Json]:
    """Yield the schemas to which one leads in one step, a reference included."""
    yield from applied_in_place(schema)
    yield from properties(schema).values()
    if isinstance(patterns := schema.get("patternProperties"), Mapping):
        yield from patterns.values()
    yield from _list_of(schema, "prefixItems")
    yield from (schema[keyword] for keyword in ("items", "additionalProperties") if keyword in schema)
    if isinstance(reference := schema.get("$ref"), str):
        try:
            yield resolve(reference, root)
        except LookupError:
            return


def _list_of(schema: Schema, keyword: str) -> list[Json]:
    found = schema.get(keyword)
    return found if isinstance(found, list) else []
