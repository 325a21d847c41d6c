"""How many tokens a text costs an agent, roughly; without a tokenizer, because each model has another one. Pure."""

from __future__ import annotations

import re

CHARS_PER_TOKEN = 4


def count_tokens(text: str) -> int:
    """Return an estimate that is rather too high.

    Four characters to a token, or a token for each piece that no tokenizer goes beyond, whichever is more: eight letters, three digits,
    three marks side by side, one character of any other alphabet. Compared with OpenAI's `o200k_base` and `cl100k_base`, the
    descriptions and schemas of 1,500 tools of public sets came to 0 to 18 % more, English as JSON; Japanese to 40 % more at most.
    """
    pieces = sum(-(-len(match.group()) // _LONGEST[match.lastgroup or ""]) for match in _PIECES.finditer(text))
    return max(-(-len(text) // CHARS_PER_TOKEN), pieces)


_PIECES = re.compile(
    r"(?P<letters>[A-Za-z]+)|(?P<digits>[0-9]+)|(?P<others>[^\x00-\x7f])|(?P<marks>[^\sA-Za-z0-9\x80-\U0010ffff]+)"
)
_LONGEST = {"letters": 8, "digits": 3, "others": 1, "marks": 3}
