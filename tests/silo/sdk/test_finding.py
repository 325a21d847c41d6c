"""Finding secrets: in each form, wherever it stands, whole or cut off, and nothing else.

`forms_of_values` writes the forms without the code that is tested here. The property is that of the threat model: no
run of four characters of any form is left, whatever surrounds it, and wherever a limit cuts.
"""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.sdk.cuts import shortened
from silo.sdk.finding import Finder, Markers, Span, merged, replaced
from silo.sdk.forms import Forms, decoded, skeleton
from silo.testing.leaks import FORMS, runs_left, written

MARKER = b"[redacted:N]"

# No letters of the marker, so that a run of a value can't be a part of it.
LETTERS = "bfghijkmopqsuvwxyzBCDEFGHIJKLM0123456789"
INNER = LETTERS + 'äß€"\\/&<%+-_=$ '


def is_distinctive(value):
    """Whether the value has enough letters and digits, also if something in it looks like an escape."""
    bare = skeleton(decoded(value.encode()))
    return (len(bare) >= 12 and bare.isascii() and not bare.isdigit()) or len(bare) >= 16


VALUES = st.builds(
    lambda first, inner, last: first + inner + last,
    st.sampled_from(LETTERS),
    st.text(INNER, min_size=10, max_size=38),
    st.sampled_from(LETTERS),
).filter(is_distinctive)
AROUND = st.text("~|^;\n\t", max_size=12).map(str.encode)


def redacted(values, text, *, is_cut=False):
    finder = Finder(Forms.of(values))
    spans, _ = finder.spans(text)
    left = finder.left_by_cut(text) if is_cut else []
    return replaced(text, merged([*spans, *left]), Markers(["N"] * len(values)))


@pytest.mark.parametrize("form", FORMS)
@given(value=VALUES, before=AROUND, after=AROUND)
@settings(max_examples=40, deadline=None)
def test_no_run_of_any_form_is_left(form, value, before, after):
    shown = written(form, value)
    cleaned = redacted([value], before + shown + after)
    assert MARKER in cleaned
    assert runs_left(shown, cleaned, MARKER) == []


@pytest.mark.parametrize("form", FORMS)
@given(value=VALUES, before=AROUND, data=st.data())
@settings(max_examples=40, deadline=None)
def test_no_run_of_any_form_is_left_at_a_cut(form, value, before, data):
    shown = written(form, value)
    text = before + shown
    limit = data.draw(st.integers(0, len(text)))
    assert runs_left(shown, redacted([value], text[:limit], is_cut=True), MARKER) == []


@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("utf-16")])
@given(value=VALUES, before=AROUND, after=AROUND, data=st.data())
@settings(max_examples=40, deadline=None)
def test_shortening_leaves_no_run_of_any_form(form, value, before, after, data):
    shown = written(form, value).decode()
    text = before.decode() + shown + after.decode()
    limit = data.draw(st.integers(1, len(text)))
    from_end = data.draw(st.booleans())
    short = shortened(text, limit, {"N": value}, from_end=from_end)
    assert len(short) <= limit
    cleaned = redacted([value], short.encode())  # the host redacts what was short enough
    assert runs_left(shown.encode(), cleaned, MARKER) == []


@given(st.lists(VALUES, min_size=1, max_size=3), st.data())
@settings(max_examples=100, deadline=None)
def test_shortening_a_text_full_of_secrets_leaves_none(values, data):
    """Redacting makes a text shorter, so that what stood beyond the limit moves into what is kept."""
    text = " ".join(data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=2000)))
    limit = data.draw(st.integers(1, min(200, len(text) - 1)))
    for from_end in (False, True):
        short = shortened(text, limit, {f"N{i}": value for i, value in enumerate(values)}, from_end=from_end)
        assert len(short) <= limit
        for value in values:
            assert runs_left(value.encode(), short.encode(), b"[redacted:N0]") == []


def test_what_is_short_enough_is_left_to_the_host():
    assert shortened("the key s3cr3t-Value", 20, {"N": "s3cr3t-Value"}) == "the key s3cr3t-Value"
    assert shortened("the key s3cr3t-Value", 19, {"N": "s3cr3t-Value"}) == "the key [redacted:N"
    assert shortened("the key s3cr3t-Value", 19, {}, mark="…") == "the key s3cr3t-Val…"
    assert shortened("s3cr3t-Value and more", 10, {"N": "s3cr3t-Value"}, from_end=True, mark="…") == "… and more"


@given(
    value=VALUES,
    around=st.lists(st.sampled_from(["the ", "end\n", "of 2026-11-30", " %20", "\\n", "&lt;"]), max_size=9),
)
@settings(max_examples=200, deadline=None)
def test_text_without_a_secret_stays_as_it_is(value, around):
    text = "".join(around).encode()
    assert redacted([value], text) == text
    before, after = text[: len(text) // 2] + b" ", b" " + text[len(text) // 2 :]
    if b"%" not in text and b"\\" not in text and b"&" not in text:
        assert redacted([value], before + value.encode() + after) == before + MARKER + after


@pytest.mark.parametrize(
    ("secret", "text", "expected"),
    [
        pytest.param("1234", b"1 2 3 4, 12-34, 1,234", None, id="a short value is found in one piece only"),
        pytest.param("1234", b"a 1234 b 31323334 MTIzNA", b"a [redacted:N] b [redacted:N] [redacted:N]", id="PIN"),
        pytest.param("12345678", b"[1, 2, 3, 4, 5, 6, 7, 8]", None, id="digits in a row of numbers"),
        pytest.param("4111111111111111", b"4111 1111-1111 1111", b"[redacted:N]", id="many digits"),
        pytest.param("abc", b"abc", None, id="three characters"),
        pytest.param("     ", b"a     b", None, id="white space"),
        pytest.param("!!!!!!!!", b"a !!!!!!!! b", b"a [redacted:N] b", id="punctuation"),
        pytest.param("correct horse", b"Correct\n  Horse!", b"[redacted:N]!", id="a passphrase on two lines"),
        pytest.param("пароль-мой", "a пароль-мой b".encode(), b"a [redacted:N] b", id="Cyrillic"),
        pytest.param(
            "пароль-мой", rb"\u043f\u0430\u0440\u043e\u043b\u044c-\u043c\u043e\u0439", b"[redacted:N]", id="\\u"
        ),
        pytest.param("--ab12cd34ef--", b"x=--ab12cd34ef--;", b"x=[redacted:N];", id="punctuation at the ends"),
        pytest.param("--ab12cd34ef--", b"%2d%2Dab12cd34ef%2d%2d;", b"[redacted:N];", id="escaped at the ends"),
        pytest.param("ab12cd34ef", b"100%ab12cd34ef", b"100[redacted:N]", id="behind a sign of an escape"),
        pytest.param("ab12cd34ef", b"\\xab12cd34ef", b"[redacted:N]", id="behind another"),
        pytest.param(r"C:\new\table", rb"C:\new\table C:\\new\\table", b"[redacted:N] [redacted:N]", id="backslashes"),
        pytest.param("ab%20cd12ef34", b"ab%20cd12ef34 ab%2520cd12ef34", b"[redacted:N] [redacted:N]", id="percent"),
    ],
)
def test_which_texts_are_taken_for_a_secret(secret, text, expected):
    assert redacted([secret], text) == (text if expected is None else expected)


def test_each_line_of_a_private_key_is_found_and_its_short_last_one():
    body = ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj", "q8Xw=="]
    key = "\n".join(["-----BEGIN PRIVATE KEY-----", *body, "-----END PRIVATE KEY-----", ""])
    for number, line in enumerate(body):
        assert line.encode().rstrip(b"=") not in redacted([key], f"line {number}: {line}.".encode())
    assert redacted([key], "".join(body).encode().rstrip(b"=")) == MARKER
    assert redacted([key], b"-----BEGIN PRIVATE KEY-----") == b"-----BEGIN PRIVATE KEY-----"


def test_the_number_of_needles_is_bounded_by_the_lines():
    value = "\n".join(f"line {number:05} of a long secret" for number in range(2000))
    forms = Forms.of([value, "s3cr3t-Value"])
    assert len(forms.exact) + len(forms.loose) <= 2000 + 2 * 60


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), st.integers(-1, 2)), max_size=8))
def test_merged_spans_cover_the_same_and_are_apart(drawn):
    spans = [Span(start, start + size, owner) for start, size, owner in drawn]
    joined = merged(spans)
    assert {i for s in joined for i in range(s.start, s.end)} == {i for s in spans for i in range(s.start, s.end)}
    assert all(first.end < second.start for first, second in pairwise(joined))


@given(st.integers(0, 3000), st.integers(0, 100))
def test_a_text_grows_by_no_more_than_it_may(count, left):
    text = b"1234 " * count
    spans = [Span(5 * number, 5 * number + 4, 0) for number in range(count)]
    cleaned = replaced(text, spans, Markers(["A_LONG_NAME"], left))
    assert b"1234" not in cleaned
    assert len(cleaned) <= len(text) + left
