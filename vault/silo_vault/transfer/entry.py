"""What the readers of this package return, and how names from other programs become names of secrets. Pure.

No `repr` or reason here shows a value. Names may appear, quoted so that they can't control a terminal.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from silo_vault.errors import SecretInvalid, SourceUnreadable
from silo_vault.secret import NAME_PATTERN, check_namespace, check_text

MAX_SOURCE_BYTES = 64 * 1024 * 1024
"""Longest file that is read. It is the size of the largest vault (`silo_vault.format.MAX_FILE_BYTES`)."""

MAX_ENTRIES = 100_000
"""Most entries, including skipped ones: ten times a very large vault. A malicious file must not hang the importer."""

_SEPARATORS = str.maketrans("-./:@+ ", "_______")
_NAME = re.compile(NAME_PATTERN)
_SHOWN_CHARACTERS = 256


@dataclass(frozen=True)
class Entry:
    """One secret to import or export, with a name and a value that the vault accepts."""

    namespace: str
    name: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class Skipped:
    """Something in a source that was not imported.

    Attributes:
        where: a line, an entry or a file, e.g. `line 3`.
        reason: why it was skipped, and if possible what to do; never a value.
    """

    where: str
    reason: str


@dataclass(frozen=True)
class Found:
    """The contents of a source, in its order. Each pair of namespace and name occurs once in `entries`."""

    entries: tuple[Entry, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Candidate:
    """A secret that a reader found, before its name and value are checked.

    Attributes:
        original: the name in the source, before `to_name`.
    """

    where: str
    namespace: str
    original: str
    value: str = field(repr=False)


def to_name(original: str) -> str | None:
    """Return the name of a secret for a name from another program, or None if it can't be converted.

    Letters become capitals, and each `-`, `.`, `/`, `:`, `@`, `+` and blank becomes one `_`: `db/password-1` is
    `DB_PASSWORD_1`. Nothing is dropped or added. So a name that starts with a digit, is longer than 128 characters or
    has any other character can't be converted. A valid name is returned unchanged.
    """
    if not original.isascii():  # "ß".upper() is two letters, and "ı".upper() is an ASCII one
        return None
    name = original.translate(_SEPARATORS).upper()
    return name if _NAME.fullmatch(name) else None


def quoted(text: str) -> str:
    """Return a name or path for a message: quoted, without control characters, and shortened."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")


def to_found(candidates: Iterable[Candidate], skipped: Iterable[Skipped] = ()) -> Found:
    """Return the candidates that the vault accepts as entries, and add the rest to `skipped`.

    If several candidates get the same name, all of them are skipped, because only a person knows which one is right.

    Raises:
        SourceUnreadable: both together are more than `MAX_ENTRIES`.
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
            f"there are more than {MAX_ENTRIES} entries", hint="check that it is the right file, or import it in parts"
        )


def _flaw(candidate: Candidate, name: str | None) -> str | None:
    if name is None:
        return "its name can't be that of a secret: letters, digits and '_', a letter first, at most 128 characters"
    try:
        check_namespace(candidate.namespace)
        check_text("it", candidate.value)
    except SecretInvalid as error:
        return error.message
    return None
