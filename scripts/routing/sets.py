"""Read the public sets of tools and requests from disk; `fetch.py` has their sources."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from silo.router.cleaning import clean
from silo.router.documents import ToolDocument, texts
from silo.router.evaluation import document_of
from silo.router.table import MAX_PIECES, READ, READ_WEIGHTS
from silo.router.text import MAX_QUERY_CHARS, raw_words
from silo.router.wordpiece import WordPieces

DEVELOPMENT = ("metatool", "sealtools", "bfcl", "rapidapi")
DISTRACTORS = "distractors"
SEED = 20261125


@dataclass(frozen=True)
class PublicSet:
    """Tools in the order of their ids, requests, and the positions of the tools that each request needs."""

    name: str
    documents: list[ToolDocument]
    requests: list[str]
    wanted: list[list[int]]


def read_set(folder: Path, name: str) -> PublicSet:
    """Read one set; a set of distractors has no requests."""
    documents = sorted((document_of(tool) for tool in _lines(folder / name / "tools.jsonl")), key=lambda each: each.id)
    places = {document.id: place for place, document in enumerate(documents)}
    path = folder / name / "queries.jsonl"
    queries = _lines(path) if path.exists() else []
    return PublicSet(
        name,
        documents,
        [query["query"] for query in queries],
        [sorted({places[each] for each in query["relevant"]}) for query in queries],
    )


def sentence(document: ToolDocument) -> str:
    """A tool as a sentence for the teacher: its name, split into words, and its description."""
    name = re.sub(r"[_\-./:]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", document.name))
    return clean(f"{name}: {document.description}", limit=800)


def request_bags(
    requests: Sequence[str], pieces: WordPieces, *, limit: int = MAX_QUERY_CHARS
) -> scipy.sparse.csr_matrix:
    """Return requests as counts of word pieces; [requests, pieces]."""
    return _matrix([[(_encode(pieces, clean(each, limit=limit)), 1.0)] for each in requests], pieces)


def tool_bags(documents: Sequence[ToolDocument], pieces: WordPieces) -> scipy.sparse.csr_matrix:
    """Return tools as counts of word pieces, with the weights of `TokenTable.embed_documents`."""
    rows = []
    for document in documents:
        fields = texts(document)
        rows.append(
            [(_encode(pieces, fields[field]), float(weight)) for field, weight in zip(READ, READ_WEIGHTS, strict=True)]
        )
    return _matrix(rows, pieces)


def rng(*purpose: object) -> np.random.Generator:
    """A generator that depends only on the seed and its purpose."""
    return np.random.default_rng([SEED, zlib.crc32(repr(purpose).encode())])


def _encode(pieces: WordPieces, text: str) -> list[int]:
    return pieces.encode(raw_words(text))[:MAX_PIECES]


def _matrix(rows: list[list[tuple[list[int], float]]], pieces: WordPieces) -> scipy.sparse.csr_matrix:
    numbers: list[int] = []
    weights: list[float] = []
    ends = [0]
    for row in rows:
        for found, weight in row:
            numbers += found
            weights += [weight] * len(found)
        ends.append(len(numbers))
    matrix = scipy.sparse.csr_matrix(
        (np.array(weights, np.float32), np.array(numbers, np.int32), np.array(ends)), shape=(len(rows), len(pieces))
    )
    matrix.sum_duplicates()
    return matrix


def _lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]
