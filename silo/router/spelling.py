"""Find the words that a misspelt word of a request may mean, by groups of three letters. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MIN_WORD_CHARS = 4
"""Shorter words are similar to too many others."""

_MAX_WORD_CHARS = 30
_LIKENESS = 0.5
"""The Dice coefficient of similar words: one wrong letter in eight, or two swapped ones in ten."""

_NEAR = 2
_SPAN = 96
"""Letters by their code points from 32 on; words of other scripts are not compared."""


@dataclass(frozen=True)
class Near:
    """A similar word: its index in the list of words, and its likeness, up to 1."""

    word: int
    likeness: float


class Spelling:
    """Finds similar words among many. Building takes 0.1 s for 20,000, so it waits for the first misspelt word."""

    def __init__(self, words: Sequence[str]) -> None:
        grams: list[int] = []
        counts = np.zeros(len(words), np.int64)
        for place, word in enumerate(words):
            own = _grams(word)
            counts[place] = len(own)
            grams.extend(own)
        owners = np.repeat(np.arange(len(words), dtype=np.int64), counts)
        numbers = np.array(grams, np.int64)
        order = np.argsort(numbers, kind="stable")
        self._counts = counts
        self._numbers = numbers[order]
        self._owners = owners[order]

    def near(self, word: str, allowed: npt.NDArray[np.bool_]) -> list[Near]:
        """Return up to two words, the most similar first; words of the same likeness in the order of the list.

        Args:
            word: any word.
            allowed: which words may be returned.
        """
        own = _grams(word)
        if not own or not len(self._counts):
            return []
        starts = np.searchsorted(self._numbers, own, side="left").tolist()
        ends = np.searchsorted(self._numbers, own, side="right").tolist()
        hits = np.concatenate([self._owners[start:end] for start, end in zip(starts, ends, strict=True)])
        shared = np.bincount(hits, minlength=len(self._counts))
        likeness = np.where(allowed, 2 * shared / (self._counts + len(own)), 0)
        places = np.flatnonzero(likeness >= _LIKENESS)
        best = places[np.argsort(-likeness[places], kind="stable")[:_NEAR]]
        return [Near(int(place), float(likeness[place])) for place in best]


def _grams(word: str) -> list[int]:
    """Return the distinct groups of three letters of a word, with a mark at both ends, as numbers."""
    if not MIN_WORD_CHARS <= len(word) <= _MAX_WORD_CHARS or not word.isascii():
        return []
    codes = [0, *(ord(char) - 31 for char in word), 0]
    return sorted({(a * _SPAN + b) * _SPAN + c for a, b, c in zip(codes, codes[1:], codes[2:], strict=False)})
