"""What annotations mean, shown by the schemas and conversions for them."""

import dataclasses
import enum
import functools
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, Optional, TypedDict, TypeVar, Union

import annotated_types
import pytest
import typing_extensions
from jsonschema import Draft202012Validator

from silo import AgentResponse, File, Length, Pattern, Range
from silo.sdk.coerce import CoercionError, coerce_arguments
from silo.sdk.errors import SkillDefinitionError
from silo.sdk.schema import input_schema, output_schema
from silo.sdk.signature import read_signature

T = TypeVar("T")
Bounded = TypeVar("Bounded", bound=int)


def schema_of(annotation: Any) -> Any:
    def tool(x): ...

    tool.__annotations__["x"] = annotation
    schema = input_schema(read_signature("tool", tool))
    Draft202012Validator.check_schema(schema)
    return schema["properties"]["x"]


def output_of(annotation: Any) -> Any:
    def tool(): ...

    tool.__annotations__["return"] = annotation
    schema = output_schema(read_signature("tool", tool))
    if schema is not None:
        Draft202012Validator.check_schema(schema)
    return schema


class Plain(enum.Enum):
    A = 1
    B = "b"


Short = Literal["a"]


class Odd(enum.Enum):
    A = (1, 2)


class Bits(enum.Flag):
    A = 1


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045
        (Union[int, str, None], {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}),  # noqa: UP007
        (
            Annotated[int | str, "x"] | None,
            {
                "anyOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}], "description": "x"}, {"type": "null"}],
                "description": "x",
            },
        ),
        (list, {"type": "array", "items": {}}),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (Iterable[int], {"type": "array", "items": {"type": "integer"}}),
        (frozenset[str], {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        (dict, {"type": "object"}),
        (Mapping[str, Any], {"type": "object"}),
        (
            dict[Annotated[str, Pattern("^a")], int],
            {
                "type": "object",
                "propertyNames": {"type": "string", "pattern": "^a"},
                "additionalProperties": {"type": "integer"},
            },
        ),
        (tuple, {"type": "array", "items": {}}),
        (tuple[()], {"type": "array", "items": False, "minItems": 0}),
        (Plain, {"enum": [1, "b"]}),
        (Literal[1, 2], {"type": "integer", "enum": [1, 2]}),
        (Literal["a", True], {"enum": ["a", True]}),
        (Literal[Short, Plain.B], {"type": "string", "enum": ["a", "b"]}),
        (T, {}),
        (Bounded, {"type": "integer"}),
        (object, {}),
        (
            Annotated[float, Range(gt=0, lt=1.5, multiple_of=0.5)],
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1.5, "multipleOf": 0.5},
        ),
        (
            Annotated[int, annotated_types.Interval(ge=1, lt=5)],
            {"type": "integer", "minimum": 1, "exclusiveMaximum": 5},
        ),
        (
            Annotated[list[int], annotated_types.Len(1, 3)],
            {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3},
        ),
        (
            Annotated[dict[str, int], annotated_types.MinLen(1)],
            {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
        ),
        (Annotated[str | None, Length(1)], {"anyOf": [{"type": "string"}, {"type": "null"}], "minLength": 1}),
        (Annotated[str, typing_extensions.Doc("a text")], {"type": "string", "description": "a text"}),
        (Annotated[str, "one", "two"], {"type": "string", "description": "one two"}),
        pytest.param(Annotated[int, object()], {"type": "integer"}, id="metadata"),  # every process names it the same
        (typing_extensions.TypeAliasType("Id", int), {"type": "integer"}),
    ],
    ids=str,
)
def test_an_annotation_has_this_schema(annotation: Any, expected: Any):
    assert schema_of(annotation) == expected


@pytest.mark.parametrize(
    ("annotation", "advice"),
    [
        (complex, "use str, int"),
        (type, "use str, int"),
        (Exception, "use str, int"),
        (Odd, "isn't a JSON scalar"),
        (Bits, "use str, int"),
        (Literal[b"x"], "isn't a JSON scalar"),
        (dict[int, str], "keys of a JSON object are strings"),
        (File | str, "only be joined with None"),
        (list[File] | File, "only be joined with None"),
        (dict[str, File], "a parameter of its own"),
        (tuple[File, int], "a parameter of its own"),
        (Annotated[str, Range(ge=1)], "bound ge=1 can't be checked"),
        (Annotated[int, Length(1)], "bound min_length=1 can't be checked"),
        (Annotated[int, Range(ge=float("inf"))], "can't be checked"),
        (Annotated[int, Range(multiple_of=0)], "can't be checked"),
        (Annotated[bool, Range(ge=0)], "can't be checked"),
        (Annotated[int, annotated_types.Ge("a")], "can't be checked"),
    ],
    ids=str,
)
def test_what_json_cannot_carry_is_refused_with_advice(annotation: Any, advice: str):
    with pytest.raises(SkillDefinitionError, match=advice) as caught:
        schema_of(annotation)
    assert "the parameter 'x' of the tool 'tool'" in caught.value.message


def test_a_file_in_a_record_is_refused_and_the_field_named():
    @dataclass
    class Upload:
        document: File

    with pytest.raises(SkillDefinitionError, match=r"the field Upload\.document .*a parameter of its own"):
        schema_of(Upload)


def test_a_generic_record_is_refused_with_advice():
    @dataclass
    class Box(Generic[T]):
        value: T

    with pytest.raises(SkillDefinitionError, match=r"instead of the generic Box\[\.\.\.\]"):
        schema_of(Box[int])


def test_a_name_that_is_only_there_for_the_type_checker_is_explained():
    def tool(x: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(SkillDefinitionError, match=r"'Missing', which does not exist at run time.*TYPE_CHECKING"):
        read_signature("tool", tool)


def test_two_classes_of_one_name_get_two_definitions():
    def make(kind: type) -> type:
        return dataclasses.make_dataclass("Item", [("value", kind)])

    first, second = make(int), make(str)

    def tool(a: first, b: second, c: first) -> None: ...  # type: ignore[valid-type]

    schema = input_schema(read_signature("tool", tool))
    refs = [schema["properties"][name]["$ref"] for name in "abc"]
    assert refs == ["#/$defs/Item", "#/$defs/Item_2", "#/$defs/Item"]
    assert schema["$defs"]["Item"]["properties"]["value"] == {"type": "integer"}
    assert schema["$defs"]["Item_2"]["properties"]["value"] == {"type": "string"}


class _Alias:
    """What `type Json = list[Json] | int` is in Python 3.12, for tests under Python 3.11."""

    __name__ = "Json"

    @property
    def __value__(self) -> Any:
        return list[self] | int  # type: ignore[valid-type]


def test_a_recursive_alias_refers_to_itself():
    alias = _Alias()

    def tool(x: alias, y: alias) -> None: ...  # type: ignore[valid-type]

    signature = read_signature("tool", tool)
    schema = input_schema(signature)
    definition = {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Json"}}, {"type": "integer"}]}
    assert schema["properties"] == {"x": {"$ref": "#/$defs/Json"}, "y": {"$ref": "#/$defs/Json"}}
    assert schema["$defs"] == {"Json": definition}
    assert coerce_arguments(signature, {"x": [[1], 2], "y": 3}) == {"x": [[1], 2], "y": 3}
    with pytest.raises(CoercionError, match=r"arguments\.x\[0\]\[0\]"):
        coerce_arguments(signature, {"x": [["a"]], "y": 3})


def test_a_typed_dict_of_typing_extensions_is_one():
    class Old(typing_extensions.TypedDict):
        a: int
        b: typing_extensions.NotRequired[typing_extensions.ReadOnly[str]]

    def tool(x: Old) -> None: ...

    definition = input_schema(read_signature("tool", tool))["$defs"]["Old"]
    assert definition["required"] == ["a"]
    assert definition["properties"]["b"] == {"type": "string"}


class Row(TypedDict):
    a: int


@pytest.mark.parametrize(
    "annotation",
    [
        str,
        None,
        Any,
        object,
        bytes,
        File,
        AgentResponse,
        list[File],
        tuple[File, ...],
        str | None,
        dict | None,
        Literal["a"],
        str | AgentResponse,
        enum.StrEnum("E", ["A"]),
        Annotated[str, "x"],
    ],
    ids=str,
)
def test_a_result_that_may_have_no_data_promises_none(annotation: Any):
    assert output_of(annotation) is None


def test_a_response_beside_data_leaves_the_promise_of_the_data():
    assert output_of(Row | AgentResponse) == output_of(Row)
    assert output_of(AgentResponse | list[int] | int) == output_of(list[int] | int)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (dict, {"type": "object"}),
        (dict[int, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (
            list[Row],
            {
                "type": "array",
                "items": {"$ref": "#/$defs/Row"},
                "$defs": {"Row": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}},
            },
        ),
        (Row, {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}),
        (int | float, {"anyOf": [{"type": "integer"}, {"type": "number"}]}),
        (Annotated[int, "a count"], {"type": "integer", "description": "a count"}),
    ],
    ids=str,
)
def test_a_result_with_data_promises_it(annotation: Any, expected: Any):
    assert output_of(annotation) == expected


def test_bytes_inside_of_a_result_are_refused():
    with pytest.raises(SkillDefinitionError, match=r"the result of the tool 'tool' .*AgentResponse\.files"):
        output_of(dict[str, bytes])


def test_a_default_that_has_no_json_is_left_out():
    def tool(a: Any = object(), b: int = None, c: float = float("nan"), d: set[int] = {2, 1}) -> None: ...  # type: ignore[assignment]  # noqa: B006, B008, RUF013

    schema = input_schema(read_signature("tool", tool))
    assert {name: entry.get("default", "none") for name, entry in schema["properties"].items()} == {
        "a": "none", "b": "none", "c": "none", "d": [1, 2],
    }  # fmt: skip
    assert "required" not in schema


def test_a_decorator_that_changes_the_signature_is_believed_and_others_seen_through():
    def inner(client: object, query: str) -> None:
        """Search.

        Args:
            query: what for.
        """

    @functools.wraps(inner)
    def transparent(*args: Any, **kwargs: Any) -> None: ...

    @functools.wraps(inner)
    def changed(query: str) -> None: ...

    changed.__signature__ = inspect.Signature([inspect.Parameter("query", inspect.Parameter.KEYWORD_ONLY)])  # type: ignore[attr-defined]
    changed.__annotations__ = {"query": int}
    assert [entry.name for entry in read_signature("tool", transparent).parameters] == ["client", "query"]
    schema = input_schema(read_signature("tool", changed))
    assert schema["properties"] == {"query": {"type": "integer", "description": "what for."}}
