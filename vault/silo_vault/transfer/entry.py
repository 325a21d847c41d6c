"""What every reader of this package returns, and the one rule for names from elsewhere. Pure; where they come from is the readers'.

No `repr` and no reason here ever shows a value. Names may appear, written so that a terminal shows nothing but their characters.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from silo_vault.errors import SecretInvalid, SourceUnreadable
from silo_vault.secret import NAME_PATTERN, check_namespace, check_value

MAX_SOURCE_BYTES = 64 * 1024 * 1024
"""Longest file that is read; the largest vault (`silo_vault.format.MAX_FILE_BYTES`), so that no more can come than fits."""

MAX_ENTRIES = 100_000
"""Most entries, taken and skipped together. Ten times a very large vault; an edited file must not hang whoever imports it."""

_SEPARATORS = str.maketrans("-./:@+ ", "_______")
_NAME = re.compile(NAME_PATTERN)
_SHOWN_CHARACTERS = 256


@dataclass(frozen=True)
class Entry:
    """One secret on its way: it has a name and a value that the vault takes."""

    namespace: str
    name: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class Skipped:
    """What was not taken.

    Attributes:
        where: a line, an entry or a file, e.g. `line 3`.
        reason: why not, and where possible what to do; never a value.
    """

    where: str
    reason: str


@dataclass(frozen=True)
class Found:
    """What a source holds, in its order. Each namespace and name occurs once in `entries`."""

    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Candidate:
    """What a reader found, before it is known whether the vault takes it.

    Attributes:
        original: the name as it stands in the source; `to_name` is applied to it.
    """

    where: str
    namespace: str
    original: str
    value: str = field(repr=False)


def to_name(original: str) -> str | None:
    """Return the name of a secret for a name from elsewhere, or None if it has too little in common with one.

    Letters become capitals, and each of `-`, `.`, `/`, `:`, `@`, `+` and blank becomes one `_`: `db/password-1` is
    `DB_PASSWORD_1`. Nothing is dropped or added, so a name that starts with a digit, is longer than 128 characters, or has any
    other character stays without. A name that is one already is returned as it is.
    """
    if not original.isascii():  # "ß".upper() is two letters, and "ı".upper() is an ASCII one
        return None
    name = original.translate(_SEPARATORS).upper()
    return name if _NAME.fullmatch(name) else None


def quoted(text: str) -> str:
    """Return a name or path for a message: quoted, without control characters, and not endless."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")


def to_found(candidates: Iterable[Candidate], skipped: Iterable[Skipped] = ()) -> Found:
    """Return what the vault takes of `candidates`; the rest joins `skipped`.

    Of two candidates that come to one name neither is taken: which of them was meant, only a person can say.

    Raises:
        SourceUnreadable: there are more than `MAX_ENTRIES` of both.
    """
    candidates, refused = list(candidates), list(skipped)
    check_count(len(candidates) + len(refused))
    claims: defaultdict[tuple[str, str | None], list[str]] = defaultdict(list)
    for candidate in candidates:
        claims[candidate.namespace, to_name(candidate.original)].append(candidate.where)
    entries = []
    for candidate in candidates:
        name = to_name(candidate.original)
        reason = _flaw(candidate, name)
        if reason is None and len(where := claims[candidate.namespace, name]) > 1:
            other = where[0] if where[0] != candidate.where else where[1]
            reason = f"it would get the same name as {other}; rename one of them"
        if reason is not None:
            refused.append(Skipped(candidate.where, reason))
        elif name is not None:
            entries.append(Entry(candidate.namespace, name, candidate.value))
    return Found(tuple(entries), tuple(refused))


def check_count(count: int) -> None:
    """Refuse a source with more than `MAX_ENTRIES`.

    Raises:
        SourceUnreadable: it has more.
    """
    if count > MAX_ENTRIES:
        raise SourceUnreadable(
            f"there are more than {MAX_ENTRIES} entries", hint="check that it is the right file, or take it in parts"
        )


def _flaw(candidate: Candidate, name: str | None) -> str | None:
    if name is None:
        return "its name can't be made a secret's: letters, digits and '_', a letter first, at most 128 characters"
    try:
        check_namespace(candidate.namespace)
        check_value("it", candidate.value)
    except SecretInvalid as error:
        return error.message
    return None
