import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_interaction.visible import visible, wrap


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ASCII, and Grüße, Привет, 你好", "plain ASCII, and Grüße, Привет, 你好"),
        ("\x1b[31mred", "<U+001B>[31mred"),
        ("a\tb\rc\nd", "a<U+0009>b<U+000D>c<U+000A>d"),
        ("safe\u202egnp.exe", "safe<U+202E>gnp.exe"),
        ("zero\u200bwidth\u2060", "zero<U+200B>width<U+2060>"),
        ("\U000e0041\U000e0042", "<U+E0041><U+E0042>"),
        ("no\u00a0break", "no<U+00A0>break"),
        ("\u3164\u115f\u2800", "<U+3164><U+115F><U+2800>"),
        ("a\ufe0fb", "a<U+FE0F>b"),
        ("\ud800", "<U+D800>"),
        ("\u0301x", "<U+0301>x"),
        ("\x7f\x9b", "<U+007F><U+009B>"),
    ],
)
def test_what_cannot_be_seen_is_spelt_out(text, shown):
    assert visible(text) == shown


def test_a_pile_of_combining_marks_is_cut_down_to_what_a_script_needs():
    assert visible("a" + "\u0301" * 6) == "a" + "\u0301" * 4 + "<U+0301>" * 2


@given(st.text())
def test_the_result_can_always_be_printed(text):
    assert visible(text).isprintable()


@given(st.text(st.characters(codec="utf-8")))
def test_showing_a_shown_text_changes_nothing(text):
    assert visible(visible(text)) == visible(text)


@given(st.text().map(visible), st.integers(2, 30))
def test_wrapping_keeps_every_character_and_stays_within_the_width(text, width):
    pieces = wrap(text, width)
    assert "".join(pieces) == text
    for piece in pieces:
        columns = sum(
            0 if unicodedata.category(c) in {"Mn", "Me"} else 1 + (unicodedata.east_asian_width(c) in {"W", "F"})
            for c in piece
        )
        assert columns <= width
