import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from silo import File, Length, Pattern, Range
from silo.sdk.coerce import CoercionError, coerce_arguments
from silo.sdk.schema import input_schema
from silo.sdk.signature import Signature, read_signature


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: float
    y: float = 0.0


class Row(TypedDict, total=False):
    when: date
    who: str


@dataclass(frozen=True)
class Item:
    name: str
    price: Decimal
    amount: Annotated[int, Range(ge=1)] = 1


@dataclass
class Strict:
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


@dataclass
class Tree:
    children: "list[Tree]"
    label: str | None = None


def signature_of(annotation: Any) -> Signature:
    def tool(x): ...

    tool.__annotations__["x"] = annotation
    return read_signature("tool", tool)


def coerce(annotation: Any, value: Any) -> Any:
    return coerce_arguments(signature_of(annotation), {"x": value})["x"]


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, 1.0, 1),
        (float, 1, 1.0),
        (bool, True, True),
        (None, None, None),
        (Any, {"a": [1]}, {"a": [1]}),
        (set[int], [1, 2], {1, 2}),
        (frozenset[str], ["a"], frozenset({"a"})),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[str, Point], ["a", {"x": 1}], ("a", Point(1.0))),
        (list[Item], [{"name": "a", "price": "0.10"}], [Item("a", Decimal("0.10"))]),
        (Row, {"when": "2024-02-29"}, {"when": date(2024, 2, 29)}),
        (datetime, "2024-02-29T12:00:00Z", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        (time, "12:30", time(12, 30)),
        (UUID, "12345678-1234-5678-1234-567812345678", UUID("12345678-1234-5678-1234-567812345678")),
        (Path, "a/b", Path("a/b")),
        (Colour, "red", Colour.RED),
        (Level, 1.0, Level.LOW),
        (dict[Colour, int], {"red": 1}, {Colour.RED: 1}),
        (Literal["a", 1, True] | None, None, None),
        (Tree, {"children": [{"children": [], "label": "x"}]}, Tree([Tree([], "x")])),
        (date | str, "2024-02-29", date(2024, 2, 29)),
        (date | str, "tomorrow", "tomorrow"),
        (str | None, None, None),
        (float | int, 1, 1),
        (int | float, 1.5, 1.5),
        (list[int] | dict[str, int], {"a": 1}, {"a": 1}),
    ],
    ids=str,
)  # fmt: skip
def test_a_json_value_becomes_what_the_annotation_says(annotation: Any, value: Any, expected: Any):
    found = coerce(annotation, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (int, "1", "arguments.x must be an integer, not a string"),
        (int, True, "arguments.x must be an integer, not true or false"),
        (int, 1.5, "arguments.x must be an integer, not a number"),
        (bool, 1, "arguments.x must be true or false, not an integer"),
        (float, 10**400, "arguments.x is a number too large for a float"),
        (str, None, "arguments.x must be a string, not null"),
        (list[Item], [{"name": "a", "price": "1"}, {"name": "b", "price": 2.5}],
            "arguments.x[1].price must be a string, not a number"),
        (list[Item], [{"name": "a"}], "arguments.x[0].price is missing"),
        (Item, {"name": "a", "price": "1", "prize": "2"},
            "arguments.x.prize is unknown; arguments.x may have 'amount', 'name', 'price'"),
        (Item, {"name": "a", "price": "1", "amount": 0}, "arguments.x.amount must be at least 1"),
        (Item, {"name": "a", "price": "cheap"},
            "arguments.x.price must be a string of the format 'decimal', not 'cheap'"),
        (Strict, {"low": 2, "high": 1}, "arguments.x isn't a valid Strict: low is above high"),
        (tuple[int, str], [1], "arguments.x must have exactly 2 items, not 1"),
        (dict[str, int], {"a b": "1"}, "arguments.x['a b'] must be an integer, not a string"),
        (dict[Colour, int], {"blue": 1}, "the key 'blue' of arguments.x must be one of 'red', not 'blue'"),
        (set[list[int]], [[1]], "arguments.x can't become a set: unhashable type: 'list'"),
        (date, "29.2.2024", "arguments.x must be a string of the format 'date', not '29.2.2024'"),
        (Decimal, "NaN", "arguments.x must be a string of the format 'decimal', not 'NaN'"),
        (Literal[1], True, "arguments.x must be one of 1, not True"),
        (File, "a.txt", "arguments.x must be a file, not a string"),
        (File, {"$file": 0}, "arguments.x must be a file, not an object"),
        (bytes, None, "arguments.x must be a file, not null"),
        (str, File(b"x"), "arguments.x must be a string, not a file"),
        (Item | None, {"name": 1, "price": "1"}, "arguments.x.name must be a string, not an integer"),
        (int | date, "x",
            ("arguments.x fits no option: must be an integer, not a string; "
             "must be a string of the format 'date', not 'x'")),
        (Annotated[str, Pattern("^a")], "b", "arguments.x must match '^a'"),
        (Annotated[list[int], Length(max_length=1)], [1, 2], "arguments.x must have at most 1 items"),
    ],
    ids=str,
)  # fmt: skip
def test_an_error_names_the_place_and_what_was_expected(annotation: Any, value: Any, message: str):
    with pytest.raises(CoercionError) as caught:
        coerce(annotation, value)
    assert str(caught.value) == message


def test_files_arrive_as_files_or_bytes():
    files = (File(b"a", name="a"), File(b"b", name="b"))
    assert coerce(File, files[1]) is files[1]
    assert coerce(bytes, files[0]) == b"a"
    assert coerce(list[File], [files[1], files[0]]) == [files[1], files[0]]
    assert coerce(File | None, None) is None


def test_a_file_mark_is_plain_data_where_no_file_is_wanted():
    assert coerce(dict, {"$file": 0}) == {"$file": 0}


def test_unknown_and_missing_arguments_are_named():
    signature = signature_of(int)
    with pytest.raises(CoercionError, match=r"^arguments\.y is unknown; arguments may have 'x'$"):
        coerce_arguments(signature, {"x": 1, "y": 2})
    with pytest.raises(CoercionError, match=r"^arguments\.x is missing$"):
        coerce_arguments(signature, {})


def test_a_parameter_that_was_not_given_keeps_its_default():
    def tool(a: int, b: int = 2) -> None: ...

    assert coerce_arguments(read_signature("tool", tool), {"a": 1}) == {"a": 1}


ANNOTATIONS: list[Any] = [
    int, float, bool, str, None, Any, list, dict, tuple, list[float], set[int], dict[str, bool], dict[Colour, int],
    tuple[int, str], tuple[()], Literal["a", 1, True] | None, Colour, Level, Point, Row, Item, Strict, Tree, date,
    datetime,
    UUID, Decimal, Path, str | None, int | str | None, float | bool, date | int | list[str], list[Item] | Item,
    Annotated[int, Range(ge=0, lt=10, multiple_of=2)], Annotated[float, Range(multiple_of=0.1)],
    Annotated[list[int] | str, Length(1, 3)], Annotated[str, Pattern("^[a-z]*$")],
]  # fmt: skip

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-20, 20) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "red", "2024-02-29", "1.5", "NaN", "12345678-1234-5678-1234-567812345678"])
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["name", "price", "x", "y", "low", "high", "children", "when", "red", "a"]), inner, max_size=4
    ),
    max_leaves=8,
)  # fmt: skip


def refusal_of(signature: Signature, value: Any) -> str | None:
    try:
        coerce_arguments(signature, {"x": value})
    except CoercionError as error:
        return str(error)
    return None


SIGNATURES = [signature_of(annotation) for annotation in ANNOTATIONS]
VALIDATORS = [Draft202012Validator(input_schema(signature)) for signature in SIGNATURES]


@settings(deadline=None)
@given(st.integers(0, len(ANNOTATIONS) - 1), json_values)
def test_whatever_json_comes_is_converted_or_refused_and_the_schema_knows_which(index: int, value: Any):
    """What the schema refuses is refused; what it accepts only fails by format, hashability or a class's own check."""
    valid = VALIDATORS[index].is_valid({"x": value})
    refusal = refusal_of(SIGNATURES[index], value)
    if refusal is None:
        # Sets are the one place where the schema is stricter: doubles are dropped here.
        assert valid or ANNOTATIONS[index] == set[int]
    else:
        assert not valid or any(text in refusal for text in ("format", "too large", "can't become", "is no "))


@pytest.mark.parametrize(
    ("annotation", "signature"), list(zip(ANNOTATIONS, SIGNATURES, strict=True)), ids=map(str, ANNOTATIONS)
)
def test_each_annotation_of_the_property_takes_some_value(annotation: Any, signature: Signature):
    samples: list[Any] = [
        1, 1.5, True, "a", None, [], {}, [1], {"red": 1}, [1, "a"], "red", {"x": 1}, {"name": "a", "price": "1"},
        {"low": 1, "high": 2}, {"children": []}, "2024-02-29", "12345678-1234-5678-1234-567812345678", 0, "1.50",
    ]  # fmt: skip

    assert any(refusal_of(signature, value) is None for value in samples)
