"""Write JSON Schema (draft 2020-12) for the arguments and results of a tool. `silo.sdk.annotations` reads annotations.

Named types (dataclasses, `TypedDict`s, `NamedTuple`s, pydantic models) go to `$defs` at the root, even if they are not
recursive, so that a type that is used three times is written once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from silo.sdk.bounds import Bounds
from silo.sdk.coerce import CoercionError, coerce_value
from silo.sdk.encode import Unencodable, to_json
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
    Refined,
    Scalar,
    Shape,
    Struct,
    Table,
    kinds_of,
)
from silo.sdk.signature import Signature
from silo.wire.messages import FILE_MARK

Schema = dict[str, Any]

_FILE_TEXT: Final = 'A file: its bytes as base64, or a link such as {"uri": "file:///folder/name"}.'
_DEFS: Final = "#/$defs/"
_SCALARS: Final[dict[type, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


def input_schema(signature: Signature) -> Schema:
    """Return the schema of a tool's arguments: an object that allows only the names of the parameters."""
    writer = _Writer("input")
    schema = writer.object_of(signature.parameters)
    return {**schema, "$defs": writer.defs} if writer.defs else schema


def output_schema(signature: Signature) -> Schema | None:
    """Return the schema of a tool's data, which need not be an object, or None if its results have no fixed shape."""
    if signature.returns is None:
        return None
    writer = _Writer("output")
    schema = writer.write(signature.returns)
    if set(schema) == {"$ref"}:
        # A client that requires `"type": "object"` at the root (MCP 2025-06-18) does not follow a reference.
        name = str(schema["$ref"]).removeprefix(_DEFS)
        schema = writer.defs[name]
        if not _refers_to(_DEFS + name, list(writer.defs.values())):
            del writer.defs[name]
    return {**schema, "$defs": writer.defs} if writer.defs else schema


@dataclass
class _Writer:
    """Writes one schema document and collects its definitions."""

    direction: Literal["input", "output"]
    defs: dict[str, Schema] = field(default_factory=dict)
    _names: dict[object, str] = field(default_factory=dict)

    def write(self, shape: Shape) -> Schema:
        match shape:
            case Anything():
                return {}
            case Scalar(kind=kind):
                return {"type": _SCALARS[kind]}
            case Parsed(format=name):
                return {"type": "string", "format": name}
            case FileInput():
                return _file()
            case Choice():
                return _choice(shape)
            case Array(item=item, unique=unique):
                return {"type": "array", "items": self.write(item), **({"uniqueItems": True} if unique else {})}
            case FixedArray(items=items):
                prefix = {"prefixItems": [self.write(item) for item in items]} if items else {}
                return {"type": "array", **prefix, "items": False, "minItems": len(items)}
            case Table(value=value, keys=keys):
                names = {} if keys is None else {"propertyNames": self.write(keys)}
                # `dict` alone is an object with any values; an empty schema for them would be redundant.
                values = self.write(value)
                return {"type": "object", **names, **({"additionalProperties": values} if values else {})}
            case Struct():
                return self._struct(shape)
            case OneOf(options=options):
                return _any_of([self.write(option) for option in options])
            case Alias():
                return self._alias(shape)
            case Pydantic():
                return self._pydantic(shape)
            case Refined(shape=inner, bounds=bounds, description=text):
                schema = {**self.write(inner), **_bounds(bounds, kinds_of(inner))}
                return {**schema, "description": text} if text else schema

    def object_of(self, fields: tuple[Field, ...], *, always_whole: bool = False) -> Schema:
        """Return the schema of an object with these entries; an input allows no others.

        Args:
            fields: the entries.
            always_whole: an output always has every entry, with or without a default.
        """
        is_input = self.direction == "input"
        required = [entry.name for entry in fields if entry.required or (always_whole and not is_input)]
        return {
            "type": "object",
            "properties": {entry.name: self._property(entry) for entry in fields},
            **({"required": required} if required else {}),
            **({"additionalProperties": False} if is_input else {}),
        }

    def _property(self, entry: Field) -> Schema:
        schema = self.write(entry.shape)
        text = entry.description
        if _holds_file(schema):
            text = f"{text} ({_FILE_TEXT})" if text else _FILE_TEXT
        if text:
            schema = {**schema, "description": text}
        if self.direction == "input" and entry.default is not MISSING:
            schema = {**schema, **_default(entry)}
        return schema

    def _struct(self, record: Struct) -> Schema:
        if record not in self._names:
            name = self._names[record] = self._free_name(record.name)
            self.defs[name] = {}  # reserves the name, because a field may refer back to it
            text = {"description": record.description} if record.description else {}
            self.defs[name] = {**text, **self.object_of(record.fields, always_whole=record.always_whole)}
        return {"$ref": _DEFS + self._names[record]}

    def _alias(self, alias: Alias) -> Schema:
        assert alias.target is not None  # the reader has filled it
        if not alias.is_recursive:
            return self.write(alias.target)
        if alias not in self._names:
            name = self._names[alias] = self._free_name(alias.name)
            self.defs[name] = {}
            self.defs[name] = self.write(alias.target)
        return {"$ref": _DEFS + self._names[alias]}

    def _pydantic(self, shape: Pydantic) -> Schema:
        if shape in self._names:
            return {"$ref": _DEFS + self._names[shape]}
        mode: Literal["validation", "serialization"] = "validation" if self.direction == "input" else "serialization"
        schema = shape.model.json_schema(ref_template=_DEFS + "{model}", mode=mode)
        inner: dict[str, Schema] = schema.pop("$defs", {})
        # Two models of one name in two modules, or a dataclass and a model: the later one gets another name.
        names: dict[str, str] = {}
        for name, definition in inner.items():
            names[name] = name if self.defs.get(name, definition) == definition else self._free_name(name)
            self.defs.setdefault(names[name], definition)
        if any(old != new for old, new in names.items()):
            for new in names.values():
                self.defs[new] = _renamed(self.defs[new], names)
            schema = _renamed(schema, names)
        if set(schema) == {"$ref"}:
            self._names[shape] = str(schema["$ref"]).removeprefix(_DEFS)
        elif schema.get("type") == "object":
            name = self._names[shape] = self._free_name(shape.name)
            self.defs[name] = schema
        else:
            return schema
        return {"$ref": _DEFS + self._names[shape]}

    def _free_name(self, wanted: str) -> str:
        # A generic model is called `Page[int]`, and a reference would have to escape the brackets (RFC 6901, RFC 3986).
        base = re.sub(r"[^A-Za-z0-9_.-]+", "_", wanted).strip("_") or "Value"
        name, number = base, 2
        while name in self.defs:
            name, number = f"{base}_{number}", number + 1
        return name


def _file() -> Schema:
    # The link is MCP's ResourceLink, which may carry more (size, annotations, _meta), so other names are allowed.
    link = {
        "type": "object",
        "properties": {
            "uri": {"type": "string", "format": "uri"},
            "type": {"type": "string"},
            "name": {"type": "string"},
            "mimeType": {"type": "string"},
        },
        "required": ["uri"],
    }
    return {"anyOf": [{"type": "string", "contentEncoding": "base64"}, link], FILE_MARK: True}


def _holds_file(schema: Schema) -> bool:
    if schema.get(FILE_MARK):
        return True
    inner = [schema.get("items"), *schema.get("anyOf", ())]
    return any(_holds_file(part) for part in inner if isinstance(part, dict))


def _choice(choice: Choice) -> Schema:
    values = [value for value, _ in choice.options]
    types = {_SCALARS.get(type(value), "string") for value in values}
    values = [str(value) if isinstance(value, str) else value for value in values]
    return {"type": types.pop(), "enum": values} if len(types) == 1 else {"enum": values}


def _any_of(schemas: list[Schema]) -> Schema:
    unique: list[Schema] = []
    for schema in schemas:
        if schema not in unique:
            unique.append(schema)
    return unique[0] if len(unique) == 1 else {"anyOf": unique}


def _bounds(bounds: Bounds, kinds: frozenset[JsonKind]) -> Schema:
    """Return the keywords of bounds. Each applies to its own type only, so they are valid beside an `anyOf` too."""
    found: Schema = {
        "minimum": bounds.ge,
        "exclusiveMinimum": bounds.gt,
        "maximum": bounds.le,
        "exclusiveMaximum": bounds.lt,
        "multipleOf": bounds.multiple_of,
        "pattern": bounds.pattern,
    }
    for kind, noun in (("string", "Length"), ("array", "Items"), ("object", "Properties")):
        if kind in kinds:
            found |= {f"min{noun}": bounds.min_length, f"max{noun}": bounds.max_length}
    return {keyword: value for keyword, value in found.items() if value is not None}


def _default(entry: Field) -> Schema:
    """Return the default, or nothing if the tool would not get the same when the host sends it.

    So it is left out if it isn't JSON, or does not fit the annotation (`x: int = None`), or becomes something else on
    the way (a `Path` for `Any`).
    """
    if entry.default is None and not _takes_null(entry.shape):
        return {}
    try:
        default = to_json(entry.default, entry.name)
        given = coerce_value(entry.shape, default, entry.name)
    except (Unencodable, CoercionError):
        return {}
    return {"default": default} if _is_same(entry.default, given) else {}


def _is_same(one: object, other: object) -> bool:
    """Whether a tool can't tell two values apart; 1 and 1.0 count as the same where a float is wanted."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(_is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(value, other[key]) for key, value in one.items())
    is_number = type(one) in (int, float) and type(other) in (int, float)
    return (type(one) is type(other) or is_number) and bool(one == other)


def _takes_null(shape: Shape) -> bool:
    match shape:
        case Anything() | Pydantic():
            return True
        case Scalar(kind=kind):
            return kind is type(None)
        case Choice(options=options):
            return any(value is None for value, _ in options)
        case OneOf(options=shapes):
            return any(map(_takes_null, shapes))
        case Refined(shape=inner):
            return _takes_null(inner)
        case Alias(target=target):
            return target is not None and _takes_null(target)
    return False


def _refers_to(reference: str, schema: object) -> bool:
    if isinstance(schema, dict):
        return schema.get("$ref") == reference or any(_refers_to(reference, value) for value in schema.values())
    return isinstance(schema, list) and any(_refers_to(reference, item) for item in schema)


def _renamed(schema: Any, names: dict[str, str]) -> Any:  # noqa: ANN401 - any part of a schema, and the same part back
    """Return a copy with references to renamed definitions, also those of a discriminator (OpenAPI 3.1 §4.8.25)."""
    if isinstance(schema, list):
        return [_renamed(item, names) for item in schema]
    if isinstance(schema, str):
        return _DEFS + names.get(schema[len(_DEFS) :], schema[len(_DEFS) :]) if schema.startswith(_DEFS) else schema
    if isinstance(schema, dict):
        return {key: _renamed(value, names) for key, value in schema.items()}
    return schema
