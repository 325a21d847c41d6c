"""Rank documents for a request. `Ranker.search` has the steps; `silo.router.index_cache` keeps an index between starts.

Words match the text, vectors match the meaning. Their scores are added, each as a share of the best one (with ranks,
the weaker of the two would hide the stronger), and a linear model orders the first candidates. Whatever depends on more
than one tool is computed over the visible ones only.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from silo.router.compiled import Compiled, compile_documents, join, select
from silo.router.documents import FIELDS, ToolDocument, digest
from silo.router.index_cache import IndexDamaged, load, save
from silo.router.request import Guess, ParsedRequest, parse_request
from silo.router.rerank import FirstPass, RerankModel, RerankModelBroken, candidate_features, load_model
from silo.router.settings import RouterSettings
from silo.router.spelling import Spelling
from silo.router.table import TableBroken, TokenTable
from silo.router.text import Analyzer, plain_name, term_number
from silo.router.view import View, compute_view

CANDIDATES = 50
"""How many tools the model orders: 97 % of the right tools are among the first 50, and time grows with them."""

CLAUSE_WEIGHT = 0.6
MEANING_WEIGHT = 0.6
"""The weights of the best clause, and of the meaning, relative to the words of the whole request."""

OUTLINE = 96
"""Dimensions for the first pass over all documents: hardly one of 50 candidates changes, in a third of the time."""

USAGE_WEIGHT = 0.05
"""How much frequent use adds to a score, as a share of the best score: a tie-break. Twice as much already hurts."""

MAX_WHY = 3
MAX_WHY_WORDS = 6

_REMEMBERED = 10_000
"""How many words of requests are cached; people use the same few thousand."""

_VIEWS = 8
"""How many views are cached: one for each caller that searches at the same time."""


@dataclass(frozen=True)
class Hit:
    """A document that was found; see `silo.router.index.Match`."""

    id: str
    score: float
    why: tuple[str, ...]
    low_confidence: bool


class Ranker:
    """An index of documents. Immutable, except for its caches.

    Attributes:
        notes: problems that were worked around, for the log.
    """

    def __init__(
        self,
        compiled: Compiled,
        *,
        table: TokenTable | None,
        model: RerankModel | None,
        settings: RouterSettings,
        notes: Sequence[str] = (),
    ) -> None:
        self.notes = tuple(notes)
        self._compiled = compiled
        self._table = table if compiled.vectors.shape[1] else None
        self._model = model
        self._settings = settings
        self._owners = np.repeat(np.arange(len(compiled), dtype=np.int32), np.diff(compiled.starts))
        order = np.argsort(compiled.terms, kind="stable")
        self._rows = self._owners[order]
        self._impacts = compiled.impacts[order]
        counts = np.bincount(compiled.terms, minlength=len(compiled.vocabulary))
        self._posts = np.concatenate([[0], np.cumsum(counts)])
        self._outline = compiled.vectors[:, :OUTLINE].astype(np.float32)
        self._analyzer = Analyzer(remember=_REMEMBERED)
        self._views: OrderedDict[frozenset[str] | None, View] = OrderedDict()
        self._named: dict[str, list[int]] | None = None
        self._speller: tuple[Spelling, npt.NDArray[np.int64]] | None = None
        self._lock = threading.Lock()

    @classmethod
    def build(cls, documents: Sequence[ToolDocument], *, settings: RouterSettings, cache: Path | None = None) -> Ranker:
        """Build an index of documents from the cache; missing documents are compiled and added to the cache."""
        notes: list[str] = []
        table, model = _parts(settings, notes)
        identity = table.identity if table else b""
        if cache is None:
            return cls(compile_documents(documents, table), table=table, model=model, settings=settings, notes=notes)
        wanted = {digest(document): document for document in documents}
        kept: Compiled | None = None
        try:
            kept = load(cache, identity)
        except IndexDamaged as damage:
            notes.append(f"{damage}; it was rebuilt")
        compiled = _complete(kept, wanted, table)
        if kept is None or compiled is not kept:
            try:
                save(cache, compiled, identity)
            except OSError as error:
                notes.append(f"the index cannot be kept in {cache.name}: {error.strerror or error}")
        return cls(compiled, table=table, model=model, settings=settings, notes=notes)

    def changed(self, *, add: Sequence[ToolDocument] = (), remove: Collection[str] = ()) -> Ranker:
        """Return a ranker with documents added, replaced or removed; scores are the same as in a new one."""
        gone = {*remove, *(document.id for document in add)}
        stay = np.array([place for place, each in enumerate(self._compiled.ids) if each not in gone], np.int64)
        compiled = join(select(self._compiled, stay), compile_documents(add, self._table))
        return Ranker(compiled, table=self._table, model=self._model, settings=self._settings, notes=self.notes)

    def search(
        self,
        queries: Sequence[str],
        *,
        limit: int,
        visible: Collection[str] | None = None,
        usage: Mapping[str, int] | None = None,
    ) -> list[Hit]:
        """Return up to `limit` documents, best first, equal ones by id. See `silo.router.index.Index.search`."""
        if limit < 1 or not len(self._compiled):
            return []
        view = self._view(visible)
        request = self._request(queries, view)
        first = self._first_pass(request, view, count=max(CANDIDATES, limit))
        order = self._rank(request, view, first, usage or {})
        exact = self._exact(request.texts[0], view)
        found = {place: self._hit(order, at, request) for at, place in enumerate(order.places[: limit + len(exact)])}
        named = [found.pop(place, self._named_hit(place)) for place in exact]
        return [*(replace(hit, score=1.0, low_confidence=False) for hit in named), *found.values()][:limit]

    def word_scores(self, queries: Sequence[str], *, clause_weight: float) -> npt.NDArray[np.float32]:
        """Return the word scores of every document, in the order of their ids; for training."""
        view = self._view(None)
        words = self._word_scores(self._request(queries, view), view)
        tops = words.max(axis=1, keepdims=True)
        words /= np.where(tops > 0, tops, 1)
        total: npt.NDArray[np.float32] = words[0] + np.float32(clause_weight) * words[1:].max(axis=0, initial=0)
        return total

    def training_features(self, queries: Sequence[str], visible: Collection[str] | None = None) -> TrainingFeatures:
        """Return the features of the candidates, for training and for the ablation table."""
        view = self._view(visible)
        request = self._request(queries, view)
        first = self._first_pass(request, view, count=CANDIDATES)
        described = candidate_features(self._compiled, view, request, first)
        ids = [self._compiled.ids[place] for place in first.candidates.tolist()]
        return TrainingFeatures(ids, described.features, described.evidence)

    def _view(self, visible: Collection[str] | None) -> View:
        key = None if visible is None else frozenset(visible)
        with self._lock:
            view = self._views.get(key)
            if view is None:
                mask = None if key is None else np.array([each in key for each in self._compiled.ids], np.bool_)
                view = self._views[key] = compute_view(self._compiled, self._owners, mask)
                if len(self._views) > _VIEWS:
                    self._views.popitem(last=False)
            self._views.move_to_end(key)
            return view

    def _request(self, queries: Sequence[str], view: View) -> ParsedRequest:
        def guess(word: str) -> list[Guess]:
            spelling, terms = self._spelling()
            allowed = view.present[terms]
            return [Guess(int(terms[near.word]), near.likeness) for near in spelling.near(word, allowed)]

        return parse_request(
            queries,
            analyzer=self._analyzer,
            vocabulary=self._compiled.vocabulary,
            present=view.present,
            with_clauses=self._settings.clauses,
            guess=guess if self._settings.typos else None,
        )

    def _first_pass(self, request: ParsedRequest, view: View, *, count: int) -> FirstPass:
        """Score every document, and return the best as candidates."""
        words = self._word_scores(request, view)
        tops = words.max(axis=1, keepdims=True)
        words /= np.where(tops > 0, tops, 1)
        fused = words[0].copy()
        if len(words) > 1:
            fused += np.float32(CLAUSE_WEIGHT) * words[1:].max(axis=0)
        vectors = None
        if self._table is not None and not request.says_nothing:
            vectors, scales = self._table.embed_requests(request.texts)
            # Only the first dimensions, which say most; the candidates are compared with all of them below.
            meaning = self._outline @ vectors[0, : self._outline.shape[1]] * self._compiled.scales
            if view.mask is not None:
                meaning *= view.mask
            if (top := meaning.max()) > 0:
                fused += np.maximum(meaning, 0) * np.float32(MEANING_WEIGHT / top)
        candidates = _best(fused, count)
        if vectors is None:
            return FirstPass(words, tops[:, 0], candidates, None)
        return FirstPass(words, tops[:, 0], candidates, self._cosines(vectors, scales, candidates))

    def _word_scores(self, request: ParsedRequest, view: View) -> npt.NDArray[np.float32]:
        """Return the BM25F score of each text of the request and each document; 0 for invisible documents."""
        words = np.zeros((len(request.texts), len(self._compiled)), np.float32)
        posts = [slice(self._posts[term], self._posts[term + 1]) for term in request.terms.tolist()]
        rows = [self._rows[each] for each in posts]
        factors = (view.rarity[request.terms] * request.weights).astype(np.float32)
        worth = [self._impacts[each] * factor for each, factor in zip(posts, factors, strict=True)]
        for text, has in enumerate(request.parts):
            terms = has.nonzero()[0].tolist()
            if terms:
                # Adds each document's terms in the order of the request, so other documents do not change the sum.
                places, amounts = (
                    np.concatenate([rows[at] for at in terms]),
                    np.concatenate([worth[at] for at in terms]),
                )
                words[text] = np.bincount(places, amounts, len(self._compiled))
        if view.mask is not None:
            words *= view.mask
        return words

    def _cosines(
        self, vectors: npt.NDArray[np.float32], scales: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Return the cosines of each text of the request and some documents, 0 where negative."""
        # Sums of whole numbers below 2²⁴ are exact in any order, so BLAS may choose its own.
        products = vectors @ self._compiled.vectors[rows].astype(np.float32).T
        cosines: npt.NDArray[np.float32] = np.maximum(products * self._compiled.scales[rows] * scales[:, np.newaxis], 0)
        return cosines

    def _rank(self, request: ParsedRequest, view: View, first: FirstPass, usage: Mapping[str, int]) -> RankedCandidates:
        described = candidate_features(self._compiled, view, request, first)
        scores = np.zeros(len(first.candidates))
        # Column by column: the order of the sums in a matrix product may depend on the number of rows.
        for column, weight in enumerate(self._weights()):
            scores += weight * described.features[:, column]
        if usage and len(scores):
            calls = np.log1p([max(0, usage.get(self._compiled.ids[place], 0)) for place in first.candidates.tolist()])
            scores += USAGE_WEIGHT * scores.max() * calls / max(float(calls.max()), 1.0)
        by_score = np.argsort(-np.round(scores, 9), kind="stable")
        scores = scores[by_score]
        certainty, doubtful = self._certainty(described.evidence[by_score[0]]) if len(scores) else (0.0, 0.0)
        shares = np.maximum(scores, 0) / max(float(scores.max(initial=0)), 1e-9)
        return RankedCandidates(
            first.candidates[by_score].tolist(), certainty * shares, doubtful, described.fields[by_score]
        )

    def _hit(self, order: RankedCandidates, at: int, request: ParsedRequest) -> Hit:
        score = round(float(order.scores[at]), 6)
        return Hit(self._compiled.ids[order.places[at]], score, _why(request, order.fields[at]), score < order.doubtful)

    def _named_hit(self, place: int) -> Hit:
        return Hit(self._compiled.ids[place], 1.0, ("name",), False)

    def _weights(self) -> tuple[float, ...]:
        if self._model is None or not self._settings.rerank:
            # The weights of the first pass.
            return (1.0, CLAUSE_WEIGHT if self._settings.clauses else 0.0, MEANING_WEIGHT, *[0.0] * 7)
        return self._model.weights if self._table is not None else self._model.plain

    def _certainty(self, evidence: npt.NDArray[np.float64]) -> tuple[float, float]:
        """Return the probability that the best candidate is right, and the score below which a match is doubtful."""
        if self._model is None:
            return min(1.0, float(evidence[0])), 0.5
        total = self._model.bias + sum(float(a) * b for a, b in zip(evidence, self._model.evidence, strict=True))
        return float(1 / (1 + np.exp(-np.clip(total, -30, 30)))), self._model.doubtful

    def _exact(self, text: str, view: View) -> list[int]:
        """Return the documents whose id is the request, then those whose name is the request."""
        name = plain_name(text)
        if not name or len(text) > _MAX_NAME_CHARS:
            return []
        with self._lock:
            if self._named is None:
                self._named = {}
                for keys in (map(plain_name, self._compiled.ids), self._compiled.names):
                    for place, key in enumerate(keys):
                        if place not in (places := self._named.setdefault(key, [])):
                            places.append(place)
        return [place for place in self._named.get(name, ()) if view.mask is None or view.mask[place]]

    def _spelling(self) -> tuple[Spelling, npt.NDArray[np.int64]]:
        with self._lock:
            if self._speller is None:
                numbers = np.array([term_number(word) for word in self._compiled.words], np.uint64)
                self._speller = Spelling(self._compiled.words), np.searchsorted(self._compiled.vocabulary, numbers)
            return self._speller


@dataclass(frozen=True)
class RankedCandidates:
    """The candidates, best first.

    Attributes:
        places: the indices of the documents.
        scores: from 0 to 1.
        doubtful: a lower score is doubtful.
        fields: which of their fields have each term of the request, as bits; [candidates, terms].
    """

    places: list[int]
    scores: npt.NDArray[np.float64]
    doubtful: float
    fields: npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingFeatures:
    """The candidates of a request: their ids, `FEATURES` and `EVIDENCE`."""

    ids: list[str]
    features: npt.NDArray[np.float64]
    evidence: npt.NDArray[np.float64]


_MAX_NAME_CHARS = 200


def _parts(settings: RouterSettings, notes: list[str]) -> tuple[TokenTable | None, RerankModel | None]:
    table = model = None
    if settings.semantic:
        try:
            table = TokenTable.load()
        except TableBroken as broken:
            notes.append(f"the semantic part is off: {broken}")
    try:
        model = load_model()
    except RerankModelBroken as broken:
        notes.append(f"the rerank is off: {broken}")
    return table, model


def _complete(kept: Compiled | None, wanted: Mapping[bytes, ToolDocument], table: TokenTable | None) -> Compiled:
    """Return exactly the wanted documents: cached ones, and the rest compiled."""
    if kept is None:
        return compile_documents(list(wanted.values()), table)
    stay = np.array([place for place, each in enumerate(kept.digests) if each in wanted], np.int64)
    known = {kept.digests[place] for place in stay.tolist()}
    new = [document for each, document in wanted.items() if each not in known]
    if not new and len(stay) == len(kept):
        return kept
    return join(select(kept, stay), compile_documents(new, table))


def _best(scores: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    """Return the indices of the `count` highest scores above zero, ascending; of equal ones at the limit, the first."""
    if len(scores) <= count:
        return np.flatnonzero(scores > 0)
    edge = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > edge)
    if edge <= 0:
        return above
    return np.sort(np.concatenate([above, np.flatnonzero(scores == edge)[: count - len(above)]]))


def _why(request: ParsedRequest, fields: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """Return which fields have which words of the request; each word once, in the field with the highest weight."""
    words: dict[int, list[str]] = {}
    for at in np.flatnonzero(fields).tolist():
        label = request.labels[at]
        if label:
            bits = int(fields[at])
            field = max((f for f in range(len(FIELDS)) if bits >> f & 1), key=lambda f: FIELDS[f].weight)
            words.setdefault(field, []).append(label)
    best = sorted(words, key=lambda field: (-FIELDS[field].weight, field))[:MAX_WHY]
    return tuple(f"{FIELDS[field].name}: {', '.join(words[field][:MAX_WHY_WORDS])}" for field in best)
