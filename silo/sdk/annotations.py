"""Read annotations: turn Python types into `Shape`s. `silo.sdk.schema` writes shapes as JSON Schema.

No package is imported to recognise a type: the types of pydantic, `annotated-types` and `typing_extensions` are
recognised by their attributes.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import math
import pathlib
import sys
import types
import typing
import uuid
from collections import abc
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from silo.sdk.bounds import Bounds
from silo.sdk.docstring import parse_docstring
from silo.sdk.errors import SkillDefinitionError
from silo.sdk.files import File
from silo.sdk.shapes import (
    MISSING,
    Alias,
    Anything,
    Array,
    Choice,
    Field,
    FileInput,
    FixedArray,
    JsonKind,
    OneOf,
    Parsed,
    Pydantic,
    PydanticModel,
    Refined,
    Scalar,
    Shape,
    Struct,
    Table,
    kinds_of,
)

Direction = Literal["input", "output"]
"""Whether values come from an agent or go to it. Some types, such as `dict[int, str]`, are for output only."""

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
_PARSED: Final[Mapping[type, Parsed]] = types.MappingProxyType(
    {
        datetime.datetime: Parsed(datetime.datetime, "date-time", datetime.datetime.fromisoformat),
        datetime.date: Parsed(datetime.date, "date", datetime.date.fromisoformat),
        datetime.time: Parsed(datetime.time, "time", datetime.time.fromisoformat),
        uuid.UUID: Parsed(uuid.UUID, "uuid", uuid.UUID),
        decimal.Decimal: Parsed(decimal.Decimal, "decimal", lambda text: _decimal(text)),
        pathlib.Path: Parsed(pathlib.Path, "path", pathlib.Path),
        pathlib.PurePath: Parsed(pathlib.PurePath, "path", pathlib.PurePath),
        pathlib.PurePosixPath: Parsed(pathlib.PurePosixPath, "path", pathlib.PurePosixPath),
    }
)
_LISTS: Final = frozenset({list, abc.Sequence, abc.MutableSequence, abc.Iterable, abc.Collection})
_SETS: Final[Mapping[object, Callable[[list[Any]], object]]] = types.MappingProxyType(
    {set: set, frozenset: frozenset, abc.Set: frozenset, abc.MutableSet: set}
)
_TABLES: Final = frozenset({dict, abc.Mapping, abc.MutableMapping})
_EMPTY: Final[tuple[Callable[[], object], ...]] = (list, dict, set, frozenset, tuple)
"""Factories that make the same value each time."""
_FIELD_MARKERS: Final = frozenset({"Required", "NotRequired", "ReadOnly", "Final"})
_RANGE: Final = ("ge", "gt", "le", "lt", "multiple_of")
_LENGTH: Final = ("min_length", "max_length")

_ADVICE: Final = (
    "use str, int, float, bool, None, list, dict, tuple, set, Literal, an Enum, a TypedDict, a dataclass, "
    "date, datetime, UUID, Decimal, Path, File, unions of these, a pydantic model, or Any"
)


@dataclass
class AnnotationReader:
    """Reads the annotations of one tool; a type that occurs twice becomes one shape.

    Attributes:
        where: the tool, for errors: `the tool 'list_issues'`.
    """

    where: str
    direction: Direction
    _records: dict[type, Struct] = field(default_factory=dict)
    _aliases: dict[int, Alias] = field(default_factory=dict)
    _open_aliases: set[int] = field(default_factory=set)

    def read(self, annotation: object, what: str, *, may_be_file: bool = True) -> Shape:
        """Return the shape of an annotation.

        Args:
            annotation: from `resolve_hints`; `Any` where there is none.
            what: the parameter, for errors: `parameter 'limit'`.
            may_be_file: whether the host looks for a file here: in a parameter, or in a parameter that is a list.

        Raises:
            SkillDefinitionError: JSON can't carry a value of that type, or a bound does not fit it.
        """
        if annotation in (Any, object, abc.Hashable):
            return Anything()
        if annotation is None or annotation in (typing.Never, typing.NoReturn):
            return Scalar(type(None))
        if isinstance(annotation, typing.TypeVar):
            return self.read(annotation.__bound__ or Any, what, may_be_file=may_be_file)
        if annotation is typing.LiteralString:
            return Scalar(str)
        if hasattr(annotation, "__supertype__"):  # typing.NewType
            return self.read(annotation.__supertype__, what, may_be_file=may_be_file)
        if hasattr(annotation, "__value__"):  # `type X = ...`, typing.TypeAliasType
            return self._alias(annotation, what, may_be_file)
        origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is typing.Annotated:
            return self._annotated(arguments[0], arguments[1:], what, may_be_file)
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments, what, may_be_file)
        if origin is Literal:
            return self._choice(((_plain(option), option) for option in _flat(arguments)), annotation, what)
        if isinstance(annotation, type) and origin is None:
            return self._class(annotation, what, may_be_file)
        return self._generic(origin or annotation, arguments, annotation, what, may_be_file)

    def _class(self, cls: type, what: str, may_be_file: bool) -> Shape:
        if cls in _SCALARS:
            return Scalar(cls)
        if cls in _PARSED:
            return _PARSED[cls]
        if cls in (bytes, File):
            if self.direction == "output":
                raise self._error(
                    cls, what, "return files alone, in a list, or as AgentResponse.files; JSON holds no bytes"
                )
            if not may_be_file:
                raise self._error(cls, what, "a file must be a parameter of its own, or a list of files")
            return FileInput(as_bytes=cls is bytes)
        if issubclass(cls, enum.Enum) and not issubclass(cls, enum.Flag):
            return self._choice(((_plain(member), member) for member in cls), cls, what)
        if (model := _pydantic(cls)) is not None:
            return Pydantic(cls.__name__, model)
        if dataclasses.is_dataclass(cls) or _is_typed_dict(cls) or _is_named_tuple(cls):
            return self._struct(cls, what)
        return self._generic(cls, (), cls, what, may_be_file)

    def _generic(
        self, origin: object, arguments: tuple[Any, ...], annotation: object, what: str, may_be_file: bool
    ) -> Shape:
        if origin in _LISTS:
            return Array(self.read(arguments[0] if arguments else Any, what, may_be_file=may_be_file), list)
        if origin in _SETS:
            return Array(
                self.read(arguments[0] if arguments else Any, what, may_be_file=False), _SETS[origin], unique=True
            )
        if origin is tuple:
            if annotation in (tuple, typing.Tuple):  # noqa: UP006 - the bare names; `tuple[()]` is the empty tuple
                return Array(Anything(), tuple)
            if len(arguments) == 2 and arguments[1] is ...:
                return Array(self.read(arguments[0], what, may_be_file=may_be_file), tuple)
            return FixedArray(tuple(self.read(item, what, may_be_file=False) for item in arguments))
        if origin in _TABLES:
            key, value = arguments or (Any, Any)
            return Table(self.read(value, what, may_be_file=False), self._keys(key, annotation, what))
        if (model := _adapter(annotation)) is not None:
            return Pydantic(getattr(annotation, "__name__", "Value"), model)
        if arguments and isinstance(origin, type):
            raise self._error(
                annotation, what, f"declare a class of its own instead of the generic {origin.__name__}[...]"
            )
        raise self._error(annotation, what, _ADVICE)

    def _keys(self, annotation: object, table: object, what: str) -> Shape | None:
        """Return the shape of a mapping's keys, or None if any string is allowed."""
        shape = self.read(annotation, what, may_be_file=False)
        if shape in (Anything(), Scalar(str)) or (shape == Scalar(int) and self.direction == "output"):
            return None
        inner = shape.shape if isinstance(shape, Refined) else shape
        if inner == Scalar(str) or (isinstance(inner, Choice) and all(isinstance(v, str) for v, _ in inner.options)):
            return shape
        raise self._error(table, what, "the keys of a JSON object are strings; write dict[str, ...]")

    def _union(self, options: Iterable[object], what: str, may_be_file: bool) -> Shape:
        shapes: list[Shape] = []
        for option in options:
            shape = self.read(option, what, may_be_file=may_be_file)
            shapes += [s for s in (shape.options if isinstance(shape, OneOf) else (shape,)) if s not in shapes]
        if self.direction == "input" and any(map(_takes_file, shapes)):
            others = [shape for shape in shapes if shape != Scalar(type(None))]
            if len(others) > 1:
                raise self._error("a union", what, "a file travels as text, so it can only be joined with None")
        return shapes[0] if len(shapes) == 1 else OneOf(tuple(shapes))

    def _choice(self, pairs: Iterable[tuple[object, object]], annotation: object, what: str) -> Choice:
        options: list[tuple[str | int | float | bool | None, object]] = []
        for value, given in pairs:
            if value is not None and not isinstance(value, str | int | float | bool):
                raise self._error(annotation, what, f"{value!r} isn't a JSON scalar; give it a text or a number")
            options.append((value, given))
        if not options:
            raise self._error(annotation, what, "it has no values")
        return Choice(tuple(options))

    def _alias(self, annotation: object, what: str, may_be_file: bool) -> Shape:
        key = id(annotation)
        if key in self._open_aliases:
            self._aliases[key].is_recursive = True
            return self._aliases[key]
        if key not in self._aliases:
            alias = self._aliases[key] = Alias(getattr(annotation, "__name__", "Alias"))
            self._open_aliases.add(key)
            alias.target = self.read(_attribute(annotation, "__value__"), what, may_be_file=may_be_file)
            self._open_aliases.discard(key)
        alias = self._aliases[key]
        assert alias.target is not None
        return alias if alias.is_recursive else alias.target

    def _struct(self, cls: type, what: str) -> Struct:
        if cls in self._records:
            return self._records[cls]
        doc = parse_docstring(_own_doc(cls))
        is_typed_dict = _is_typed_dict(cls)
        record = self._records[cls] = Struct(
            cls.__name__, dict if is_typed_dict else cls, doc.description, always_whole=not is_typed_dict
        )
        hints = resolve_hints(cls, f"{what} of {self.where}")
        fields = []
        for name, required, default in _entries(cls, hints):
            inner = f"{what}: the field {cls.__name__}.{name}"
            shape = self.read(_unmarked(hints.get(name, Any)), inner, may_be_file=False)
            fields.append(Field(name, shape, required, default, describe_field(shape, doc.parameters.get(name, ""))))
        record.fields = tuple(fields)
        return record

    def _annotated(self, annotation: object, metadata: tuple[object, ...], what: str, may_be_file: bool) -> Shape:
        shape = self.read(annotation, what, may_be_file=may_be_file)
        texts: list[str] = []
        bounds: dict[str, Any] = {}
        for note in _notes(metadata):
            if isinstance(note, str):
                texts.append(note)
                continue
            # pydantic's Field, and typing_extensions.Doc
            found = (getattr(note, attribute, None) for attribute in ("description", "documentation"))
            texts.extend(text for text in found if isinstance(text, str))
            for attribute in (*_RANGE, *_LENGTH, "pattern"):
                if (value := getattr(note, attribute, None)) is not None and not callable(value):
                    bounds[attribute] = self._bound(attribute, value, kinds_of(shape), annotation, what)
        if not texts and not bounds:
            return shape
        return Refined(shape, Bounds(**bounds), " ".join(" ".join(texts).split()))

    def _bound(
        self, attribute: str, value: object, kinds: frozenset[JsonKind], annotation: object, what: str
    ) -> float | int | str:
        """Check that a bound can be written into a schema; otherwise it would silently have no effect."""
        if attribute in _RANGE:
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            fits = "number" in kinds and is_number and (attribute != "multiple_of" or typing.cast("float", value) > 0)
        elif attribute in _LENGTH:
            fits = bool(kinds & {"string", "array", "object"}) and isinstance(value, int) and value >= 0
        else:
            value = getattr(value, "pattern", value)  # re.Pattern
            fits = "string" in kinds and isinstance(value, str)
        if not fits:
            raise self._error(annotation, what, f"the bound {attribute}={value!r} can't be checked for it")
        return typing.cast("float | int | str", value)

    def _error(self, annotation: object, what: str, advice: str) -> SkillDefinitionError:
        return SkillDefinitionError(f"{what} of {self.where} is annotated with {_spell(annotation)}: {advice}")


def resolve_hints(target: Callable[..., object], what: str) -> dict[str, Any]:
    """Return the annotations of a function or class as objects, with `Annotated` kept.

    Raises:
        SkillDefinitionError: a name in one of them does not exist at run time.
    """
    try:
        return typing.get_type_hints(target, include_extras=True)
    except NameError as error:
        raise SkillDefinitionError(
            f"an annotation in {what} names {error.name!r}, which does not exist at run time; "
            "import it outside of `if TYPE_CHECKING`, and define it at the top level of the script"
        ) from error
    except (TypeError, SyntaxError, AttributeError) as error:
        raise SkillDefinitionError(f"an annotation in {what} can't be read: {error}") from error


def describe_field(shape: Shape, documented: str) -> str:
    """Return the description of a parameter or field: from `Annotated`, else from the docstring."""
    match shape:
        case Refined(description=text) if text:
            return text
        case OneOf(options=options):
            texts = [option.description for option in options if isinstance(option, Refined) and option.description]
            return texts[0] if texts else documented
    return documented


def _entries(cls: type, hints: Mapping[str, object]) -> Iterable[tuple[str, bool, object]]:
    """Yield name, whether it is required, and default for the entries of a dataclass, TypedDict or NamedTuple."""
    if dataclasses.is_dataclass(cls):
        for entry in dataclasses.fields(cls):
            if entry.init:
                has_default = entry.default is not dataclasses.MISSING
                optional = has_default or entry.default_factory is not dataclasses.MISSING
                empty = next((make() for make in _EMPTY if make is entry.default_factory), MISSING)
                yield entry.name, not optional, entry.default if has_default else empty
    elif _is_typed_dict(cls):
        required_keys: frozenset[str] = _attribute(cls, "__required_keys__")
        for name, hint in hints.items():
            # With postponed annotations Python does not see the markers when it fills `__required_keys__` (bpo-42059).
            markers = _markers(hint)
            required = "NotRequired" not in markers and ("Required" in markers or name in required_keys)
            yield name, required, MISSING
    else:
        names: tuple[str, ...] = _attribute(cls, "_fields")
        defaults: Mapping[str, object] = _attribute(cls, "_field_defaults")
        for name in names:
            yield name, name not in defaults, defaults.get(name, MISSING)


def _markers(hint: object) -> set[str]:
    found = set()
    while (name := _marker(hint)) is not None:
        found.add(name)
        hint = typing.get_args(hint)[0]
    return found


def _unmarked(hint: object) -> object:
    while _marker(hint) is not None:
        hint = typing.get_args(hint)[0]
    return hint


def _marker(hint: object) -> str | None:
    name = getattr(typing.get_origin(hint), "_name", None)
    return name if name in _FIELD_MARKERS else None


def _notes(metadata: Iterable[object]) -> Iterable[object]:
    """Yield the notes of an `Annotated`, those inside pydantic's `Field` as well."""
    for note in metadata:
        yield note
        inner = getattr(note, "metadata", None)
        if isinstance(inner, list | tuple):
            yield from _notes(inner)


def _flat(options: Iterable[Any]) -> Iterable[Any]:
    for option in options:
        if typing.get_origin(option) is Literal:
            yield from _flat(typing.get_args(option))
        else:
            yield option


def _attribute(owner: object, name: str) -> Any:  # noqa: ANN401 - attributes that only some annotations have
    return getattr(owner, name)


def _plain(value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else value


def _takes_file(shape: Shape) -> bool:
    match shape:
        case FileInput():
            return True
        case Array(item=item):
            return _takes_file(item)
        case Refined(shape=inner):
            return _takes_file(inner)
        case OneOf(options=options):
            return any(map(_takes_file, options))
    return False


def _is_typed_dict(cls: type) -> bool:
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__") and hasattr(cls, "__total__")


def _is_named_tuple(cls: type) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_field_defaults")


@dataclass(frozen=True)
class _BaseModel:
    """A pydantic `BaseModel` subclass, seen as a `PydanticModel`."""

    cls: Any

    def json_schema(self, *, ref_template: str, mode: Literal["validation", "serialization"]) -> dict[str, Any]:
        schema: dict[str, Any] = self.cls.model_json_schema(ref_template=ref_template, mode=mode)
        return schema

    def validate_python(self, value: object, /) -> object:
        validated: object = self.cls.model_validate(value)
        return validated


def _pydantic(cls: type) -> PydanticModel | None:
    if callable(getattr(cls, "model_json_schema", None)) and callable(getattr(cls, "model_validate", None)):
        return _BaseModel(cls)
    return _adapter(cls)


def _adapter(annotation: object) -> PydanticModel | None:
    """Wrap a type that only pydantic knows, such as `HttpUrl`; a skill that uses one has imported pydantic."""
    if not hasattr(annotation, "__get_pydantic_core_schema__") or "pydantic" not in sys.modules:
        return None
    adapter: PydanticModel = sys.modules["pydantic"].TypeAdapter(annotation)
    return adapter


def _decimal(text: str) -> decimal.Decimal:
    try:
        number = decimal.Decimal(text)
    except decimal.InvalidOperation as error:
        raise ValueError(f"not a decimal number: {text!r}") from error
    if not number.is_finite():  # Python's parser accepts "NaN", which can't be compared with a bound
        raise ValueError(f"not a finite number: {text!r}")
    return number


def _own_doc(cls: type) -> str:
    """Return the docstring that the author wrote; Python generates one for dataclasses and named tuples without any."""
    doc = cls.__dict__.get("__doc__") or ""
    return "" if doc.startswith(f"{cls.__name__}(") else doc


def _spell(annotation: object) -> str:
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__qualname__
    return str(annotation)
