from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.server.protocol.tokens import count_tokens


@pytest.mark.parametrize(
    ("text", "o200k"),
    [
        ("", 0),
        ("Find tools by what they do: one action per search, in a few words.", 17),
        ('{"type":"object","properties":{"tool":{"type":"string","description":"e.g. jwt.sign"}}}', 22),
        ("service_1040, service_1041, service_1042, service_1043", 19),
    ],
)
def test_estimate_is_rather_too_high(text, o200k):
    """The counts are from OpenAI's `o200k_base`. The tokenizer itself would be a dependency that downloads a file."""
    assert o200k <= count_tokens(text) <= 1.35 * o200k


@given(st.text(), st.text())
def test_a_longer_text_never_costs_less(text, more):
    assert count_tokens(text + more) >= count_tokens(text)
