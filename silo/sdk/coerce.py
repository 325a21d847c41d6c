"""Convert JSON arguments to the types that a tool's annotations name, or say which argument does not fit.

The host has checked the arguments against the schema before the guest sees them. This module checks what a schema can't
express (is this text a date?), and everything in author mode, which has no host. Shapes come from `annotations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from silo.sdk.files import File
from silo.sdk.shapes import (
    Alias,
    Anything,
    Array,
    Choice,
    Field,
    FileInput,
    FixedArray,
    OneOf,
    Parsed,
    Pydantic,
    Refined,
    Scalar,
    Shape,
    Struct,
    Table,
)
from silo.sdk.signature import Signature

T = TypeVar("T")

_ROOT = "arguments"


class CoercionError(Exception):
    """An argument does not fit; the message has its path, e.g. `arguments.items[2].at must be a number, not null`."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where} {problem}")
        self.where = where


def coerce_arguments(signature: Signature, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments for a tool; a parameter that was not given keeps its default.

    Args:
        signature: the tool's.
        arguments: JSON values by parameter, with a `File` in the place of each file.

    Raises:
        CoercionError: an argument is missing, unknown, or of the wrong type.
    """
    return _COERCION.entries(signature.parameters, arguments, _ROOT)


def coerce_value(shape: Shape, value: object, where: str) -> object:
    """Return the value of one shape.

    Raises:
        CoercionError: it does not fit.
    """
    return _COERCION.coerce(shape, value, where)


class _Coercion:
    def entries(self, fields: Sequence[Field], values: Mapping[str, Any], where: str) -> dict[str, Any]:
        known = {entry.name for entry in fields}
        for name in values:
            if name not in known:
                raise CoercionError(_member(where, name), f"is unknown; {where} may have {_list(sorted(known))}")
        given = {}
        for entry in fields:
            if entry.name in values:
                given[entry.name] = self.coerce(entry.shape, values[entry.name], _member(where, entry.name))
            elif entry.required:
                raise CoercionError(_member(where, entry.name), "is missing")
        return given

    def coerce(self, shape: Shape, value: object, where: str) -> object:
        match shape:
            case Anything():
                return value
            case Scalar(kind=kind):
                return _scalar(kind, value, where)
            case Parsed():
                return _parsed(shape, value, where)
            case FileInput(as_bytes=as_bytes):
                file = _expect(File, value, where)
                return file.data if as_bytes else file
            case Choice(options=options):
                return _choice(options, value, where)
            case Array(item=item, make=make):
                return self._array(item, make, value, where)
            case FixedArray(items=items):
                return self._fixed(items, _expect(list, value, where), where)
            case Table(value=inner, keys=keys):
                return self._table(keys, inner, _expect(dict, value, where), where)
            case Struct():
                return self._struct(shape, value, where)
            case OneOf(options=options):
                return self._one_of(options, value, where)
            case Alias(target=target):
                assert target is not None  # the reader has filled it
                return self.coerce(target, value, where)
            case Pydantic():
                return _validated(shape, value, where)
            case Refined(shape=inner, bounds=bounds):
                if (breach := bounds.breach(value)) is not None:
                    raise CoercionError(where, breach)
                return self.coerce(inner, value, where)

    def _array(self, item: Shape, make: Callable[[list[Any]], object], value: object, where: str) -> object:
        found = [self.coerce(item, v, f"{where}[{i}]") for i, v in enumerate(_expect(list, value, where))]
        try:
            return make(found)
        except TypeError as error:  # a set of unhashable items
            raise CoercionError(where, f"can't become a {getattr(make, '__name__', 'set')}: {error}") from None

    def _fixed(self, items: Sequence[Shape], value: Sequence[object], where: str) -> tuple[object, ...]:
        if len(value) != len(items):
            raise CoercionError(where, f"must have exactly {len(items)} items, not {len(value)}")
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(self.coerce(item, given, f"{where}[{index}]") for index, (item, given) in pairs)

    def _table(self, keys: Shape | None, item: Shape, value: Mapping[str, object], where: str) -> dict[Any, object]:
        found: dict[Any, object] = {}
        for name, given in value.items():
            key = name if keys is None else self.coerce(keys, name, f"the key {_short(name)} of {where}")
            found[key] = self.coerce(item, given, _member(where, name))
        return found

    def _struct(self, record: Struct, value: object, where: str) -> object:
        given = self.entries(record.fields, _expect(dict, value, where), where)
        try:
            return record.make(**given)
        except (TypeError, ValueError) as error:  # from a `__post_init__` that checks its fields
            raise CoercionError(where, f"isn't a valid {record.name}: {error}") from error

    def _one_of(self, options: Sequence[Shape], value: object, where: str) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            # `float | int`: 1 fits both; take int.
            options = sorted(options, key=lambda option: option != Scalar(int))
        errors = []
        for option in options:
            try:
                return self.coerce(option, value, where)
            except CoercionError as error:
                errors.append(error)
        # The option that failed deepest inside is probably the intended one; None is only considered when it is alone.
        errors = [e for e, option in zip(errors, options, strict=True) if option != Scalar(type(None))] or errors
        deepest = max(errors, key=lambda error: len(error.where))
        if len(errors) == 1 or len(deepest.where) > len(where):
            raise deepest
        raise CoercionError(where, "fits no option: " + "; ".join(str(e).removeprefix(where).strip() for e in errors))


_COERCION: Final = _Coercion()


def _scalar(kind: type, value: object, where: str) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise CoercionError(where, "is a number too large for a float") from None
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # JSON Schema takes 1.0 for an integer (draft 2020-12, core §4.2.3)
    return _expect(kind, value, where)


def _expect(kind: type[T], value: object, where: str) -> T:
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    raise CoercionError(where, f"must be {_KINDS[kind]}, not {_kind(value)}")


def _parsed(shape: Parsed, value: object, where: str) -> object:
    text = _expect(str, value, where)
    try:
        return shape.parse(text)
    except ValueError:
        raise CoercionError(where, f"must be a string of the format {shape.format!r}, not {_short(text)}") from None


def _choice(options: Sequence[tuple[Any, object]], value: object, where: str) -> object:
    for option, given in options:
        # In JSON, 1 and 1.0 are equal, and 1 and true are not; in Python, 1 == True.
        if isinstance(option, bool) == isinstance(value, bool) and option == value:
            return given
    raise CoercionError(where, f"must be one of {_list([option for option, _ in options])}, not {_short(value)}")


def _validated(shape: Pydantic, value: object, where: str) -> object:
    try:
        return shape.model.validate_python(value)
    except ValueError as error:
        problems = getattr(error, "errors", None)
        if not callable(problems):
            raise CoercionError(where, f"isn't a valid {shape.name}: {error}") from None
        first, *others = problems()
        place = where + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
        more = f" (and {len(others)} more)" if others else ""
        raise CoercionError(place, f"is refused by {shape.name}: {first['msg']}{more}") from None


def _member(where: str, name: str) -> str:
    return f"{where}.{name}" if name.isidentifier() else f"{where}[{_short(name)}]"


def _list(values: Sequence[object]) -> str:
    shown = ", ".join(_short(value) for value in values[:20])
    return (shown + (", …" if len(values) > 20 else "")) or "nothing"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _kind(value: object) -> str:
    return _KINDS.get(type(value), type(value).__name__)


_KINDS: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    type(None): "null",
    list: "an array",
    dict: "an object",
    File: "a file",
}
