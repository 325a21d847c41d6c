"""Parse a request: its clauses, and the terms of the index in each. `silo.router.ranker` scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from silo.router.cleaning import clean
from silo.router.compiled import pair
from silo.router.text import MAX_CLAUSES, MAX_QUERY_CHARS, Analyzer, clauses

PAIR_WEIGHT = 0.6
"""The weight of a pair of neighbouring words, in addition to its two words."""

GUESS_WEIGHT = 0.6
"""The weight of a word that is only similar to one in the request, multiplied by the likeness."""

_MAX_GUESSES = 8
"""How many misspelt words are looked up; in a request in another language, every word looks misspelt."""


@dataclass(frozen=True)
class ParsedRequest:
    """A request, parsed for one index.

    Attributes:
        texts: the whole request first, then its clauses, cleaned.
        terms: indices in the vocabulary, distinct, in the order of the request; only terms that a visible tool has.
        weights: the weight of each term, before its rarity.
        is_pair: whether each term is a pair of words.
        labels: the original word of each term; empty for pairs.
        parts: which of `texts` has which term; [texts, terms].
        unknown: how many words neither occur in a visible tool nor resemble a word that does.
        says_nothing: it has only filler words, so any similarity is chance.
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
    """A term that a misspelt word may mean: its index in the vocabulary, and its likeness."""

    term: int
    likeness: float


def parse_request(
    queries: Sequence[str],
    *,
    analyzer: Analyzer,
    vocabulary: npt.NDArray[np.uint64],
    present: npt.NDArray[np.bool_],
    with_clauses: bool,
    guess: Callable[[str], Sequence[Guess]] | None,
) -> ParsedRequest:
    """Parse a request.

    Args:
        queries: one request, or several that belong together.
        analyzer: splits texts into terms.
        vocabulary: all terms of the index, sorted.
        present: which of them a visible tool has.
        with_clauses: parse the clauses as well.
        guess: returns similar words for the stem of an unknown word; None: unknown words are ignored.
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
    return ParsedRequest(
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
    # Several queries are already separate clauses.
    return (whole, *cleaned)
