"""Train the linear rerank and its certainty on the development sets; cross-validate by leaving out each set in turn.

    python scripts/routing/train.py SETS --tables build/routing --out silo/router/data/rerank.json

`--tables` is the folder with the output of `distil.py`: for each set a table made without it (`t-metatool.npz`, …), and
for each pair of sets a table made without both (`t-bfcl+metatool.npz`, names in alphabetical order). A table is better
on the sets that it was tuned on than on others, so weights trained with it would rely on it too much. Therefore each
set is ranked with a table made without it, and, while another set is left out, with a table made without both.

The weights maximise recall@5, smoothed at the fifth place, by hill climbing on one weight at a time, with a penalty for
the distance from the start. It is the simplest method that works, and with ten weights it hardly overfits.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sets import DEVELOPMENT, PublicSet, read_set, rng

from silo.router.compiled import compile_documents
from silo.router.ranker import CANDIDATES, Ranker
from silo.router.rerank import EVIDENCE, FEATURES
from silo.router.settings import RouterSettings
from silo.router.table import TokenTable

START = {
    "words": 1.0,
    "clause_words": 0.6,
    "meaning_share": 0.5,
    "clause_meaning_share": 0.6,
    "name_in_request": 0.2,
    "group_in_request": 0.15,
    "description_in_request": 0.3,
    "request_in_parameters": 0.3,
    "pairs": 0.1,
    "rarest": 0.1,
}
"""Where the climb starts: the weights of the first pass, and small weights for the rest."""

STEPS = (0.2, 0.1, 0.05)
PENALTY = 0.01
"""The smoothed recall that it costs to move a weight by 1 from its start."""

SOFTNESS = 0.05
KEPT_SHARE = 0.9
"""The share of correctly answered requests that must not be marked as doubtful."""


@dataclass(frozen=True)
class RankedSet:
    """A set ranked with one table.

    Attributes:
        features: [requests, candidates, FEATURES].
        absent: which candidates don't exist, because fewer were found; [requests, candidates].
        right: which candidates are right; [requests, candidates].
        wanted: how many tools are right; [requests].
        evidence: [requests, candidates, EVIDENCE].
    """

    features: np.ndarray
    absent: np.ndarray
    right: np.ndarray
    wanted: np.ndarray
    evidence: np.ndarray


def main() -> None:
    """Cross-validate, train on all, write the coefficients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    sets = {name: read_set(args.sets, name) for name in DEVELOPMENT}
    cache: dict[tuple[str, str], RankedSet] = {}

    def ranked(name: str, table: str) -> RankedSet:
        if (name, table) not in cache:
            path = args.tables / f"t-{table}.npz"
            cache[name, table] = rank_set(sets[name], TokenTable.load(path) if table else None)
        return cache[name, table]

    fixed = np.array([START[name] for name in FEATURES])
    found: dict[str, dict[str, float]] = {"first pass": {}, "start": {}, "trained": {}, "without table": {}}
    bare = np.array([0.0 if "meaning" in name else START[name] for name in FEATURES])
    for held in DEVELOPMENT:
        others = [name for name in DEVELOPMENT if name != held]
        weights = climb([ranked(name, "+".join(sorted((name, held)))) for name in others], fixed)
        plain = climb([ranked(name, "") for name in others], bare)
        here = ranked(held, held)
        found["first pass"][held] = recall(here, np.array([1.0, 0.6, 0.6, *[0.0] * (len(FEATURES) - 3)]))
        found["start"][held] = recall(here, fixed)
        found["trained"][held] = recall(here, weights)
        found["without table"][held] = recall(ranked(held, ""), plain)
    for what, figures in found.items():
        row = "  ".join(f"{name} {figures[name]:.4f}" for name in DEVELOPMENT)
        print(f"left out, {what:14} {row}  mean {np.mean(list(figures.values())):.4f}")
    weights = climb([ranked(name, name) for name in DEVELOPMENT], fixed)
    plain = climb([ranked(name, "") for name in DEVELOPMENT], bare)
    evidence, bias, doubtful = certainty(sets, args.tables, [ranked(name, name) for name in DEVELOPMENT], weights)
    model = {
        "weights": _rounded(FEATURES, weights),
        "plain": _rounded(FEATURES, plain),
        "evidence": _rounded(EVIDENCE, evidence),
        "bias": round(bias, 4),
        "doubtful": round(doubtful, 4),
        "left_out": {what: _rounded(tuple(figures), list(figures.values())) for what, figures in found.items()},
    }
    text = json.dumps(model, indent=2) + "\n"
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


def rank_set(each: PublicSet, table: TokenTable | None) -> RankedSet:
    """Rank a set's requests, and keep the features of the candidates."""
    settings = RouterSettings(semantic=table is not None)
    ranker = Ranker(compile_documents(each.documents, table), table=table, model=None, settings=settings)
    features = np.zeros((len(each.requests), CANDIDATES, len(FEATURES)), np.float32)
    evidence = np.zeros((len(each.requests), CANDIDATES, len(EVIDENCE)), np.float32)
    absent = np.ones(features.shape[:2], bool)
    right = np.zeros(features.shape[:2], bool)
    for row, (request, wanted) in enumerate(zip(each.requests, each.wanted, strict=True)):
        examined = ranker.training_features([request])
        count = len(examined.ids)
        names = {each.documents[place].id for place in wanted}
        features[row, :count] = examined.features
        evidence[row, :count] = examined.evidence
        absent[row, :count] = False
        right[row, :count] = [name in names for name in examined.ids]
    return RankedSet(features, absent, right, np.array([len(wanted) for wanted in each.wanted]), evidence)


def scores(ranked: RankedSet, weights: np.ndarray) -> np.ndarray:
    """Score the candidates; absent ones come last."""
    found: np.ndarray = ranked.features @ weights.astype(np.float32)
    found[ranked.absent] = -9
    return found


def recall(ranked: RankedSet, weights: np.ndarray) -> float:
    """Recall@5."""
    top = np.argsort(-scores(ranked, weights), axis=1, kind="stable")[:, :5]
    return float((np.take_along_axis(ranked.right, top, axis=1).sum(axis=1) / ranked.wanted).mean())


def climb(sets: list[RankedSet], start: np.ndarray) -> np.ndarray:
    """Maximise the sets' mean smoothed recall by hill climbing from the start; the first weight stays fixed."""

    def height(weights: np.ndarray) -> float:
        total = 0.0
        for ranked in sets:
            found = scores(ranked, weights)
            edge = np.partition(found, (CANDIDATES - 6, CANDIDATES - 5), axis=1)
            middle = (edge[:, CANDIDATES - 6] + edge[:, CANDIDATES - 5]) / 2
            inside = 1 / (1 + np.exp(-np.clip((found - middle[:, np.newaxis]) / SOFTNESS, -30, 30)))
            total += float(((inside * ranked.right).sum(axis=1) / ranked.wanted).mean())
        return total / len(sets) - PENALTY * float(np.abs(weights - start).sum())

    weights, best = start.copy(), height(start)
    for step in STEPS:
        for place in range(1, len(weights)):
            for way in (step, -step):
                tried = weights.copy()
                tried[place] = max(0.0, tried[place] + way)
                if (reached := height(tried)) > best:
                    weights, best = tried, reached
    return weights


def certainty(
    sets: dict[str, PublicSet], tables: Path, own: list[RankedSet], weights: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """Fit the probability that the best candidate is right.

    The label is 1 if it is right, and 0 if it is wrong or the request was ranked among another set's tools.
    """
    rows, labels = [], []
    for ranked in own:
        best = scores(ranked, weights).argmax(axis=1)
        take = np.arange(len(best))
        rows.append(ranked.evidence[take, best])
        labels.append(ranked.right[take, best].astype(float))
    asked = np.concatenate([np.ones(len(row), bool) for row in rows])
    unrelated = []
    for name, other in (
        ("metatool", "rapidapi"),
        ("rapidapi", "bfcl"),
        ("bfcl", "metatool"),
        ("sealtools", "metatool"),
    ):
        requests = list(rng("strangers", name).choice(sets[name].requests, 250, replace=False))
        foreign = PublicSet(other, sets[other].documents, requests, [[0]] * len(requests))
        ranked = rank_set(foreign, TokenTable.load(tables / f"t-{'+'.join(sorted((name, other)))}.npz"))
        unrelated.append(ranked.evidence[np.arange(len(requests)), scores(ranked, weights).argmax(axis=1)])
    x = np.concatenate([*rows, *unrelated]).astype(np.float64)
    y = np.concatenate([*labels, *[np.zeros(len(each)) for each in unrelated]])
    asked = np.concatenate([asked, np.zeros(len(x) - len(asked), bool)])
    # Every source has the same weight, however many requests it has.
    share = np.concatenate([np.full(len(each), 1 / len(each)) for each in (*rows, *unrelated)])
    x1 = np.column_stack([x, np.ones(len(x))])
    fit = np.zeros(x1.shape[1])
    for _ in range(50):  # Newton's method; converges in ten
        chance = 1 / (1 + np.exp(-(x1 @ fit)))
        gradient = x1.T @ (share * (chance - y)) + 1e-3 * fit
        fit -= np.linalg.solve(
            (x1 * (share * chance * (1 - chance))[:, None]).T @ x1 + 1e-3 * np.eye(len(fit)), gradient
        )
    chance = 1 / (1 + np.exp(-(x1 @ fit)))
    doubtful = float(np.quantile(chance[asked & (y == 1)], 1 - KEPT_SHARE))
    shares = {
        "unrelated": np.mean(chance[~asked] < doubtful),
        "wrong": np.mean(chance[asked & (y == 0)] < doubtful),
        "right": 1 - KEPT_SHARE,
    }
    print(f"doubtful below {doubtful:.3f}:", ", ".join(f"{share:.2f} of the {what}" for what, share in shares.items()))
    return fit[:-1], float(fit[-1]), doubtful


def _rounded(names: tuple[str, ...], values: np.ndarray | list[float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in zip(names, values, strict=True)}


if __name__ == "__main__":
    main()
