"""Word pieces, as BERT's uncased tokenizer makes them; `silo.router.table` has their vectors.

silo has its own implementation because the packages with one depend on the client of a model hub.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from silo.router.text import spoken

_MAX_WORD_CHARS = 40
"""BERT's limit is 100; nothing longer than this is a word, and time grows with the square."""

_MAX_MEMO = 65_536
"""How many words have their pieces cached: a few megabytes, and more words than the tools of one catalogue have."""


class WordPieces:
    """Cuts words into the longest pieces that the vocabulary has, from the left.

    Args:
        vocabulary: the pieces in the order of their numbers; those inside of a word start with `##`.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._numbers = {piece: number for number, piece in enumerate(vocabulary)}
        self._memo: dict[str, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def encode(self, words: Sequence[str]) -> list[int]:
        """Return the piece numbers of all words in order, names part by part; a part that can't be cut has none."""
        numbers: list[int] = []
        for word in words:
            pieces = self._memo.get(word)
            if pieces is None:
                pieces = tuple(piece for part in spoken(word) for piece in self._cut(_plain(part)))
                if len(self._memo) < _MAX_MEMO:
                    self._memo[word] = pieces
            numbers.extend(pieces)
        return numbers

    def _cut(self, word: str) -> tuple[int, ...]:
        if not word or len(word) > _MAX_WORD_CHARS:
            return ()
        pieces = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                number = self._numbers.get(word[start:end] if start == 0 else "##" + word[start:end])
                if number is not None:
                    pieces.append(number)
                    start = end
                    break
            else:
                return ()
        return tuple(pieces)


def _plain(word: str) -> str:
    """Lower case without accents, as the vocabulary was made."""
    decomposed = unicodedata.normalize("NFD", word.lower())
    return "".join(char for char in decomposed if unicodedata.category(char) != "Mn")
