"""Patterns over arguments: what a restriction matches, and what a permission must be sure of."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.model import File
from silo.policy.patterns import Arguments, Glob, any_mismatch, scalar_text, whole_mismatch

scalars = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
)
globs = st.text("ab*?[]!é1.", max_size=5).map(Glob)


def found(value, pattern, path="key"):
    return any_mismatch(Arguments({"key": value}), path, (Glob(pattern),)) is None


def sure(value, pattern, path="key"):
    return whole_mismatch(Arguments({"key": value}), path, (Glob(pattern),)) is None


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        ("acme/site", "acme/*"),
        ("acme/", "acme/*"),
        ("b", "[abc]"),
        ("d", "[!abc]"),
        ("x", "?"),
        ("", ""),
        ("", "*"),
        (42, "42"),
        (42, "4*"),
        (1.0, "1"),
        (1.5, "1.5"),
        (1e22, "10000000000000000000000"),
        (True, "true"),
        (None, "null"),
        (["a1", "a2"], "a*"),
        ([["a1"], ["a2"]], "a*"),
        ("é", "e\u0301"),
    ],
)
def test_what_fits_as_a_whole_is_found_and_sure(value, pattern):
    assert found(value, pattern)
    assert sure(value, pattern)


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        ("acme/site", "acme"),
        ("evil/acme/site", "acme/*"),
        ("Acme/site", "acme/*"),
        (42, "4"),
        (True, "True"),
        (None, ""),
        ("a", "[!a]"),
        (["b1"], "a*"),
    ],
)
def test_what_does_not_fit_is_neither_found_nor_sure(value, pattern):
    assert not found(value, pattern)
    assert not sure(value, pattern)


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        (["b", "a1"], "a*"),
        ([], "*"),
        ([], "[[]]"),
        ({}, "*"),
        ({"inner": ["b", {"deep": "a1"}]}, "a*"),
        ({"a1": 0}, "a*"),
        (File(b"", name="a1.csv"), "a*"),
        ([File(b"", name="a1.csv")], "a*.csv"),
        ("one\ntwo", "one*two"),
        ("a\u200b", "a*"),
        ("acme\n", "acme"),
        (" acme", "acme"),
        ("ac\u200bme", "acme"),
        ("acme\0.png", "acme"),
        ("\uff41/x", "a/*"),
        ("ﬁle", "file"),
        ("e\u0301", "é"),
        (1, "1.0"),
        (1e22, "1e+22"),
    ],
)
def test_one_piece_in_one_spelling_is_enough_to_be_found_and_too_little_to_be_sure(value, pattern):
    assert found(value, pattern)
    assert not sure(value, pattern)


def test_a_permission_holds_in_the_spelling_that_others_may_make_of_it():
    """A tool that normalizes `．．/x` gets `../x`."""
    assert not sure("．．/x", "[!.]*")
    assert sure("ünder/x", "[!.]*")


def test_a_dotted_path_reaches_into_objects_and_into_the_items_of_lists():
    arguments = {"issue": {"labels": [{"name": "bug"}, {"name": "docs"}], "title.short": "t"}, "a.b": "c"}
    for path, pattern, is_found, is_sure in (
        ("issue.labels.name", "bug", True, False),
        ("issue.labels.name", "*", True, True),
        ("issue.labels.nothing", "*", False, False),
        ("issue.title.short", "t", True, True),
        ("a.b", "c", True, True),
        ("a", "*", False, False),
    ):
        assert (any_mismatch(Arguments(arguments), path, (Glob(pattern),)) is None) == is_found, path
        assert (whole_mismatch(Arguments(arguments), path, (Glob(pattern),)) is None) == is_sure, path


def test_two_readings_of_a_path_are_both_looked_at():
    arguments = {"a": {"b": "good"}, "a.b": "bad"}
    assert any_mismatch(Arguments(arguments), "a.b", (Glob("bad"),)) is None
    assert whole_mismatch(Arguments(arguments), "a.b", (Glob("good"),)) is not None


def test_an_item_that_lacks_what_the_path_names_makes_a_permission_unsure():
    arguments = {"list": [{"name": "good"}, {}]}
    assert whole_mismatch(Arguments(arguments), "list.name", (Glob("good"),)) == "list.name is not given everywhere"
    assert any_mismatch(Arguments(arguments), "list.name", (Glob("good"),)) is None


def test_an_argument_that_is_not_given_is_neither():
    for compare in (any_mismatch, whole_mismatch):
        assert compare(Arguments({}), "key", (Glob("*"),)) == "key is not given"


def test_what_is_wrong_is_said_with_the_value_and_no_more_of_it_than_fits_a_line():
    assert (
        any_mismatch(Arguments({"repo": "acme/x"}), "repo", (Glob("b/*"), Glob("c")))
        == "repo is 'acme/x', not 'b/*' or 'c'"
    )
    assert len(any_mismatch(Arguments({"repo": "x" * 10_000}), "repo", (Glob("b"),))) < 120
    assert "a file" in whole_mismatch(Arguments({"data": File(b"", name="x")}), "data", (Glob("x"),))


def test_a_text_of_nothing_but_marks_is_not_sorted_but_taken_for_anything():
    """Normalizing half a million marks takes minutes (UAX #15 §13); an agent chooses the text."""
    marks = "a" + "\u0315\u0300" * 250_000
    started = time.thread_time()
    assert found(marks, "b")
    assert not sure(marks, "*")
    assert found("a" + "\u0f73" * 1000, "b")
    assert not found("é" * 1000 + "e\u0301\u0302" * 1000, "b")
    assert time.thread_time() - started < 60


def test_a_long_text_costs_no_more_than_its_length():
    started = time.thread_time()
    assert not found("a" * 1_000_000, "*a*a*a*a*a*a*b")
    assert time.thread_time() - started < 60


@given(values, globs)
def test_what_is_sure_is_found_as_well(value, glob):
    if whole_mismatch(Arguments({"key": value}), "key", (glob,)) is None:
        assert any_mismatch(Arguments({"key": value}), "key", (glob,)) is None


@given(values, globs)
def test_wrapping_a_value_hides_nothing_from_a_restriction(value, glob):
    if any_mismatch(Arguments({"key": value}), "key", (glob,)) is None:
        for wrapped in ([value], [0, value], {"x": value}, {"x": [value]}):
            assert any_mismatch(Arguments({"key": wrapped}), "key", (glob,)) is None


@given(st.text(max_size=20), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_spelling_a_text_in_another_form_hides_nothing_from_a_restriction(text, form):
    pattern = "".join(f"[{character}]" if character in "*?[" else character for character in text)
    assert found(unicodedata.normalize("NFD", text), pattern)
    if unicodedata.normalize("NFKC", text) == unicodedata.normalize("NFC", text):
        assert found(unicodedata.normalize(form, text), pattern)


@given(st.integers(-(10**15), 10**15))
def test_a_whole_number_is_the_same_with_a_point(number):
    assert scalar_text(float(number)) == scalar_text(number) == str(number)
