"""The file that keeps an index between starts: numpy's own format, uncompressed. Loading checks every number.

It is only a cache: if it is damaged, the index is built again from the tools.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from silo.router.compiled import K1, MAX_FIELD_TERMS, Compiled
from silo.router.documents import FIELDS

VERSION = 1
"""Increase it when the code compiles the same tools differently; `_stamp` has the constants already."""

MAX_BYTES = 2 << 30
"""100,000 tools take 200 MB."""

_DIGEST_BYTES = 16
_PARTS = {
    "ids": np.uint8,
    "names": np.uint8,
    "words": np.uint8,
    "digests": np.uint8,
    "vocabulary": np.uint64,
    "starts": np.int64,
    "terms": np.int32,
    "impacts": np.float32,
    "fields": np.uint16,
    "vectors": np.int8,
    "scales": np.float32,
}


class IndexDamaged(Exception):
    """The file exists, but is damaged."""


def load(path: Path, table: bytes) -> Compiled | None:
    """Return the saved index, or None if there is none, or if it is of another version or another table.

    Raises:
        IndexDamaged: the file isn't from `save`.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise IndexDamaged(f"the index {path.name} is larger than it can be")
        with zipfile.ZipFile(path) as archive:
            if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
                raise IndexDamaged(f"the index {path.name} is damaged")
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            if np.asarray(file["stamp"]).tobytes() != _stamp(table):
                return None
            parts = {name: np.asarray(file[name]) for name in _PARTS}
        compiled = _unpack(parts)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise IndexDamaged(f"the index {path.name} is damaged") from error
    if not _is_sound(compiled):
        raise IndexDamaged(f"the index {path.name} is damaged")
    return compiled


def save(path: Path, compiled: Compiled, table: bytes) -> None:
    """Save an index atomically, readable by its owner only.

    Raises:
        OSError: the file can't be written.
    """
    parts: dict[str, npt.NDArray[np.generic]] = {
        "stamp": np.frombuffer(_stamp(table), np.uint8),
        "ids": _pack(compiled.ids),
        "names": _pack(compiled.names),
        "words": _pack(compiled.words),
        "digests": np.frombuffer(b"".join(compiled.digests), np.uint8),
    }
    for name in _PARTS:
        if name not in parts:
            parts[name] = getattr(compiled, name)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, allow_pickle=False, **parts)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _stamp(table: bytes) -> bytes:
    return f"{VERSION} {K1} {MAX_FIELD_TERMS} {FIELDS} {table.hex()}".encode()


def _pack(texts: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    # JSON escapes everything that an untrusted name may have, such as lone surrogates.
    return np.frombuffer(json.dumps(texts).encode(), np.uint8)


def _unpack_texts(packed: npt.NDArray[np.generic]) -> tuple[str, ...]:
    texts = json.loads(packed.tobytes())
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError("a list of texts is something else")
    return tuple(texts)


def _unpack(parts: dict[str, npt.NDArray[np.generic]]) -> Compiled:
    for name, kind in _PARTS.items():
        if parts[name].dtype != kind or parts[name].ndim != (2 if name == "vectors" else 1):
            raise ValueError(f"{name} is of another kind")
    digests = parts["digests"].tobytes()
    if len(digests) % _DIGEST_BYTES:
        raise ValueError("a digest is cut off")
    return Compiled(
        ids=_unpack_texts(parts["ids"]),
        names=_unpack_texts(parts["names"]),
        digests=tuple(digests[at : at + _DIGEST_BYTES] for at in range(0, len(digests), _DIGEST_BYTES)),
        words=_unpack_texts(parts["words"]),
        vocabulary=parts["vocabulary"].astype(np.uint64, copy=False),
        starts=parts["starts"].astype(np.int64, copy=False),
        terms=parts["terms"].astype(np.int32, copy=False),
        impacts=parts["impacts"].astype(np.float32, copy=False),
        fields=parts["fields"].astype(np.uint16, copy=False),
        vectors=parts["vectors"].astype(np.int8, copy=False),
        scales=parts["scales"].astype(np.float32, copy=False),
    )


def _is_sound(compiled: Compiled) -> bool:
    """Whether `compile_documents` could have written every number, so that no later step reads out of bounds."""
    n, m, v = len(compiled.ids), len(compiled.terms), len(compiled.vocabulary)
    return bool(
        list(compiled.ids) == sorted(set(compiled.ids))
        and len(compiled.names) == len(compiled.digests) == len(compiled.scales) == len(compiled.vectors) == n
        and len(compiled.starts) == n + 1
        and compiled.starts[0] == 0
        and compiled.starts[-1] == m == len(compiled.impacts) == len(compiled.fields)
        and (np.diff(compiled.starts) >= 0).all()
        and (m == 0 or (compiled.terms.min() >= 0 and compiled.terms.max() < v))
        and (compiled.vocabulary[1:] > compiled.vocabulary[:-1]).all()
        and ((compiled.impacts >= 0) & (compiled.impacts <= 1)).all()
        and (compiled.fields < 1 << len(FIELDS)).all()
        and compiled.vectors.shape[1] <= _MAX_DIMENSIONS
        and np.isfinite(compiled.scales).all()
    )


_MAX_DIMENSIONS = 256
