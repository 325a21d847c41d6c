"""Words, names and clauses: how a text is analysed before it is ranked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.router.text import Analyzer, clauses, plain_name, term_number

ANALYZER = Analyzer(remember=10)  # fewer words than a text may have


def stems(text):
    stems, _ = ANALYZER.spelt(text)
    return [stems[number] for number in ANALYZER.terms(text).parts]


@pytest.mark.parametrize(
    "name", ["listOpenIssues", "list_open_issues", "list-open-issues", "ListOpenIssues", "list.open.issues"]
)
def test_every_spelling_of_a_name_has_the_same_terms(name):
    assert stems(name) == stems("list open issues")
    assert ANALYZER.terms(name).wholes == [term_number("listopenissues")]
    assert plain_name(name) == "listopenissues"


def test_filler_words_and_bare_numbers_say_nothing():
    assert stems("can you please get me the 25 newest of my emails") == stems("newest emails")
    assert stems("12 2024-05-01") == []


def test_a_number_inside_of_a_name_counts_with_it():
    assert ANALYZER.terms("mp3").wholes == ANALYZER.terms("MP3").wholes == [term_number("mp3")]


@pytest.mark.parametrize(
    ("one", "other"), [("signing", "sign"), ("running", "runs"), ("queries", "query"), ("conversion", "conversions")]
)
def test_forms_of_a_word_have_one_stem(one, other):
    assert stems(one) == stems(other)


def test_scripts_without_spaces_are_taken_by_pairs_of_characters():
    assert stems("画像を") == ["画像", "像を"]


def test_a_request_falls_into_what_it_asks_for():
    assert clauses("Find hotels in Rome and book a flight. Then send an email to Ada!") == (
        "Find hotels in Rome ",
        " book a flight",
        " send an email to Ada",
    )
    assert clauses("read v1.2.txt") == ()
    assert len(clauses("do this thing now. " * 50)) == 8


@given(st.text(max_size=500))
def test_any_text_has_terms_and_clauses(text):
    ANALYZER.terms(text)
    clauses(text)
