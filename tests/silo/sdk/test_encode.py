import collections
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo import AgentResponse, File
from silo.sdk.encode import MAX_CONTAINERS, MAX_VALUES, Outcome, outcome_of
from silo.sdk.errors import InvokeFailed
from silo.wire.frames import HEADER_BYTES
from silo.wire.messages import MAX_TEXT_CHARS, FileHead, Finished, decode_message, encode_message


class Point(NamedTuple):
    x: int
    y: float


@dataclass
class Item:
    name: str
    where: Point


class Level(enum.IntEnum):
    LOW = 1


class Colour(enum.Enum):
    RED = "red"


class Mood(enum.StrEnum):
    GOOD = "good"


class Plain(str):
    def __str__(self) -> str:
        return "something else"


def through_the_wire(outcome: Outcome) -> Finished:
    heads = tuple(FileHead(file.name, file.media_type, file.size) for file in outcome.files)
    frame = encode_message(Finished(outcome.text, outcome.data, outcome.has_data, heads, outcome.is_error))
    message = decode_message(frame[HEADER_BYTES:])
    assert isinstance(message, Finished)
    return message


@pytest.mark.parametrize(
    ("returned", "data", "text"),
    [
        (1, 1, "1"),
        (True, True, "true"),
        (1.5, 1.5, "1.5"),
        (Fraction(1, 2), 0.5, "0.5"),
        ({"ä": [1, None]}, {"ä": [1, None]}, '{"ä":[1,null]}'),
        ([], [], "[]"),
        ((1, "a"), [1, "a"], '[1,"a"]'),
        (range(2), [0, 1], "[0,1]"),
        (collections.deque([1]), [1], "[1]"),
        (MappingProxyType({1: 2}), {"1": 2}, '{"1":2}'),
        ({3, 1, 2}, [1, 2, 3], "[1,2,3]"),
        pytest.param(frozenset({"b", "a"}), ["a", "b"], '["a","b"]', id="frozenset"),
        (Point(1, 2.0), {"x": 1, "y": 2.0}, '{"x":1,"y":2.0}'),
        (Item("a", Point(1, 2.0)), {"name": "a", "where": {"x": 1, "y": 2.0}}, '{"name":"a","where":{"x":1,"y":2.0}}'),
        (Level.LOW, 1, "1"),
        (Colour.RED, "red", '"red"'),
        ({Colour.RED: Mood.GOOD}, {"red": "good"}, '{"red":"good"}'),
        (date(2024, 2, 29), "2024-02-29", '"2024-02-29"'),
        ([datetime(2024, 2, 29, tzinfo=UTC), time(1, 2)], ["2024-02-29T00:00:00+00:00", "01:02:00"],
            '["2024-02-29T00:00:00+00:00","01:02:00"]'),
        (Decimal("0.10"), "0.10", '"0.10"'),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001", '"00000000-0000-0000-0000-000000000001"'),
        (PurePosixPath("a/b"), "a/b", '"a/b"'),
        ([Plain("kept")], ["kept"], '["kept"]'),
    ],
    ids=str,
)  # fmt: skip
def test_values_become_data_and_compact_text(returned: object, data: object, text: str):
    outcome = outcome_of(returned)
    assert outcome == Outcome(text, data, has_data=True, files=(), is_error=False)
    assert through_the_wire(outcome).data == data


@pytest.mark.parametrize(
    ("returned", "text"), [("hé\n", "hé\n"), ("", ""), (None, ""), (Mood.GOOD, "good"), (Plain("kept"), "kept")]
)
def test_text_is_only_text(returned: object, text: str):
    outcome = outcome_of(returned)
    assert (outcome.text, outcome.has_data, outcome.data) == (text, False, None)
    assert type(outcome.text) is str


def test_files_alone_and_in_a_list_are_files():
    png = File(b"\x89PNG", "image/png", "a.png")
    assert outcome_of(png).files == (png,)
    assert outcome_of([png, png]).files == (png, png)
    assert outcome_of(b"xy").files == (File(b"xy", name="file-1.bin"),)
    assert outcome_of((b"x", File(b"", "text/csv"))).files == (
        File(b"x", name="file-1.bin"),
        File(b"", "text/csv", "file-2.csv"),
    )


def test_a_response_is_what_it_says():
    file = File(b"x", "text/plain", "x.txt")
    outcome = outcome_of(AgentResponse("Two rows.", raw_data=[{"day": date(2024, 2, 29)}], files=[file]))
    assert outcome == Outcome("Two rows.", [{"day": "2024-02-29"}], True, (file,), False)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (AgentResponse("Sorry.", status="error", error_message="no such row"), "Sorry.\nno such row"),
        (AgentResponse(status="error", error_message="no such row"), "no such row"),
        (AgentResponse("no such row!", status="error", error_message="no such row"), "no such row!"),
        (AgentResponse(raw_data={"a": 1}, status="error"), '{"a":1}'),
    ],
    ids=str,
)
def test_a_reported_failure_says_why(response: AgentResponse, text: str):
    outcome = outcome_of(response)
    assert outcome.is_error
    assert outcome.text == text


def cycle() -> object:
    ring: list[object] = [1]
    ring.append({"back": ring})
    return ring


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (float("nan"), "result is nan, which JSON can't hold; return None"),
        ({"rows": [{"at": 1.0}, {"at": math.inf}]}, "result.rows[1].at is inf, which JSON can't hold"),
        ({"a b": {"c": Decimal("NaN")}}, "result['a b'].c is NaN"),
        ({"a": b"x"}, "result.a is a bytes, which JSON can't hold; return a File alone"),
        ({"a": File(b"x")}, "result.a is a silo.sdk.files.File, which JSON can't hold; return a File alone"),
        ([File(b"x"), 1], "result[0] is a silo.sdk.files.File"),
        ([AgentResponse("x")], "result[0] is an AgentResponse inside of another value"),
        (object(), "result is an object, which JSON can't hold; return plain values"),
        (iter([1]), "write list(...) around it"),
        (timedelta(1), "result is a datetime.timedelta"),
        (SimpleNamespace(to_dict=dict), "call its to_dict()"),
        (Item, "result is a type"),
        ({(1, 2): 1}, "result has the key (1, 2); the keys of a JSON object are strings"),
        ({None: 1}, "result has the key None"),
        ({"a": {1, b"x"}}, "result.a['...'] is a bytes"),
        ({1: 1, "1": 2}, "result has two keys that are '1' in JSON"),
        (["ok", "\ud800"], "result[1] has a lone surrogate"),
        ({"\udfff": 1}, "result has the key '\\udfff', a lone surrogate"),
        ("\ud800", "result has a lone surrogate"),
        (cycle(), "result[1].back contains itself"),
        (nested(33), "nests deeper than 32"),
        (10**2000, "result is an integer of 6644 bits; return it as text"),
        (AgentResponse("x", raw_data={"a": object()}), "result.raw_data.a is an object"),
        (AgentResponse("\ud800"), "result.llm_text has a lone surrogate"),
        (AgentResponse("x", files=["a"]), "result.files[0] is a str, not a File"),  # type: ignore[list-item]
        ([File(b"")] * 33, "result has 33 files, allowed are 32"),
        (File(b"", name="../x"), "result has the name '../x'; take a bare file name"),
        ([File(b"", name=".bashrc")], "result[0] has the name '.bashrc'"),
        (File(b"", name="\ud800"), "take a bare file name"),
        (File(b"", "text"), "result has the media type 'text'; write it as 'type/subtype'"),
        (File(b"", "text/html; charset=x"), "write it as 'type/subtype'"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_what_json_cannot_hold_is_refused_with_its_place(returned: object, message: str):
    with pytest.raises(InvokeFailed) as caught:
        outcome_of(returned)
    assert caught.value.code == "result-invalid"
    assert message in caught.value.message


def test_the_deepest_allowed_result_passes_the_wire():
    assert through_the_wire(outcome_of(nested(32))).data == nested(32)


def test_the_same_object_twice_is_no_cycle():
    shared = [1]
    assert outcome_of({"a": shared, "b": shared}).data == {"a": [1], "b": [1]}


def test_a_text_that_no_message_can_carry_is_too_large():
    with pytest.raises(InvokeFailed, match="return a File instead") as caught:
        outcome_of("x" * (MAX_TEXT_CHARS + 1))
    assert caught.value.code == "result-too-large"


def test_a_text_of_escapes_is_measured_as_it_travels():
    with pytest.raises(InvokeFailed) as caught:
        outcome_of("\x00" * (MAX_TEXT_CHARS // 2))
    assert caught.value.code == "result-too-large"


def test_data_and_the_text_that_shows_it_are_measured_together():
    with pytest.raises(InvokeFailed) as caught:
        outcome_of(["ä" * 2_200_000])
    assert caught.value.code == "result-too-large"


def test_the_longest_text_passes_the_wire():
    assert len(through_the_wire(outcome_of("x" * MAX_TEXT_CHARS)).text) == MAX_TEXT_CHARS


class Unfolding(Sequence[Any]):
    """A few bytes that claim to be more values than fit into memory."""

    def __init__(self) -> None:
        self.asked = 0

    def __len__(self) -> int:
        return 10**12

    def __getitem__(self, index: Any) -> Any:
        self.asked += 1
        return self if index else 1


def test_a_value_that_unfolds_without_end_is_stopped():
    level: list[object] = [1] * 1000
    for _ in range(10):
        level = [level] * 10
    with pytest.raises(InvokeFailed, match=f"beyond the {MAX_VALUES} values"):
        outcome_of(level)


def test_more_lists_and_objects_than_the_wire_takes_are_refused_with_advice():
    rows = [{} for _ in range(MAX_CONTAINERS - 1)]
    assert through_the_wire(outcome_of(rows)).data == rows
    with pytest.raises(InvokeFailed, match=f"beyond the {MAX_CONTAINERS} lists and objects .* return a File"):
        outcome_of([*rows, []])


def test_as_many_values_as_a_result_may_have_pass_the_wire():
    numbers = [1] * (MAX_VALUES - 1)
    assert through_the_wire(outcome_of(numbers)).data == numbers


def test_an_object_that_claims_to_be_endless_is_stopped():
    endless = Unfolding()
    with pytest.raises(InvokeFailed, match="contains itself"):
        outcome_of(endless)
    assert endless.asked < 10


python_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.characters()
    | st.binary(max_size=3)
    | st.dates() | st.datetimes() | st.times() | st.decimals() | st.uuids()
    | st.sampled_from([Level.LOW, Colour.RED, Mood.GOOD])
    | st.builds(Point, st.integers(), st.floats())
    | st.builds(File, st.binary(max_size=3), st.text(max_size=12), st.text(max_size=5)),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner)
    | st.sets(st.integers() | st.text(max_size=3), max_size=3)
    | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=4)
    | st.builds(Item, st.text(), inner),
    max_leaves=12,
)  # fmt: skip
responses = st.builds(
    AgentResponse,
    st.text(max_size=9),
    python_values,
    files=st.lists(st.builds(File, st.binary(max_size=3)), max_size=3),
)


@settings(deadline=None)
@given(python_values | responses)
def test_whatever_is_returned_passes_the_wire_or_is_refused(returned: object):
    try:
        outcome = outcome_of(returned)
    except InvokeFailed as failure:
        assert failure.code == "result-invalid"  # noqa: PT017 - either end is right
        return
    message = through_the_wire(outcome)
    assert (message.text, message.data, message.has_data) == (outcome.text, outcome.data, outcome.has_data)
