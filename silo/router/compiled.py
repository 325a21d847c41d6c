"""Documents as arrays: how much each term adds to each tool, and each tool's vector, independent of all other tools.

So the catalogue can change, or a tool can be hidden, without changing the score of another tool: `silo.router.view`
weighs terms by their rarity among the visible tools when a request comes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from silo.router.documents import FIELDS, ToolDocument, digest, texts
from silo.router.table import TokenTable
from silo.router.text import Analyzer, plain_name, term_number

K1 = 1.4
"""How soon repeats of a word stop counting (Robertson and Zaragoza 2009, §3.4); 0.6 to 2.5 makes no difference here."""

MAX_FIELD_TERMS = 400
"""How many words of a field are indexed."""

_MIX = 0x9E3779B97F4A7C15
"""An odd number without a pattern (2⁶⁴ divided by the golden ratio), so that reversing a pair gives another term."""


@dataclass(frozen=True)
class Compiled:
    """Documents, sorted by id everywhere but inside of `join`.

    An entry is one term in one document.

    Attributes:
        ids: ids of the documents.
        names: their plain names, for exact look-ups.
        digests: digests of the documents, 16 bytes each.
        vocabulary: the numbers of all terms, sorted, so that the order of a document's terms does not depend on other
            documents.
        words: the spelling of the terms that are single words, for correcting misspelt words of a request.
        starts: where each document's entries start, and where the last one's end; [n + 1].
        terms: index in `vocabulary` of each entry's term, ascending within a document.
        impacts: how much each entry adds to the document's score, before the term's rarity, from 0 to 1.
        fields: the fields of the document that have the entry's term, as bits.
        vectors: int8 [n, dimensions]; without a table, [n, 0].
        scales: the factors that make the vectors of length 1.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    digests: tuple[bytes, ...]
    vocabulary: npt.NDArray[np.uint64]
    words: tuple[str, ...]
    starts: npt.NDArray[np.int64]
    terms: npt.NDArray[np.int32]
    impacts: npt.NDArray[np.float32]
    fields: npt.NDArray[np.uint16]
    vectors: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


def compile_documents(documents: Sequence[ToolDocument], table: TokenTable | None) -> Compiled:
    """Compile documents, sorted by id; of two with the same id, the later one counts."""
    documents = sorted({document.id: document for document in documents}.values(), key=lambda document: document.id)
    analyzer = Analyzer(remember=sys.maxsize)
    entries = []
    vectors, scales = [np.zeros((0, table.dimensions if table else 0), np.int8)], [np.zeros(0, np.float32)]
    for start in range(0, len(documents), _BATCH):
        fields = [texts(document) for document in documents[start : start + _BATCH]]
        entries.append(_entries(_tokens(fields, analyzer), len(fields)))
        if table is not None:
            found = table.embed_documents(fields)
            vectors.append(found[0])
            scales.append(found[1])
    numbers = np.concatenate([np.zeros(0, np.uint64), *(each.numbers for each in entries)])
    vocabulary = np.unique(numbers)
    counts = np.concatenate([np.zeros(1, np.int64), *(each.counts for each in entries)])
    return Compiled(
        ids=tuple(document.id for document in documents),
        names=tuple(plain_name(document.name) for document in documents),
        digests=tuple(digest(document) for document in documents),
        vocabulary=vocabulary,
        words=_words_in(analyzer.stems(), vocabulary),
        starts=np.cumsum(counts),
        terms=np.searchsorted(vocabulary, numbers).astype(np.int32),
        impacts=np.concatenate([np.zeros(0, np.float32), *(each.impacts for each in entries)]),
        fields=np.concatenate([np.zeros(0, np.uint16), *(each.fields for each in entries)]),
        vectors=np.concatenate(vectors) if table else np.zeros((len(documents), 0), np.int8),
        scales=np.concatenate(scales) if table else np.zeros(len(documents), np.float32),
    )


def select(compiled: Compiled, rows: npt.NDArray[np.int64]) -> Compiled:
    """Return the documents of some rows, which are ascending; terms that none of them has are dropped."""
    counts = np.diff(compiled.starts)[rows]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    entries = np.repeat(compiled.starts[rows] - starts[:-1], counts) + np.arange(starts[-1])
    used, terms = np.unique(compiled.terms[entries], return_inverse=True)
    vocabulary = compiled.vocabulary[used]
    return Compiled(
        ids=tuple(compiled.ids[row] for row in rows.tolist()),
        names=tuple(compiled.names[row] for row in rows.tolist()),
        digests=tuple(compiled.digests[row] for row in rows.tolist()),
        vocabulary=vocabulary,
        words=_words_in(compiled.words, vocabulary),
        starts=starts,
        terms=terms.astype(np.int32),
        impacts=compiled.impacts[entries],
        fields=compiled.fields[entries],
        vectors=compiled.vectors[rows],
        scales=compiled.scales[rows],
    )


def join(one: Compiled, other: Compiled) -> Compiled:
    """Return the documents of both, which have no id in common."""
    ids = (*one.ids, *other.ids)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    vocabulary = np.union1d(one.vocabulary, other.vocabulary)
    terms = np.concatenate([np.searchsorted(vocabulary, each.vocabulary)[each.terms] for each in (one, other)]).astype(
        np.int32
    )
    both = Compiled(
        ids=ids,
        names=(*one.names, *other.names),
        digests=(*one.digests, *other.digests),
        vocabulary=vocabulary,
        words=tuple(sorted({*one.words, *other.words})),
        starts=np.concatenate([one.starts, one.starts[-1] + other.starts[1:]]),
        terms=terms,
        impacts=np.concatenate([one.impacts, other.impacts]),
        fields=np.concatenate([one.fields, other.fields]),
        vectors=np.concatenate([one.vectors, other.vectors]),
        scales=np.concatenate([one.scales, other.scales]),
    )
    return select(both, np.array(order, np.int64))


def _words_in(words: Sequence[str], vocabulary: npt.NDArray[np.uint64]) -> tuple[str, ...]:
    if not len(vocabulary):
        return ()
    numbers = np.array([term_number(word) for word in words], np.uint64)
    place = np.minimum(np.searchsorted(vocabulary, numbers), len(vocabulary) - 1)
    return tuple(word for word, known in zip(words, vocabulary[place] == numbers, strict=True) if known)


def pair(before: int, after: int) -> int:
    """Return the term of two neighbouring words: words that belong together say more than the same words apart."""
    return (before * _MIX + after) % 2**64


def _pairs(before: npt.NDArray[np.uint64], after: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """`pair` of many."""
    with np.errstate(over="ignore"):
        return before * np.uint64(_MIX) + after


_BATCH = 1000
"""Documents that are compiled at a time, which takes a tenth of the memory of compiling all at once."""


@dataclass(frozen=True)
class _Tokens:
    """Every term of every field, repeats included: its number, and the index of its document × field."""

    numbers: npt.NDArray[np.uint64]
    cells: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Entries:
    """The entries of all documents, sorted by document and term number, and how many each document has."""

    counts: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.uint64]
    impacts: npt.NDArray[np.float32]
    fields: npt.NDArray[np.uint16]


def _tokens(fields: Sequence[tuple[str, ...]], analyzer: Analyzer) -> _Tokens:
    parts: list[int] = []
    part_counts: list[int] = []
    wholes: list[int] = []
    whole_counts: list[int] = []
    for document in fields:
        for text in document:
            if not text:
                part_counts.append(0)
                whole_counts.append(0)
                continue
            found = analyzer.terms(text)
            del found.parts[MAX_FIELD_TERMS:], found.wholes[MAX_FIELD_TERMS:]
            parts += found.parts
            wholes += found.wholes
            part_counts.append(len(found.parts))
            whole_counts.append(len(found.wholes))
    cells = np.arange(len(part_counts))
    part_numbers = np.array(parts, np.uint64)
    part_cells = np.repeat(cells, part_counts)
    same = part_cells[1:] == part_cells[:-1]
    pairs = _pairs(part_numbers[:-1], part_numbers[1:])[same]
    return _Tokens(
        np.concatenate([part_numbers, pairs, np.array(wholes, np.uint64)]),
        np.concatenate([part_cells, part_cells[1:][same], np.repeat(cells, whole_counts)]),
    )


def _entries(tokens: _Tokens, documents: int) -> _Entries:
    """BM25F (Robertson and Zaragoza 2009, §3.6): one saturation for the weighted sum over fields."""
    vocabulary, term = np.unique(tokens.numbers, return_inverse=True)
    lengths = np.bincount(tokens.cells, minlength=documents * len(FIELDS))
    place, field = np.divmod(tokens.cells, len(FIELDS))
    # One number for each (document, term, field); counting equal ones gives the term frequencies in one pass.
    size = max(1, len(vocabulary))
    keys, counts = np.unique((place * size + term) * len(FIELDS) + field, return_counts=True)
    if not len(keys):
        nothing = np.zeros(0, np.uint64)
        return _Entries(np.zeros(documents, np.int64), nothing, nothing.astype(np.float32), nothing.astype(np.uint16))
    cell, field = np.divmod(keys, len(FIELDS))
    place = cell // size
    weights = np.array([each.weight for each in FIELDS])
    b = np.array([each.b for each in FIELDS])
    usual = np.array([each.length for each in FIELDS])
    length = lengths[place * len(FIELDS) + field]
    # Repeats count by their logarithm already here: a text that repeats everything sixty times is longer by the same
    # factor, so normalisation by length alone would not penalise it.
    mass = weights[field] * (1 + np.log(counts)) / (1 - b[field] + b[field] * length / usual[field])
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    total = np.add.reduceat(mass, first)
    return _Entries(
        counts=np.bincount(place[first], minlength=documents),
        numbers=vocabulary[cell[first] % size],
        impacts=(total / (K1 + total)).astype(np.float32),
        fields=np.bitwise_or.reduceat(1 << field, first).astype(np.uint16),
    )
