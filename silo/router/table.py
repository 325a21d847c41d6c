"""The meaning of texts: a static table of vectors for word pieces, and the vectors of texts made from it.

`scripts/routing/distil.py` makes the table, which is part of silo; nothing is downloaded. Vectors have whole numbers
from -127 to 127, and products of two of them are summed exactly in float32 (256 × 127² < 2²⁴), so scores are the same
on every machine, in any order. `silo.router.ranker` ranks.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from silo.router.documents import DESCRIPTION, EXAMPLES, GROUP, NAME, PARAMETER_NAMES, TAGS, TITLE
from silo.router.text import raw_words
from silo.router.wordpiece import WordPieces

TABLE = Path(__file__).parent / "data" / "table.npz"
"""The table that is part of silo."""

MAX_PIECES = 200
"""How many pieces of a text make up its vector; a mean over more says little."""

READ = (NAME, GROUP, TITLE, DESCRIPTION, PARAMETER_NAMES, TAGS, EXAMPLES)
READ_WEIGHTS = np.array([1.0, 0.5, 1.0, 1.0, 0.2, 0.5, 0.25], np.float32)
"""The fields that make up a tool's vector, and their measured weights; descriptions of parameters would blur it."""

_MAX_ROWS = 65_536
_BATCH = 256


class TableBroken(Exception):
    """The table's file is missing or damaged; the ranking works without it."""


class TokenTable:
    """Vectors of word pieces.

    Args:
        vectors: int8 [pieces, dimensions].
        scales: the factor for each row, which includes the weight of the piece.
        emphasis: how much more or less a piece counts in a request than in a tool.
        vocabulary: the pieces.
        identity: 16 bytes that identify the table.
    """

    def __init__(
        self,
        vectors: npt.NDArray[np.int8],
        scales: npt.NDArray[np.float32],
        emphasis: npt.NDArray[np.float32],
        vocabulary: Sequence[str],
        identity: bytes,
    ) -> None:
        self.identity = identity
        self._vectors = vectors
        self._scales = scales
        self._emphasis = emphasis
        self._pieces = WordPieces(vocabulary)

    @property
    def dimensions(self) -> int:
        """How many numbers a vector has."""
        return int(self._vectors.shape[1])

    @classmethod
    def load(cls, path: Path = TABLE) -> TokenTable:
        """Read the table.

        Raises:
            TableBroken: the file is missing, damaged, or not a table.
        """
        try:
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                parts = [np.asarray(file[name]) for name in ("vectors", "scales", "emphasis", "vocabulary", "identity")]
            vectors, scales, emphasis = parts[:3]
            vocabulary = parts[3].tobytes().decode().split("\n")
            identity = parts[4].tobytes()
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TableBroken(f"{path.name} cannot be read: {error}") from error
        rows = len(vocabulary)
        fits = (
            vectors.dtype == np.int8
            and vectors.ndim == 2
            and 0 < vectors.shape[1] <= _MAX_DIMENSIONS
            and len(vectors) == rows <= _MAX_ROWS
            and all(part.dtype == np.float32 and part.shape == (rows,) for part in (scales, emphasis))
        )
        if (
            not fits
            or len(identity) != _IDENTITY_BYTES
            or not bool(np.isfinite(scales).all() and np.isfinite(emphasis).all())
        ):
            raise TableBroken(f"{path.name} does not hold a token table")
        return cls(vectors, scales, emphasis, vocabulary, identity)

    def embed_requests(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return the vectors of cleaned texts, one a row, and their scales; zeros where no piece is known."""
        pieces = [self._pieces.encode(raw_words(text))[:MAX_PIECES] for text in texts]
        sums = np.zeros((len(texts), self.dimensions), np.float32)
        rows = np.array([number for each in pieces for number in each], np.int64)
        if len(rows):
            known = [place for place, each in enumerate(pieces) if each]
            starts = np.cumsum([0, *(len(pieces[place]) for place in known)])[:-1]
            weights = self._scales[rows] * self._emphasis[rows]
            # Row after row, so the sum of one text does not depend on the others.
            sums[known] = np.add.reduceat(self._vectors[rows] * weights[:, np.newaxis], starts, axis=0)
        whole, scales = _whole(sums)
        return whole.astype(np.float32), np.where(whole.any(axis=1), scales, np.float32(0))

    def embed_documents(
        self, documents: Sequence[tuple[str, ...]]
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Return the vectors of tools, given their texts by field, and the scales that make their length 1."""
        sums = np.zeros((min(_BATCH, len(documents)), self.dimensions), np.float32)
        vectors = np.zeros((len(documents), self.dimensions), np.int8)
        scales = np.zeros(len(documents), np.float32)
        for start in range(0, len(documents), _BATCH):
            batch = documents[start : start + _BATCH]
            for place, fields in enumerate(batch):
                sums[place] = self._sum(fields)
            vectors[start : start + len(batch)], scales[start : start + len(batch)] = _whole(sums[: len(batch)])
        return vectors, scales

    def _sum(self, fields: tuple[str, ...]) -> npt.NDArray[np.float32]:
        numbers: list[int] = []
        counts = []
        for field in READ:
            pieces = self._pieces.encode(raw_words(fields[field]))[:MAX_PIECES]
            numbers += pieces
            counts.append(len(pieces))
        rows = np.array(numbers, np.int64)
        weights = self._scales[rows] * np.repeat(READ_WEIGHTS, counts)
        total: npt.NDArray[np.float32] = np.einsum("i,ij->j", weights, self._vectors[rows].astype(np.float32))
        return total


_MAX_DIMENSIONS = 256
_IDENTITY_BYTES = 16


def _whole(vectors: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round vectors to whole numbers, and return the scales that make their length 1."""
    top = np.abs(vectors).max(axis=1, keepdims=True)
    whole = np.rint(vectors / np.where(top > 0, top, 1) * 127)
    length = np.sqrt(np.einsum("ij,ij->i", whole, whole))
    return whole.astype(np.int8), (1 / np.where(length > 0, length, np.inf)).astype(np.float32)
