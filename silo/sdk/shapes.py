"""What an annotation means: `Shape`s, the middle between Python's types and JSON.

`silo.sdk.annotations` turns annotations into shapes, `silo.sdk.schema` shapes into JSON Schema, and `silo.sdk.coerce` JSON values into
what a shape promises. Because all three see the same shapes, a schema never promises what the conversion refuses. Data only.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from silo.sdk.bounds import Bounds


class _Missing(enum.Enum):
    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing.MISSING
"""Stands where there is no default; None is a default."""

JsonKind = Literal["string", "number", "array", "object", "other"]


class Model(Protocol):
    """What silo uses of a pydantic model, or of a `TypeAdapter` around another type that pydantic knows."""

    def json_schema(self, *, ref_template: str, mode: Literal["validation", "serialization"]) -> dict[str, Any]:
        """Return the JSON Schema."""
        ...

    def validate_python(self, value: object, /) -> object:
        """Return the validated value; raises a `ValueError` that has `errors()`."""
        ...


@dataclass(frozen=True)
class Anything:
    """Any JSON value: no annotation, `Any`, `object`."""


@dataclass(frozen=True)
class Scalar:
    """A type that JSON has: `str`, `int`, `float`, `bool` or `NoneType`."""

    kind: type


@dataclass(frozen=True)
class Parsed:
    """A type that travels as a string of a certain format, e.g. `datetime` as `date-time` (RFC 3339)."""

    kind: type
    format: str
    parse: Callable[[str], object]


@dataclass(frozen=True)
class FileInput:
    """A file; the tool gets a `File`, or its bytes."""

    as_bytes: bool


@dataclass(frozen=True)
class Choice:
    """One of some scalars: `Literal` and `Enum`. Pairs of the JSON value and what the tool gets for it."""

    options: tuple[tuple[str | int | float | bool | None, object], ...]


@dataclass(frozen=True)
class Array:
    """A list of any length."""

    item: Shape
    make: Callable[[list[Any]], object]
    unique: bool = False


@dataclass(frozen=True)
class FixedArray:
    """A tuple with a shape for each place."""

    items: tuple[Shape, ...]


@dataclass(frozen=True)
class Table:
    """A mapping; the keys are any strings, or those of a shape; in results they may be integers, written as strings."""

    value: Shape
    keys: Shape | None = None


@dataclass(frozen=True)
class Field:
    """One entry of a `Record`."""

    name: str
    shape: Shape
    required: bool
    default: object = MISSING
    description: str = ""


@dataclass(eq=False)
class Record:
    """An object with known entries: dataclass, `TypedDict`, `NamedTuple`. `fields` is filled once, after a recursion may point here.

    Attributes:
        always_whole: a value of it has every field, as an instance has (and a `TypedDict` has not).
    """

    name: str
    make: Callable[..., object]
    description: str
    always_whole: bool
    fields: tuple[Field, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class OneOf:
    """A union; a value is the first option that it fits."""

    options: tuple[Shape, ...]


@dataclass(eq=False)
class Alias:
    """A `type X = ...` of Python 3.12; `target` is filled once, after a recursion may point here."""

    name: str
    target: Shape | None = field(default=None, repr=False)
    is_recursive: bool = False


@dataclass(frozen=True)
class Pydantic:
    """What pydantic describes and checks by itself."""

    name: str
    model: Model


@dataclass(frozen=True)
class Refined:
    """Another shape with bounds, or with a text about it."""

    shape: Shape
    bounds: Bounds
    description: str


Shape = (
    Anything
    | Scalar
    | Parsed
    | FileInput
    | Choice
    | Array
    | FixedArray
    | Table
    | Record
    | OneOf
    | Alias
    | Pydantic
    | Refined
)


def kinds_of(shape: Shape) -> frozenset[JsonKind]:
    """Return what a value of a shape may be in JSON, as far as bounds care."""
    match shape:
        case Anything() | Pydantic():
            return frozenset({"string", "number", "array", "object"})
        case Scalar(kind=kind):
            return frozenset({_SCALAR_KINDS[kind]})
        case Parsed(format="path"):
            return frozenset({"string"})
        case Array() | FixedArray():
            return frozenset({"array"})
        case Table():
            return frozenset({"object"})
        case OneOf(options=options):
            return frozenset().union(*map(kinds_of, options))
        case Alias(target=target):
            return frozenset() if target is None else kinds_of(target)
        case Refined(shape=inner):
            return kinds_of(inner)
        case Parsed() | FileInput() | Choice() | Record():
            # Dates are strings only in JSON: a bound on one would compare text. Choices and records bound themselves.
            return frozenset({"other"})


_SCALAR_KINDS: Final[dict[type, JsonKind]] = {
    str: "string",
    int: "number",
    float: "number",
    bool: "other",
    type(None): "other",
}
