"""The canonical spelling of JSON, which is hashed, and the arguments of a call in it. Pure.

The hashes in audit records, keys of approvals and profiles of approved calls all depend on it, so it never changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from silo.model import File
from silo.wire.messages import Json


def canonical(value: Json) -> bytes:
    """Return the canonical spelling of a JSON value: sorted keys, no spaces, ASCII.

    Raises:
        ValueError, TypeError: not JSON.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256_hex(value: Json) -> str:
    """Return the SHA-256 of a JSON value's canonical spelling, in hex.

    Raises:
        ValueError, TypeError: not JSON.
    """
    return hashlib.sha256(canonical(value)).hexdigest()


def file_digest(file: File) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    return hashlib.sha256(file.data).hexdigest()


def comparable(value: Json, digest: Callable[[File], str] = file_digest, *, depth: int = 0) -> Json:
    """Return arguments as JSON, with a file by the hash of its content; different arguments never become the same.

    A file is `{"$file": <SHA-256>}`. An object that looks like that is wrapped: `{"$object": {"$file": ...}}`. One that
    looks wrapped is wrapped too.

    Raises:
        ValueError: they nest too deep.
    """
    if depth > _MAX_DEPTH:
        raise ValueError("too deep")
    if isinstance(value, File):
        return {"$file": digest(value)}
    if isinstance(value, Mapping):
        plain = {key: comparable(item, digest, depth=depth + 1) for key, item in value.items()}
        return {"$object": plain} if plain.keys() in _MARKS else plain
    if isinstance(value, list | tuple):
        return [comparable(item, digest, depth=depth + 1) for item in value]
    return value


_MAX_DEPTH = 64
_MARKS = ({"$file"}, {"$object"})


@dataclass(frozen=True)
class HashedArguments:
    """The arguments of one call in the form that is compared with other calls'. Properties are computed at first use.

    If the arguments were not checked, each property may raise ValueError, TypeError or RecursionError.
    """

    arguments: Mapping[str, Any]

    @cached_property
    def json(self) -> dict[str, Json]:
        """The arguments as JSON, each file as `{"$file": <SHA-256 of its content>}`, as `comparable` has it."""
        return {name: comparable(value, self.digest_of, depth=1) for name, value in self.arguments.items()}

    def digest_of(self, file: File) -> str:
        """Return the hash of a file among the arguments; it is computed once."""
        if id(file) not in self._digests:
            self._digests[id(file)] = file_digest(file)
        return self._digests[id(file)]

    @cached_property
    def _digests(self) -> dict[int, str]:
        return {}

    @cached_property
    def sha256(self) -> str:
        """The hash of `json`."""
        return sha256_hex(self.json)

    @cached_property
    def by_name(self) -> dict[str, str]:
        """The hash of each argument."""
        return {name: sha256_hex(value) for name, value in self.json.items()}

    @cached_property
    def labels(self) -> list[list[str]]:
        """Name and media type of each file, in the order of sorted keys."""
        return [[file.name, file.media_type] for file in _files(self.arguments)]


def _files(value: Json) -> Iterator[File]:
    if isinstance(value, File):
        yield value
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield from _files(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _files(item)
