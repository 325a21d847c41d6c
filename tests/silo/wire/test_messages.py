"""Messages: decoding returns what was encoded, and hostile input only raises a `WireError`.

Most of what is wrong here is generated from the table of all messages, `silo.wire.messages.MESSAGES`.
"""

import contextlib
import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from silo.testing.hostile import wrong_messages
from silo.wire.frames import FrameDecoder, WireError
from silo.wire.messages import (
    FAILURE_CODES,
    MAX_FAILURE_CHARS,
    MAX_FILES,
    MAX_TRACEBACK_CHARS,
    MESSAGES,
    Booted,
    Described,
    Exited,
    Failed,
    FileHead,
    Finished,
    Held,
    Hold,
    Progress,
    Rehearse,
    Rehearsed,
    Resume,
    Run,
    Sender,
    check,
    decode_message,
    decode_trusted,
    encode_message,
    steps_to_message,
)
from silo.wire.rules import is_media_type, is_safe_name
from silo.wire.strict_json import MAX_DEPTH, finish

GOLDEN = Path(__file__).parent / "golden"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
integers = st.integers(-(2**63) + 1, 2**63 - 1)
numbers = st.one_of(integers, st.floats(-1e300, 1e300))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), integers, st.floats(allow_nan=False, allow_infinity=False), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=20,
)
heads = st.builds(
    FileHead,
    st.text(min_size=1, max_size=40).filter(is_safe_name),
    st.sampled_from(["text/plain", "application/vnd.x+json", "image/png"]),
    st.integers(0, 2**40),
)
file_lists = st.lists(heads, max_size=4).map(tuple)
printable = texts.filter(str.isprintable)
hexes = st.text("0123456789abcdef", min_size=1, max_size=64)
seconds = st.one_of(st.integers(0, 10**9), st.floats(0, 1e9))

messages = st.one_of(
    st.builds(Hold),
    st.builds(Held, st.integers(0, 2**63 - 1)),
    st.builds(Resume, st.text("0123456789abcdef", min_size=128, max_size=128), st.integers(0, 2**63 - 1),
              printable.filter(bool)),
    st.builds(Booted, printable, printable.map(lambda text: text[:32])),
    st.builds(Exited, st.integers(-255, 255), st.integers(0, 2**31 - 1)),
    st.builds(Described, st.dictionaries(texts, values, max_size=4), seconds, seconds),
    st.builds(Rehearse, st.integers(0, 2**30)),
    st.builds(Rehearsed),
    st.builds(Run, printable.filter(bool), st.integers(0, 2**30), hexes, file_lists),
    st.builds(Progress, numbers, st.none() | numbers, st.none() | texts),
    st.builds(Finished, texts, values, st.booleans(), file_lists, st.booleans()),
    st.builds(Failed, st.sampled_from(sorted(FAILURE_CODES)), texts, texts),
)  # fmt: skip


def payload_of(message):
    ((_, payload),) = FrameDecoder().feed(encode_message(message))
    return payload


@given(messages)
def test_what_is_encoded_is_decoded_the_same_by_both_sides(message):
    assert decode_message(payload_of(message)) == message
    assert decode_trusted(payload_of(message)) == message
    check(message)


@given(st.binary(max_size=400))
@example(b'{"type":[]}')
@example(b'{"type":{}}')
@example(b'{"type":["finished"]}')
@example(b'{"type":"progress","progress":1' + b"0" * 400 + b"}")
@example(b'{"type":"progress","progress":1,"total":1' + b"0" * 4400 + b"}")
@example(b'{"type":"progress","progress":1e999}')
@example(b'{"type":"exited","status":1e5,"oom_kills":0}')
@example(b"[" * 100_000)
@example(b'{"a":' * 5000)
@example(b'"' + b"[" * 100 + b'"')
@example(b"null")
@example(b"")
@example(b"\xff\xfe")
@example(b"\xed\xa0\x80")
def test_arbitrary_bytes_are_a_message_or_a_wire_error(data):
    with contextlib.suppress(WireError):
        decode_message(data)


@given(messages, st.data())
def test_a_message_with_any_value_exchanged_is_a_message_or_a_wire_error(message, data):
    body = json.loads(payload_of(message))
    key = data.draw(st.sampled_from(sorted(body)))
    body[key] = data.draw(values)
    try:
        decoded = decode_message(json.dumps(body, ensure_ascii=False).encode())
    except WireError:
        return
    # A decoded message can be encoded again: it has no value of a type that the rest of silo does not expect.
    assert decode_message(payload_of(decoded)) == decoded


@given(messages, st.integers(0, 10_000), st.integers(0, 255))
def test_a_message_with_any_byte_changed_is_a_message_or_a_wire_error(message, place, byte):
    data = bytearray(payload_of(message))
    data[place % len(data)] = byte
    with contextlib.suppress(WireError):
        decode_message(bytes(data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"type":"finished","text":"a","text":"b"}', "same key twice"),
        (b'{"type":"finished","text":"\\ud800"}', "surrogate"),
        (b'{"type":"finished","text":"","data":{"\\udfff":1},"has_data":true}', "surrogate"),
        (b'{"type":"finished","text":"","data":NaN}', "not JSON"),
        (b'{"type":"finished","text":"","data":-Infinity}', "not JSON"),
        (b'{"type":"finished","text":"","data":1e400}', "too large"),
        (b'{"type":"finished"}', "a finished message lacks the field 'text'"),
        (b'{"type":"finished","text":""} {}', "not JSON"),
        (b'{"type":"finished","text":"","more":1}', "a finished message has an unknown field"),
        (b'{"type":"finished","text":1}', "'text' of 'finished' must be a string of at most 4,194,304 .*, not 1"),
        (b'{"type":"finished","text":"","is_error":1}', "must be true or false, not 1"),
        (b'{"type":"finished","text":"","files":{}}', "must be a list of at most 32 files"),
        (b'{"type":"failed","code":"denied","message":""}', "must be one of arguments-invalid, .*, not a string of 6"),
        (b'{"type":"failed","code":"skill-exited","message":null}', "string of at most 4,000 characters, not null"),
        (b'{"type":"failed","code":"skill-exited","message":["a"]}', "string of at most 4,000 .*, not a list of 1"),
        (b'{"type":"exited","status":true,"oom_kills":0}', "must be an integer from -255 to 255, not true"),
        (b'{"type":"described","skill":[],"import_s":0,"warmup_s":0}', "must be an object, not a list of 0"),
        (b'{"type":"progress","progress":"1"}', "must be a number"),
        (b'{"type":"progress","progress":1,"message":{}}', "must be a string of .* characters, or null, not an object"),
        (b'{"type":"progress","progress":1' + b"0" * 400 + b"}", "not a number with 401 characters"),
        (b'{"type":"nonsense"}', "the field 'type' must be one of booted, described,"),
        (b'{"type":"rehearsed",' + b",".join(b'"%d":0' % n for n in range(40)) + b"}", "more than 32 fields"),
        (b'{"type":null}', "the field 'type' must be one of"),
        (b'["finished"]', "JSON object"),
        (b"\xff", "UTF-8"),
    ],
)  # fmt: skip
def test_what_a_guest_may_not_say_is_refused_for_the_right_reason(data, reason):
    with pytest.raises(WireError, match=reason):
        decode_message(data)


def test_the_table_has_every_message_and_every_field():
    assert {kind.TYPE for kind in MESSAGES} == {kind.TYPE for kind in SAMPLE_OF}
    for kind, form in MESSAGES.items():
        assert list(form.rules) == [one.name for one in fields(kind)], kind


@pytest.mark.parametrize("name", [kind.TYPE for kind in MESSAGES])
def test_each_field_of_each_message_is_refused_with_each_wrong_value(name):
    """The past fault: `failed.message` was checked by nobody, and a number in it became an AttributeError later."""
    kind = next(kind for kind in MESSAGES if name == kind.TYPE)
    count = 0
    for what, payload in wrong_messages(kind, body_of(SAMPLE_OF[kind])):
        try:
            got = decode_message(payload)
        except WireError:
            count += 1
        else:
            pytest.fail(f"{name} with {what} was read as {got!r:.200}")
    assert count >= 20 + 20 * len(MESSAGES[kind].rules)


@pytest.mark.parametrize("name", [kind.TYPE for kind in MESSAGES])
def test_each_message_is_refused_from_everybody_but_its_sender(name):
    kind = next(kind for kind in MESSAGES if name == kind.TYPE)
    for sender in Sender:
        steps = steps_to_message(payload_of(SAMPLE_OF[kind]), sender)
        if sender is MESSAGES[kind].sender:
            assert finish(steps).message == SAMPLE_OF[kind]
        else:
            with pytest.raises(WireError, match=f"a {name} message comes from the"):
                finish(steps)


@pytest.mark.parametrize("name", [kind.TYPE for kind in MESSAGES])
def test_a_message_may_be_as_long_as_the_table_says_and_no_longer(name):
    kind = next(kind for kind in MESSAGES if name == kind.TYPE)
    payload = payload_of(SAMPLE_OF[kind])
    assert decode_message(payload.ljust(MESSAGES[kind].longest)) == SAMPLE_OF[kind]
    with pytest.raises(WireError, match="bytes, not"):
        decode_message(payload.ljust(MESSAGES[kind].longest + 1))


def test_the_longest_texts_fit_whatever_their_characters():
    for character in ("x", "\x00", "\U0001f600"):
        for message in (
            Progress(1, 2, character * 1000),
            Failed("skill-exception", character * MAX_FAILURE_CHARS, character * MAX_TRACEBACK_CHARS),
        ):
            assert decode_message(payload_of(message)) == message


def test_what_the_host_sends_is_checked_by_the_same_table():
    check(Rehearse(0))
    for message in (Rehearse(-1), Resume("00", 0, "host"), Run("t", 1, "xyz"), Run("", 1, "00")):
        with pytest.raises(WireError, match="must be"):
            check(message)


def test_no_error_quotes_what_a_field_holds():
    """The field may hold a secret, and errors of the protocol are made before anything is redacted."""
    for kind in MESSAGES:
        for what, payload in wrong_messages(kind, body_of(SAMPLE_OF[kind])):
            if len(payload) > 100_000:
                continue
            with pytest.raises(WireError) as caught:
                decode_message(payload.replace(b'"x"', b'"hunter2-hunter2"'))
            assert "hunter2" not in str(caught.value), what
            assert len(str(caught.value)) < 600


def test_sizes_are_those_of_texts_in_utf_8_and_of_data_in_json():
    payload = payload_of(Finished("é\n" * 100_000, {"a": ["é", 1]}, has_data=True))
    received = finish(steps_to_message(payload))
    assert received.sizes["text"] == 300_000
    assert received.sizes["data"] == len('{"a":["é",1]}'.encode())


def test_nesting_has_a_limit_that_brackets_in_strings_do_not_count_for():
    def nested(depth):
        return b'{"type":"finished","text":"","data":' + b"[" * depth + b"]" * depth + b"}"

    decode_message(nested(MAX_DEPTH - 1))
    with pytest.raises(WireError, match="nested deeper"):
        decode_message(nested(MAX_DEPTH))
    brackets = '["\\' * 1000
    assert decode_message(payload_of(Finished(brackets, data={"x": brackets}, has_data=True))).text == brackets


def test_files_have_a_limit():
    head = {"name": "a", "media_type": "text/plain", "size": 0}
    for count, is_allowed in ((MAX_FILES, True), (MAX_FILES + 1, False)):
        data = json.dumps({"type": "finished", "text": "", "files": [head] * count}).encode()
        if is_allowed:
            assert len(decode_message(data).files) == count
        else:
            with pytest.raises(WireError, match="at most"):
                decode_message(data)


@pytest.mark.parametrize("data", [math.nan, math.inf, "\ud800", object(), {1, 2}, b"bytes"])
def test_what_json_cannot_hold_is_not_encoded(data):
    with pytest.raises(WireError):
        encode_message(Finished("", data=data, has_data=True))


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "a\\b", "a\0b", "a\nb", "-rf", "~user", "a:b", "CON ", "x.", " x",
     "x" * 256, "é" * 128, "a\u202eb", "a\u200bb", "a\x7fb", "a*", "a?", "a|b", "\ud800"],
)  # fmt: skip
def test_a_name_that_means_something_to_a_shell_or_a_file_system_is_not_safe(name):
    assert not is_safe_name(name)


@pytest.mark.parametrize("name", ["a", "report.pdf", "naïve 中文.txt", "x" * 255, "a-b_c(1).tar.gz"])
def test_an_ordinary_name_is_safe(name):
    assert is_safe_name(name)


@pytest.mark.parametrize(
    "value", ["", "text", "text/", "/plain", "text/plain; charset=utf-8", "text/pl ain", "a/b/c", "t\n/x"]
)
def test_what_is_no_media_type_is_refused(value):
    assert not is_media_type(value)


def test_entropy_is_in_no_repr():
    assert "secret" not in repr(Resume("secret", 0, "host"))


# --- golden files -----------------------------------------------------------------------------------------------------

SAMPLES = {
    "hold": Hold(),
    "held": Held(1_700_000_000_123_456_789),
    "resume": Resume("00ff" * 32, 1_700_000_000_123_456_789, "jwt-0a1b2c3d"),
    "booted": Booted("6.1.0-41-cloud-amd64", "3.11.2"),
    "exited-signal": Exited(-9, 1),
    "described": Described({"namespace": "jwt", "summary": "Ä", "tools": [{"name": "sign"}]}, 0.25, 1.5),
    "rehearse": Rehearse(31),
    "rehearsed": Rehearsed(),
    "run": Run("sign", 2, "0123456789abcdef", (FileHead("sales.csv", "text/csv", 3),)),
    "progress": Progress(3, 10, "page 3"),
    "progress-open-end": Progress(0.5),
    "finished-text": Finished("done"),
    "finished-data": Finished('{"ok":true}', {"ok": True, "none": None, "n": [1, -2.5]}, True),
    "finished-files": Finished("", None, False,
        (FileHead("a.png", "image/png", 4), FileHead("b.bin", "application/octet-stream", 0))),
    "finished-error": Finished("no such row", is_error=True),
    "failed": Failed("skill-exception", "ValueError: no", "Traceback (most recent call last):\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_message_is_written_as_it_always_was(name):
    """Golden files are never rewritten: a change of the format is a new wire version with its own files."""
    stored = (GOLDEN / f"{name}.bin").read_bytes()
    assert encode_message(SAMPLES[name]) == stored
    ((_, payload),) = FrameDecoder().feed(stored)
    assert decode_message(payload) == SAMPLES[name]
    assert json.loads(payload) == json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def test_every_message_has_a_golden_file_and_no_file_is_left_over():
    assert {path.stem for path in GOLDEN.iterdir()} == set(SAMPLES)
    assert {type(sample) for sample in SAMPLES.values()} == {
        Hold, Held, Resume, Booted, Exited, Described, Rehearse, Rehearsed, Run, Progress, Finished, Failed,
    }  # fmt: skip


SAMPLE_OF = {type(sample): sample for sample in SAMPLES.values()}
"""One valid message of each kind."""


def body_of(message):
    """The fields of a message as JSON values."""
    return {name: value for name, value in json.loads(payload_of(message)).items() if name != "type"}
