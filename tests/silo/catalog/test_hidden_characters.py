from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.catalog.hidden_characters import has_hidden, show_hidden


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("read\u200bthis", "read<U+200B>this"),
        ("a\u202eb", "a<U+202E>b"),
        ("x\U000e0041\U000e0042", "x<U+E0041><U+E0042>"),
        ("\x1b[2J", "<U+001B>[2J"),
        ("bell\a", "bell<U+0007>"),
        ("a\u200db", "a<U+200D>b"),
        ("a\ufe01b", "a<U+FE01>b"),
        ("a\ufe0fb", "a<U+FE0F>b"),
        ("\u3164", "<U+3164>"),
        ("one\u2028two", "one<U+2028>two"),
        ("\ud800", "<U+D800>"),
        ("\ue000", "<U+E000>"),
    ],
)
def test_what_a_reader_would_not_see_is_made_visible(text: str, shown: str):
    assert has_hidden(text)
    assert show_hidden(text) == shown


@pytest.mark.parametrize(
    "text",
    ["two\n\tlines", "naïve — “quoted”", "日本語", "می\u200cخواهم", "क्\u200dष", "☀\ufe0f sun", "e\u0301", "مرحبا"],
)
def test_writing_of_any_language_stays_as_it_is(text: str):
    assert show_hidden(text) == text


@given(st.text())
def test_what_is_shown_holds_nothing_hidden(text: str):
    assert not has_hidden(show_hidden(text))
