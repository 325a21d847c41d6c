"""What `silo bench routing` compares with: plain BM25 of `bm25s` and TF-IDF of scikit-learn, if they are installed.

They are not dependencies of silo; `uv sync --group routing-bench` installs them. For a fair comparison, both get all
texts that the router gets, as one field, with names split. `scripts/routing/minilm.py` measures MiniLM.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from silo.router.documents import texts
from silo.router.evaluation import document_of
from silo.router.text import raw_words, spoken


class Baseline(Protocol):
    """An index of one set."""

    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        """Return the ids of the first `k` tools, with their scores."""
        ...


def baselines() -> dict[str, Callable[[Sequence[Mapping[str, Any]]], Baseline]]:
    """Return the baselines that can be measured here, by name."""
    found: dict[str, Callable[[Sequence[Mapping[str, Any]]], Baseline]] = {}
    if importlib.util.find_spec("bm25s"):
        found["BM25 (bm25s)"] = _Bm25
    if importlib.util.find_spec("sklearn"):
        found["TF-IDF (scikit-learn)"] = _TfIdf
    return found


class _Bm25:
    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        bm25s: Any = importlib.import_module("bm25s")
        self._ids = [tool["id"] for tool in tools]
        self._index = bm25s.BM25()
        self._index.index([_text(tool).split() for tool in tools], show_progress=False)

    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        places, scores = self._index.retrieve([_split(query).split()], k=min(k, len(self._ids)), show_progress=False)
        return [(self._ids[place], float(score)) for place, score in zip(places[0], scores[0], strict=True)]


class _TfIdf:
    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        text: Any = importlib.import_module("sklearn.feature_extraction.text")
        self._ids = [tool["id"] for tool in tools]
        self._vectorizer = text.TfidfVectorizer(stop_words="english", sublinear_tf=True)
        self._matrix = self._vectorizer.fit_transform([_text(tool) for tool in tools])

    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        scores = (self._matrix @ self._vectorizer.transform([_split(query)]).T).toarray().ravel()
        best = sorted(range(len(scores)), key=lambda place: (-scores[place], self._ids[place]))[:k]
        return [(self._ids[place], float(scores[place])) for place in best]


def _text(tool: Mapping[str, Any]) -> str:
    return _split(" ".join(texts(document_of(tool))))


def _split(text: str) -> str:
    return " ".join(part.lower() for word in raw_words(text) for part in spoken(word))
