"""Redaction: no usual form of a secret survives, and nothing else changes."""

import base64
import html
import json
import re
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from silo.errors import SkillCrashed, SkillFailed
from silo.model import File
from silo.secrets.redaction import Redactor

# Values that people keep: printable, at times with quotes, slashes, umlauts and line breaks. Marker letters are left
# out so that a value can't be a part of "[redacted:NAME]".
VALUES = st.text(
    st.characters(codec="utf-8", exclude_characters="redactNAME:[]", exclude_categories=["Cc", "Zs", "Zl", "Zp"]),
    min_size=6,
    max_size=40,
)
AROUND = st.binary(max_size=8)
SECRET = 'pä$s/"wörd\\42<&>'
NAME = "NAME"


FORMS = {
    "raw": lambda value: value.encode(),
    "json": lambda value: json.dumps(value).encode(),
    "json, not ASCII": lambda value: json.dumps(value, ensure_ascii=False).encode(),
    "json in json": lambda value: json.dumps(json.dumps(value)).encode(),
    "repr": lambda value: repr(value).encode(),
    "html": lambda value: html.escape(value).encode(),
    "url": lambda value: quote(value, safe="").encode(),
    "url path": lambda value: quote(value).encode(),
    "url form": lambda value: quote_plus(value).encode(),
    "url, small letters": lambda value: re.sub("%..", lambda escape: escape[0].lower(), quote(value, safe="")).encode(),
    "hex": lambda value: value.encode().hex().encode(),
    "HEX": lambda value: value.encode().hex().upper().encode(),
    "reversed": lambda value: value[::-1].encode(),
    "base32": lambda value: base64.b32encode(value.encode()),
    "base32, small letters": lambda value: base64.b32encode(value.encode()).lower(),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_replaced_whole(form):
    shown = FORMS[form](SECRET)
    cleaned = Redactor({NAME: SECRET}).raw(b"<" + shown + b">")
    assert b"[redacted:NAME]" in cleaned
    for run in (shown[i : i + 5] for i in range(len(shown) - 5)):
        assert run not in cleaned


@pytest.mark.parametrize("form", FORMS)
@given(value=VALUES)
def test_no_form_of_any_value_survives(form, value):
    shown = FORMS[form](value)
    cleaned = Redactor({NAME: value}).raw(b" " + shown + b" ")
    inner = shown.strip(b"\"'\\=")
    assume(len(inner) >= 4)
    assert inner not in cleaned
    assert b"[redacted:NAME]" in cleaned


@given(before=AROUND, value=VALUES, after=AROUND, altchars=st.sampled_from([b"+/", b"-_"]))
def test_base64_is_found_at_every_alignment(before, value, after, altchars):
    shown = base64.b64encode(before + value.encode() + after, altchars)
    cleaned = Redactor({NAME: value}).raw(shown)
    assert b"[redacted:NAME]" in cleaned
    kept = cleaned.partition(b"[redacted:NAME]")[0]
    # The text left in front decodes to the original front, without any part of the secret.
    assert len(kept) * 6 // 8 <= len(before) + 1


@given(before=AROUND, value=VALUES, after=AROUND)
def test_base32_is_found_at_every_alignment(before, value, after):
    assert b"[redacted:NAME]" in Redactor({NAME: value}).raw(base64.b32encode(before + value.encode() + after))


@given(st.binary(max_size=300))
def test_without_secrets_nothing_changes(data):
    assert Redactor({}).raw(data) == data
    assert Redactor({"SHORT": "abc"}).raw(data) == data
    assert not Redactor({"SHORT": "abc"})


@given(st.text(alphabet="xyz \n", max_size=200))
def test_text_without_the_secret_is_left_alone(text):
    assert Redactor({NAME: "s3cr3t-Value"}).text(text) == text


@given(st.text(max_size=30), st.text(max_size=30))
@example("\ud800", "\udfff")
def test_text_around_a_secret_survives(before, after):
    assert Redactor({NAME: "s3cr3t-Value"}).text(f"{before}s3cr3t-Value{after}") == f"{before}[redacted:NAME]{after}"


@given(st.lists(VALUES, min_size=1, max_size=4, unique=True), st.data())
def test_several_secrets_are_all_found_even_where_they_overlap(values, data):
    secrets = {f"NAME{i}": value for i, value in enumerate(values)}
    text = "".join(data.draw(st.sampled_from(values)) for _ in range(5))
    cleaned = Redactor(secrets).text(text)
    assert not any(value in cleaned for value in values)


def test_overlapping_secrets_leave_no_part_of_either():
    cleaned = Redactor({"A": "xxabcd", "B": "abcdyy"}).text("1xxabcdyy2")
    assert cleaned == "1[redacted:A]2"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["s3cr3t-Value", "x", "xs3cr3t-Valuey", "NzJjcjN0"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "s3cr3t-Value", "b"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(JSON)
def test_data_is_clean_and_keeps_its_shape(value):
    cleaned = Redactor({NAME: "s3cr3t-Value"}).data(value)
    assert "s3cr3t-Value" not in json.dumps(cleaned)

    def shape(value):
        if isinstance(value, dict):
            return [shape(item) for item in value.values()]
        if isinstance(value, list):
            return tuple(shape(item) for item in value)
        return value if not isinstance(value, str) else "text"

    assert shape(cleaned) == shape(value)


def test_a_secret_that_is_a_number_is_found_as_a_number():
    redactor = Redactor({"PIN": "12345678"})
    assert redactor.data([12345678, -12345678, 1.5, True, None]) == [
        "[redacted:PIN]",
        "-[redacted:PIN]",
        1.5,
        True,
        None,
    ]


def test_two_keys_that_become_one_are_both_kept():
    redactor = Redactor({"A": "first-value"})
    assert redactor.data({"first-value": 1, "eulav-tsrif": 2}) == {"[redacted:A]": 1, "[redacted:A] (2)": 2}


@given(st.integers(1, 6))
def test_a_secret_cut_up_over_a_list_is_found(size):
    value = "s3cr3t-Value"
    pieces = ["before ", *(value[i : i + size] for i in range(0, len(value), size)), " after"]
    cleaned = Redactor({NAME: value}).data(pieces)
    assert value not in "".join(cleaned)
    assert cleaned[0] == "before "
    assert cleaned[-1] == " after"


def test_each_line_of_a_private_key_is_found_but_not_its_frame():
    body = ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"]
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *body, "-----END PRIVATE KEY-----"]) + "\n"
    redactor = Redactor({"KEY": key})
    cleaned = redactor.data([f"line {number}: {line}" for number, line in enumerate(key.splitlines())])
    assert not any(line in text for line in body for text in cleaned)
    assert cleaned[0] == "line 0: -----BEGIN PRIVATE KEY-----"
    assert "MII" not in redactor.text(key.strip())


@given(st.integers(4, 11))
def test_the_beginning_of_a_secret_at_a_cut_goes_too(length):
    redactor = Redactor({NAME: "s3cr3t-Value"})
    assert redactor.cut_off(b"log: " + b"s3cr3t-Value"[:length]) == b"log: "
    assert redactor.cut_off(b"log: " + b"s3cr3t-Value") == b"log: [redacted:NAME]"
    assert redactor.cut_off(b"log: nothing") == b"log: nothing"


def test_files_and_errors_are_cleaned_in_all_their_parts():
    redactor = Redactor({NAME: "s3cr3t-Value"})
    file = redactor.file(File(b"x s3cr3t-Value", "text/plain", "s3cr3t-Value.txt"))
    assert file == File(b"x [redacted:NAME]", "text/plain", "[redacted:NAME].txt")
    error = redactor.error(
        SkillCrashed("a s3cr3t-Value", hint="b s3cr3t-Value", stdout="s3cr3t-Value", traceback="s3cr3t-Value")
    )
    assert isinstance(error, SkillFailed)
    assert "s3cr3t" not in str(vars(error))


def test_a_redactor_does_not_show_what_it_looks_for():
    assert "s3cr3t" not in repr(Redactor({NAME: "s3cr3t-Value"}))


def test_megabytes_with_many_secrets_do_not_take_long():
    redactor = Redactor({f"NAME{i}": f"s3cr3t-Value-{i:04}" for i in range(10)})
    data = b"an ordinary line of output, and another one\n" * 25_000
    started = time.thread_time()
    assert redactor.raw(data) == data
    assert time.thread_time() - started < 30


BINARY = bytes(range(200, 256)) + b"\0key-store\xff" + bytes(range(128, 160))


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(base64.b64encode(BINARY).decode(), id="base64"),
        pytest.param(base64.encodebytes(BINARY).decode(), id="MIME"),
        pytest.param(base64.urlsafe_b64encode(b"x" + BINARY).decode(), id="base64 beside another byte"),
        pytest.param(BINARY.hex(), id="hex"),
        pytest.param(BINARY.hex(":").upper(), id="hex with colons"),
        pytest.param(repr(BINARY), id="repr"),
        pytest.param(quote(BINARY), id="percent"),
        pytest.param(BINARY.decode("latin-1"), id="latin-1"),
        pytest.param(
            BINARY.decode(errors="surrogateescape").encode(errors="surrogateescape").hex(), id="back and forth"
        ),
    ],
)
def test_a_binary_value_is_found_in_the_forms_in_which_bytes_are_shown(shown):
    redactor = Redactor({"STORE": BINARY.decode(errors="surrogateescape")})
    assert "[redacted:STORE]" in redactor.text(f"before {shown} after")
    assert len(redactor.text(f"before {shown} after")) < 40
    assert redactor.raw(b"before " + BINARY + b" after") == b"before [redacted:STORE] after"


MIXED = b"\xfe\xed\0Tr0ub4dor\x80and\xc3\xff3xkcd\x01\xe2\x82"


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(MIXED.decode(errors="replace"), id="replacement characters"),
        pytest.param(MIXED.decode(errors="ignore"), id="ignored"),
        pytest.param(MIXED.decode("ascii", "ignore"), id="ASCII only"),
        pytest.param(MIXED.decode(errors="surrogateescape").encode(errors="replace").decode(), id="question marks"),
        pytest.param(repr(MIXED.decode(errors="surrogateescape")), id="repr of text"),
        pytest.param(json.dumps(MIXED.decode(errors="surrogateescape")), id="JSON"),
    ],
)
@pytest.mark.parametrize("size", [10, 100_000])
def test_a_binary_value_is_found_where_it_was_taken_for_text(shown, size):
    redactor = Redactor({"STORE": MIXED.decode(errors="surrogateescape")})
    cleaned = redactor.text(f"{'-' * size} {shown} after")
    assert "[redacted:STORE]" in cleaned
    assert not any(piece in cleaned for piece in ("Tr0u", "dor", "and", "3xkcd"))


def test_a_binary_value_that_a_call_printed_before_it_failed_is_removed():
    redactor = Redactor({"STORE": MIXED.decode(errors="surrogateescape")})
    printed = (b"read " + MIXED + b" and\n").decode(errors="replace")  # as `silo.sandbox.skill.link` decodes it
    error = redactor.error(SkillCrashed("it crashed", hint="h", stdout=printed, stderr=printed[:-6]))
    for text in (error.stdout, error.stderr):
        assert text.startswith("read ")
        assert "[redacted:STORE]" in text
        assert "Tr0u" not in text


def test_a_binary_value_with_no_text_in_it_redacts_no_replacement_characters():
    redactor = Redactor({"STORE": bytes(range(128, 160)).decode(errors="surrogateescape")})
    assert redactor.text("\ufffd" * 64) == "\ufffd" * 64
