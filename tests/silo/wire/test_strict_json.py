"""The strict parser gives what `json.loads` gives, whatever the window, and never does much work between two stops."""

import contextlib
import json
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from silo.wire import strict_json
from silo.wire.frames import WireError
from silo.wire.strict_json import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_VALUES,
    WINDOW_BYTES,
    finish,
    steps_to_fields,
    steps_to_json,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=90)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False, allow_infinity=False),
    texts,
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=30), st.dictionaries(texts, inner, max_size=12)),
    max_leaves=40,
)
separators = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r ")])
windows = st.integers(64, 200)

BITS = ["[", "]", "{", "}", ",", ":", '"', "\\", "\\u", "\\ud83d", "\\ude00", "0041", '"a"', "1", "-", ".", "e", "5",
        "true", "null", "NaN", " ", "\n", "é", "\U0001f600", "\x00", "[[", '{"a":', "]]", "0" * 70,
        "x" * 70]  # fmt: skip
nearly_json = st.lists(st.sampled_from(BITS), max_size=120).map("".join)


def outcome(document, window):
    try:
        return finish(steps_to_json(document, window=window))
    except WireError:
        return WireError


@given(values, separators, st.booleans(), windows)
def test_every_window_gives_what_the_standard_parser_gives(value, separators, is_ascii, window):
    document = json.dumps(value, separators=separators, ensure_ascii=is_ascii).encode()
    assert finish(steps_to_json(document, window=window)) == value
    assert finish(steps_to_json(document)) == value


@settings(max_examples=400)
@given(nearly_json, windows)
@example("[1,]" + " " * 80, 64)
@example("[" + "1," * 60 + "]", 64)
@example('{"a":1,' + " " * 80 + "}", 64)
@example("[" + "[1],[2]," * 30 + "3]]", 64)
@example("[" + '{"a":1},' * 30 + "]", 64)
@example('"' + "\\ud83d\\ude00" * 40 + '"', 71)
@example('"' + "x" * 58 + "\\ud83d" + '"', 64)
@example("[" + "1" * 61 + "e5]", 64)
@example("1" * 63 + "2", 64)
def test_what_is_nearly_json_has_one_meaning_in_every_window_and_that_of_the_standard_parser(document, window):
    payload = document.encode()
    whole = outcome(payload, 1 << 20)
    windowed = outcome(payload, window)
    # Only a number that no window holds may be refused in a smaller one.
    assert windowed == whole or (windowed is WireError and any(len(run) > 40 for run in numbers(document)))
    if whole is not WireError:
        assert json.loads(payload) == whole


def numbers(document):
    return "".join(c if c in "0123456789.-e" else " " for c in document).split()


@given(st.binary(max_size=600), windows)
def test_arbitrary_bytes_are_a_value_or_a_wire_error(payload, window):
    with contextlib.suppress(WireError):
        finish(steps_to_json(payload, window=window))


@settings(max_examples=50)
@given(st.dictionaries(texts, st.one_of(scalars, st.lists(scalars, max_size=30)), max_size=6), separators, windows)
def test_each_field_has_its_size_in_bytes(fields, separators, window):
    document = json.dumps(fields, separators=separators, ensure_ascii=False).encode()
    value, sizes = finish(steps_to_fields(document, window=window))
    assert value == fields
    assert sizes == {
        name: len(json.dumps(part, separators=separators, ensure_ascii=False).encode()) for name, part in fields.items()
    }


def test_the_same_key_is_refused_wherever_the_two_are():
    far = ",".join(f'"k{n}":0' for n in range(10_000))
    for document in ('{"a":1,"a":2}', '[{"a":1,"a":2}]', f'{{"a":1,{far},"a":2}}', f'[{{"k7":1,{far}}}]'):
        assert outcome(document.encode(), WINDOW_BYTES) is WireError
    assert len(outcome(f"{{{far}}}".encode(), WINDOW_BYTES)) == 10_000


def test_depth_and_number_of_values_are_bounded_at_every_size():
    for padding in (0, 10, 3 * WINDOW_BYTES):
        for depth, is_allowed in ((MAX_DEPTH, True), (MAX_DEPTH + 1, False)):
            document = b"[" * (depth - 1) + b'["' + b"x" * padding + b'"]' + b"]" * (depth - 1)
            assert (outcome(document, WINDOW_BYTES) is not WireError) is is_allowed
    for count, is_allowed in ((MAX_VALUES - 1, True), (MAX_VALUES, False)):
        for unit in (b"0", b'"x"'):
            document = b"[" + b",".join([unit] * count) + b"]"
            assert (outcome(document, WINDOW_BYTES) is not WireError) is is_allowed
        document = b"{" + b",".join(b'"%d":0' % number for number in range(count)) + b"}"
        assert (outcome(document, WINDOW_BYTES) is not WireError) is is_allowed

    for count, is_allowed in ((MAX_CONTAINERS - 1, True), (MAX_CONTAINERS, False)):
        for unit in (b"[]", b"{}", b"[ ]"):
            document = b"[" + b",".join([unit] * count) + b"]"
            assert (outcome(document, WINDOW_BYTES) is not WireError) is is_allowed


LONG = 1 << 20


@pytest.mark.parametrize(
    ("first", "unit", "last"),
    [
        (b"[", b"[],", b"0]"), (b"[", b"{},", b"0]"), (b"[", b'"",', b"0]"), (b"[", b"1 ,", b"0]"), (b"", b"[", b""),
        (b"", b'{"a":', b""), (b"[", b"[" * 60 + b"0" + b"]" * 60 + b",", b"0]"), (b'"', rb"\u0041", b'"'),
        (b'"', rb"\n", b'"'), (b'"', rb"\"", b'"'), (b'"', rb"\ud83d", b'"'), (b'"', rb"\ud83d\ude00", b'"'),
        (b'"', "\U0001f600".encode(), b'"'), (b"", b" ", b"0"), (b"", b"1", b""), (b"[", b"9" * 4300 + b",", b"0]"),
        (b"[", b"9" * 5000 + b",", b"0]"), (b"[", b"[" + b"0," * 20_000 + b"0],", b"0]"), (b"", b"\xff", b""),
        (b"[", b'"' + b"x" * 40_000 + b'",', b"0]"), (b"[", b'"a', b""), (b"{", b'"a":0,', b'"b":0}'),
        (b"[", b'{"a":[{"b":[[[', b""), (b"[", b"tru", b""), (b"[", b"-", b""), (b"[", b"0.1e-1,", b"0]"),
    ],
)  # fmt: skip
def test_no_step_parses_more_than_some_windows(monkeypatch, first, unit, last):
    """Counts the bytes that the parser in C was given in each step, so it doesn't depend on the machine's speed."""
    given_bytes, most = 0, 0
    inner = json.JSONDecoder.raw_decode

    def counted(self, text, idx=0):
        nonlocal given_bytes
        try:
            value, end = inner(self, text, idx)
        except (ValueError, RecursionError):
            given_bytes += len(text) - idx
            raise
        given_bytes += end - idx
        return value, end

    monkeypatch.setattr(strict_json.json.JSONDecoder, "raw_decode", counted)
    document = first + unit * ((LONG - len(first) - len(last)) // len(unit)) + last
    steps = steps_to_json(document)
    count = 0
    with contextlib.suppress(WireError, StopIteration):
        while True:
            given_bytes = 0
            try:
                next(steps)
            finally:
                most = max(most, given_bytes)
            count += 1
    assert most <= 6 * WINDOW_BYTES
    assert count <= 4 * LONG // WINDOW_BYTES + 2 * MAX_DEPTH


@pytest.mark.parametrize(
    "document",
    [b"[" * 60 + b"[]," * 2700 + b"!", b"[" * 8192, b'{"a":' * 1600, b"[" * 60 + b'"' + b"\\u0041" * 1300,
     b"[" * 60 + b"1," * 4000, b'{"a":[' * 30 + b"{}," * 2600 + b'{"a":1,"a":1}', b"[[[" + b"[]," * 2700 + b"]]]"],
)  # fmt: skip
def test_a_short_document_is_parsed_about_once_whatever_is_wrong_with_it(monkeypatch, document):
    """Short messages are parsed on the event loop. One fault behind sixty brackets cost a pass for each of them."""
    given_bytes = 0
    inner = json.JSONDecoder.raw_decode

    def counted(self, text, idx=0):
        nonlocal given_bytes
        given_bytes += len(text) - idx
        return inner(self, text, idx)

    monkeypatch.setattr(strict_json.json.JSONDecoder, "raw_decode", counted)
    with pytest.raises(WireError):
        finish(steps_to_json(document))
    with pytest.raises(WireError):
        finish(steps_to_fields(b'{"type":"progress","progress":' + document))
    assert given_bytes <= 2 * 3 * len(document)


def test_a_deep_document_does_not_depend_on_the_recursion_limit():
    before = sys.getrecursionlimit()
    try:
        for limit in (400, 4000):
            sys.setrecursionlimit(limit)
            assert outcome(b"[" * 50_000, WINDOW_BYTES) is WireError
            assert outcome(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, WINDOW_BYTES) is not WireError
    finally:
        sys.setrecursionlimit(before)
