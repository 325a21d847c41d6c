"""`Shape`s: the types of parameters and results, between Python's annotations and JSON. Data only.

`silo.sdk.annotations` turns annotations into shapes, `silo.sdk.schema` turns shapes into JSON Schema, and
`silo.sdk.coerce` converts JSON values to the type of a shape. All three use the same shapes, so a schema never accepts
what the conversion refuses.
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
"""Means that there is no default; None is a default."""

JsonKind = Literal["string", "number", "array", "object", "other"]


class PydanticModel(Protocol):
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
    """A choice of scalars: `Literal` and `Enum`. Each option is the JSON value and the value that the tool gets."""

    options: tuple[tuple[str | int | float | bool | None, object], ...]


@dataclass(frozen=True)
class Array:
    """A list of any length."""

    item: Shape
    make: Callable[[list[Any]], object]
    unique: bool = False


@dataclass(frozen=True)
class FixedArray:
    """A tuple with a shape for each item."""

    items: tuple[Shape, ...]


@dataclass(frozen=True)
class Table:
    """A mapping; the keys are any strings, or those of a shape; in results they may be integers, written as strings."""

    value: Shape
    keys: Shape | None = None


@dataclass(frozen=True)
class Field:
    """One entry of a `Struct`."""

    name: str
    shape: Shape
    required: bool
    default: object = MISSING
    description: str = ""


@dataclass(eq=False)
class Struct:
    """An object with known entries: dataclass, `TypedDict`, `NamedTuple`.

    `fields` is filled after the record was made, because a recursive field points back to it.

    Attributes:
        always_whole: every value has all fields, as a dataclass does and a `TypedDict` need not.
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
    """A `type X = ...` of Python 3.12. `target` is filled after the alias was made, because it may be recursive."""

    name: str
    target: Shape | None = field(default=None, repr=False)
    is_recursive: bool = False


@dataclass(frozen=True)
class Pydantic:
    """A type that pydantic describes and checks."""

    name: str
    model: PydanticModel


@dataclass(frozen=True)
class Refined:
    """Another shape with bounds or a description."""

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
    | Struct
    | OneOf
    | Alias
    | Pydantic
    | Refined
)


def kinds_of(shape: Shape) -> frozenset[JsonKind]:
    """Return the kinds of JSON value that a shape allows, as far as bounds depend on them."""
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
        case Parsed() | FileInput() | Choice() | Struct():
            # Dates are strings only in JSON, so a bound on one would compare text. Choices and records need no bounds.
            return frozenset({"other"})


_SCALAR_KINDS: Final[dict[type, JsonKind]] = {
    str: "string",
    int: "number",
    float: "number",
    bool: "other",
    type(None): "other",
}
