"""The features of a request and a candidate, and the linear model over them that orders the candidates.

`scripts/routing/train.py` makes the coefficients in `data/rerank.json` from the development sets. The model is linear
and small, because models that fitted those sets better did worse on unseen sets.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from silo.router.compiled import Compiled
from silo.router.documents import DESCRIPTION, GROUP, NAME, PARAMETERS
from silo.router.request import ParsedRequest
from silo.router.view import View

Floats = npt.NDArray[np.float64]

MODEL = Path(__file__).parent / "data" / "rerank.json"
"""The model that is part of silo."""

FEATURES = (
    "words",  # BM25F of the whole request, as a share of the best
    "clause_words",  # of its best clause
    "meaning_share",  # cosine with the whole request, as a share of the best
    "clause_meaning_share",  # with its best clause
    "name_in_request",  # how much of the tool's name the request has, by rarity
    "group_in_request",
    "description_in_request",
    "request_in_parameters",  # how much of the request the tool's parameters have
    "pairs",  # how many of the request's pairs of words the tool has
    "rarest",  # whether it has the rarest word of the request
)

EVIDENCE = ("cover", "meaning", "words_top")
"""The features that tell whether the best candidate fits at all: the share of the request that it has, its cosine, and
its BM25F score in units of one rare word's score, which makes it comparable between small and large catalogues."""


@dataclass(frozen=True)
class RerankModel:
    """The coefficients.

    Attributes:
        weights: for `FEATURES`.
        plain: for `FEATURES` without a token table.
        evidence: for `EVIDENCE`; with `bias`, they give the probability that the best candidate is right.
        bias: see `evidence`.
        doubtful: a match with a lower score is marked as doubtful.
    """

    weights: tuple[float, ...]
    plain: tuple[float, ...]
    evidence: tuple[float, ...]
    bias: float
    doubtful: float


class RerankModelBroken(Exception):
    """The model's file is missing or damaged; the ranking works without it."""


def load_model(path: Path = MODEL) -> RerankModel:
    """Read the coefficients.

    Raises:
        RerankModelBroken: the file is missing, damaged, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        model = RerankModel(
            weights=_numbers(content["weights"], FEATURES),
            plain=_numbers(content["plain"], FEATURES),
            evidence=_numbers(content["evidence"], EVIDENCE),
            bias=_number(content["bias"]),
            doubtful=_number(content["doubtful"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RerankModelBroken(f"{path.name} cannot be read: {error}") from error
    return model


def _numbers(content: Mapping[str, Any], names: tuple[str, ...]) -> tuple[float, ...]:
    if set(content) != set(names):
        raise ValueError("it is of another version")
    return tuple(_number(content[name]) for name in names)


def _number(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a coefficient isn't a number")
    return float(value)


@dataclass(frozen=True)
class FirstPass:
    """The result of the first pass over all documents.

    Attributes:
        words: BM25F score of each text of the request, each row divided by its maximum; [texts, n].
        tops: those maxima.
        candidates: indices of the documents that the model orders, ascending.
        meaning: cosines of each text of the request and each candidate, 0 where negative; None without a table.
    """

    words: npt.NDArray[np.float32]
    tops: npt.NDArray[np.float32]
    candidates: npt.NDArray[np.int64]
    meaning: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class CandidateFeatures:
    """The features of the candidates.

    Attributes:
        features: [candidates, FEATURES].
        evidence: [candidates, EVIDENCE].
        fields: which fields of a candidate have a term of the request, as bits; [candidates, terms].
    """

    features: Floats
    evidence: Floats
    fields: npt.NDArray[np.int64]


def candidate_features(compiled: Compiled, view: View, request: ParsedRequest, first: FirstPass) -> CandidateFeatures:
    """Return the features of the candidates."""
    rows = first.candidates
    fields = _fields(compiled, request, rows)
    has = fields > 0
    rarity = view.rarity[request.terms].astype(np.float64)
    single = np.where(request.is_pair, 0.0, rarity * request.weights)
    paired = np.where(request.is_pair, rarity, 0.0)
    wanted = max(float(single.sum()), _LEAST)
    name, group, description = view.sums[rows].astype(np.float64).T

    def inside(field: int, worth: Floats) -> Floats:
        found: Floats = ((fields >> field) & 1) @ worth
        return found

    clauses = slice(1, None) if len(request.texts) > 1 else slice(0, 1)
    if first.meaning is None:
        meaning = share = clause_share = np.zeros(len(rows))
    else:
        cosines = first.meaning.astype(np.float64)
        shares = cosines / np.maximum(cosines.max(axis=1, keepdims=True, initial=0), _LEAST)
        meaning, share, clause_share = cosines[0], shares[0], shares[clauses].max(axis=0)
    features = np.stack(
        [
            first.words[0, rows],
            first.words[clauses][:, rows].max(axis=0),
            share,
            clause_share,
            inside(NAME, rarity) / np.maximum(name, _LEAST),
            inside(GROUP, rarity) / np.maximum(group, _LEAST),
            inside(DESCRIPTION, rarity) / np.maximum(description, _LEAST),
            inside(PARAMETERS, single) / wanted,
            has @ paired / max(float(paired.sum()), _LEAST),
            (has * single).max(axis=1, initial=0) / max(float(single.max(initial=0)), _LEAST),
        ],
        axis=1,
    )
    # A word that no tool has counts as much as one that a single tool has.
    missed = request.unknown * view.rarest
    evidence = np.stack(
        [
            has @ single / max(float(single.sum()) + missed, _LEAST),
            meaning,
            np.log1p(first.words[0, rows].astype(np.float64) * float(first.tops[0]) / view.rarest),
        ],
        axis=1,
    )
    return CandidateFeatures(features, evidence, fields)


def _fields(compiled: Compiled, request: ParsedRequest, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    fields = np.zeros((len(rows), len(request.terms)), np.int64)
    if not fields.size:
        return fields
    starts = compiled.starts[rows]
    counts = compiled.starts[rows + 1] - starts
    entries = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    candidate = np.repeat(np.arange(len(rows)), counts)
    order = np.argsort(request.terms, kind="stable")
    ordered = request.terms[order]
    terms = compiled.terms[entries]
    place = np.minimum(np.searchsorted(ordered, terms), len(ordered) - 1)
    hit = np.flatnonzero(ordered[place] == terms)
    fields[candidate[hit], order[place[hit]]] = compiled.fields[entries[hit]]
    return fields


_LEAST = 1e-9
"""Avoids a division by zero; the dividend is zero in that case too."""
