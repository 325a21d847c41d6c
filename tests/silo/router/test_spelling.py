"""Misspelt words: what was probably meant."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.router.spelling import Spelling

WORDS = ["currency", "weather", "translate", "calendar", "invoice", "cat"]
ALL = np.ones(len(WORDS), bool)


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("curency", "currency"), ("wheather", "weather"), ("tranlate", "translate"), ("calender", "calendar")],
)
def test_a_slip_finds_the_word(slip, meant):
    assert WORDS[Spelling(WORDS).near(slip, ALL)[0].word] == meant


def test_a_word_that_may_not_be_seen_is_not_found():
    allowed = np.array([word != "currency" for word in WORDS])
    assert Spelling(WORDS).near("curency", allowed) == []


@given(st.text(max_size=40), st.lists(st.text(max_size=12), max_size=8))
def test_any_word_gets_an_answer(word, words):
    assert all(0.5 <= near.likeness <= 1 for near in Spelling(words).near(word, np.ones(len(words), bool)))
