"""Which schemas may describe a part of a value, and so what the tool may know of it that was not given. Pure.

`silo.schema.defaults` fills in what is sure. This module is for what remains: a property that is absent although the
schema has it may get a value inside the guest, from a default that JSON Schema can't express.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Self

from silo.schema.walk import Schema, flatten, inner, is_file, properties, required, resolve
from silo.wire.messages import Json

MAX_SCHEMAS = 100_000
"""How many schemas all places of one value may look at, about 0.2 s of work; then any absent property is possible."""


class Place:
    """A part of a value, and the schemas that may describe it: those that the value does not plainly contradict."""

    def __init__(self, value: Json, schemas: list[Schema], sieve: _Sieve) -> None:
        self._value = value
        self._schemas = schemas
        self._sieve = sieve

    @classmethod
    def of(cls, value: Json, root: Schema) -> Self:
        """Return the place of a whole value in a schema document."""
        sieve = _Sieve(root)
        return cls(value, sieve.describing(value, root) or flatten(root, root), sieve)

    def inside(self, key: str | int) -> Place:
        """Return the place of an item: of a property, or at an index."""
        value = self._value[key]
        parts = list(inner(self._schemas, key)["anyOf"])
        for schema in self._schemas:
            if isinstance(named := schema.get("patternProperties"), Mapping):
                parts += named.values()
        found = [one for part in parts for one in self._sieve.describing(value, part) or ()]
        return Place(value, found, self._sieve)

    def may_have(self, name: str) -> bool:
        """Whether the tool may have a value for a property that is absent: a schema has it and does not require it."""
        if self._sieve.is_exhausted:
            return True
        return any(name in properties(schema) and name not in required(schema) for schema in self._schemas)


class _Sieve:
    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = MAX_SCHEMAS
        self._open: set[int] = set()

    @property
    def is_exhausted(self) -> bool:
        return self._left < 0

    def describing(self, value: Json, schema: Json) -> list[Schema] | None:
        """Return a schema and those that it applies to the same value; None if the value contradicts it."""
        self._left -= 1
        if self.is_exhausted or not isinstance(schema, Mapping) or is_file(schema) or id(schema) in self._open:
            return None if schema is False else []
        if _contradicts(value, schema):
            return None
        self._open.add(id(schema))
        try:
            return self._applied(value, schema)
        finally:
            self._open.discard(id(schema))

    def _applied(self, value: Json, schema: Schema) -> list[Schema] | None:
        found = [schema]
        for part in self._all(schema):
            described = self.describing(value, part)
            if described is None:
                return None
            found += described
        for keyword in ("anyOf", "oneOf"):
            if isinstance(branches := schema.get(keyword), list):
                fitting = [one for branch in branches if (one := self.describing(value, branch)) is not None]
                if not fitting:
                    return None
                found += (one for described in fitting for one in described)
        for part in _conditional(schema):
            found += self.describing(value, part) or ()
        return found

    def _all(self, schema: Schema) -> Iterator[Json]:
        if isinstance(reference := schema.get("$ref"), str):
            with suppress(LookupError):
                yield resolve(reference, self._root)
        if isinstance(parts := schema.get("allOf"), list):
            yield from parts


def _conditional(schema: Schema) -> Iterator[Json]:
    yield from (schema[keyword] for keyword in ("then", "else") if keyword in schema)
    if isinstance(dependent := schema.get("dependentSchemas"), Mapping):
        yield from dependent.values()


def _contradicts(value: Json, schema: Schema) -> bool:
    """Whether a value is plainly not valid under a schema: by its type, its names, or a constant in it."""
    if _is_other(value, schema):
        return True
    if not isinstance(value, Mapping):
        return False
    named = properties(schema)
    is_closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
    if (is_closed and value.keys() - named.keys()) or required(schema) - value.keys():
        return True
    parts = ((value[name], part) for name, part in named.items() if name in value)
    return any(isinstance(part, Mapping) and _is_other(item, part) for item, part in parts)


def _is_other(value: Json, schema: Schema) -> bool:
    types = schema.get("type")
    types = [types] if isinstance(types, str) else types
    if isinstance(types, list) and not any(_is_of(value, kind) for kind in types):
        return True
    if not (value is None or isinstance(value, str | bool | int | float)):
        return False
    constants = [schema["const"]] if "const" in schema else schema.get("enum")
    return isinstance(constants, list) and not any(_equal(value, one) for one in constants)


def _is_of(value: Json, kind: Any) -> bool:  # noqa: ANN401 - any JSON value
    match kind:
        case "object":
            return isinstance(value, Mapping)
        case "array":
            return isinstance(value, list | tuple)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "integer" | "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
    return True


def _equal(one: Json, other: Json) -> bool:
    """Whether two values are equal in JSON Schema, where 1 is 1.0 and not true."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
