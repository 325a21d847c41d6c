"""A request, taken apart: its clauses, and which terms of the index each of them has. Scores are `ranker`'s."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from silo.router.compiled import pair
from silo.router.hygiene import clean
from silo.router.text import MAX_CLAUSES, MAX_QUERY_CHARS, Analyzer, clauses

PAIR_WEIGHT = 0.6
"""What a pair of neighbours counts, on top of its two words."""

GUESS_WEIGHT = 0.6
"""What a word counts that only resembles the one in the request, times its likeness."""

_MAX_GUESSES = 8
"""Misspelt words that are looked up; a request in another language has nothing but."""


@dataclass(frozen=True)
class Request:
    """A request over one index.

    Attributes:
        texts: the whole (first), and the clauses, cleaned.
        terms: places in the vocabulary, distinct, in the order of the request; only terms that a visible tool has.
        weights: what each counts, before its rarity.
        is_pair: whether it is a pair of words.
        labels: the word as it was written; empty for pairs.
        parts: which of `texts` has which term; [texts, terms].
        unknown: distinct words that no visible tool has, nor a similar one.
        says_nothing: it has no words but fillers; whatever resembles those is chance.
    """

    texts: tuple[str, ...]
    terms: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    is_pair: npt.NDArray[np.bool_]
    labels: tuple[str, ...]
    parts: npt.NDArray[np.bool_]
    unknown: int
    says_nothing: bool


@dataclass(frozen=True)
class Guess:
    """A term that a misspelt word may stand for: its place in the vocabulary, and how alike it is."""

    term: int
    likeness: float


def take_apart(
    queries: Sequence[str],
    *,
    analyzer: Analyzer,
    vocabulary: npt.NDArray[np.uint64],
    present: npt.NDArray[np.bool_],
    with_clauses: bool,
    guess: Callable[[str], Sequence[Guess]] | None,
) -> Request:
    """Take a request apart.

    Args:
        queries: one request, or several that belong together.
        analyzer: takes texts apart.
        vocabulary: all terms of the index, sorted.
        present: which of them count.
        with_clauses: look at clauses, too.
        guess: what a word may mean that is not there, given its stem; None: nothing.
    """
    texts = _texts(queries, with_clauses=with_clauses)
    stems, labels_of = analyzer.spelt(texts[0])
    seen: dict[int, int] = {}
    is_pair: list[bool] = []
    members: list[list[int]] = []
    for text in texts:
        found = analyzer.terms(text)
        member = [seen.setdefault(number, len(seen)) for number in (*found.wholes, *found.parts)]
        is_pair.extend([False] * (len(seen) - len(is_pair)))
        # Few and small: Python's own numbers are faster here than arrays.
        pairs_of = map(pair, found.parts, found.parts[1:])
        member += [seen.setdefault(number, len(seen)) for number in pairs_of]
        is_pair.extend([True] * (len(seen) - len(is_pair)))
        members.append(member)
    numbers = np.array(list(seen), np.uint64)
    has = np.zeros((len(texts), len(seen)), np.bool_)
    for row, member in enumerate(members):
        has[row, member] = True
    place = np.minimum(np.searchsorted(vocabulary, numbers), max(0, len(vocabulary) - 1))
    known = (vocabulary[place] == numbers) & present[place] if len(vocabulary) else np.zeros(len(numbers), np.bool_)

    pairs = np.array(is_pair, np.bool_)
    terms = place[known].tolist()
    weights = np.where(pairs[known], PAIR_WEIGHT, 1.0).tolist()
    labels = [labels_of.get(number, "") for number in numbers[known].tolist()]
    columns = list(has[:, known].T)
    kinds = pairs[known].tolist()
    missing = [at for at in np.flatnonzero(~known & ~pairs).tolist() if int(numbers[at]) in stems]
    unknown = len(missing)
    for at in missing[:_MAX_GUESSES] if guess else []:
        number = int(numbers[at])
        guesses = [each for each in guess(stems[number]) if each.term not in terms] if guess else []
        unknown -= bool(guesses)
        for each in guesses:
            terms.append(each.term)
            weights.append(GUESS_WEIGHT * each.likeness)
            labels.append(labels_of.get(number, ""))
            columns.append(has[:, at])
            kinds.append(False)
    return Request(
        texts=texts,
        terms=np.array(terms, np.int64),
        weights=np.array(weights, np.float64),
        is_pair=np.array(kinds, np.bool_),
        labels=tuple(labels),
        parts=np.stack(columns, axis=1) if columns else np.zeros((len(texts), 0), np.bool_),
        unknown=unknown,
        says_nothing=not seen,
    )


def _texts(queries: Sequence[str], *, with_clauses: bool) -> tuple[str, ...]:
    cleaned = [clean(query, limit=MAX_QUERY_CHARS) for query in queries[:MAX_CLAUSES]]
    whole = "\n".join(cleaned)[:MAX_QUERY_CHARS]
    if not with_clauses:
        return (whole,)
    if len(cleaned) == 1:
        return (whole, *clauses(whole))
    # Somebody who asks several things at once has already said what the clauses are.
    return (whole, *cleaned)
