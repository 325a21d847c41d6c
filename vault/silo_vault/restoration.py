"""What restoring an older file changes: which secrets get earlier values, and which removed keys open the vault again.

Pure. `silo_vault.vault` decides which files are compared, and writes the result.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from silo_vault.format import AnyWrap, Document, Record
from silo_vault.status import KeySlot, SecretInfo, info_of, wrap_id


@dataclass(frozen=True)
class Restoration:
    """What `Vault.restore` changes, or would change.

    Attributes:
        keys: keys that were removed, or were never known to open the vault, and open it again.
        returned: secrets that were removed since, and are there again.
        earlier: secrets that have an earlier value again.
        gone: secrets that were added since, and are missing.
        is_compared: whether there was a newest file to compare with. If not, the three before this are empty.
        aside: the new path of a file that was in the way and could not be used.
    """

    keys: tuple[KeySlot, ...] = ()
    returned: tuple[SecretInfo, ...] = ()
    earlier: tuple[SecretInfo, ...] = ()
    gone: tuple[SecretInfo, ...] = ()
    is_compared: bool = False
    aside: Path | None = None


def compare(older: Document, newest: Document, is_same: Callable[[Record, Record], bool]) -> Restoration:
    """Return how the secrets change if `older` takes the place of `newest`; the keys of `newest` stay.

    Args:
        older: the file that is restored.
        newest: the one that it replaces.
        is_same: whether two records of one secret, the older one first, have the same value.
    """
    before = {record[:2]: record for record in newest.records}
    after = {record[:2]: record for record in older.records}
    return Restoration(
        returned=tuple(info_of(record) for place, record in after.items() if place not in before),
        earlier=tuple(
            info_of(record)
            for place, record in after.items()
            if place in before and record.encoded != before[place].encoded and not is_same(record, before[place])
        ),
        gone=tuple(info_of(record) for place, record in before.items() if place not in after),
        is_compared=True,
    )


def returning(older: Document, known: Collection[str] | None) -> tuple[AnyWrap, ...]:
    """Return the wraps of a file whose keys don't open the newest generation, as far as is known.

    Args:
        older: the file that is restored, with its own keys.
        known: ids of the keys of the newest generation, as `wrap_id` gives them; None if nobody knows them. Then each
            key of the file may have been removed.
    """
    return tuple(wrap for wrap in older.header.wraps if known is None or wrap_id(wrap) not in known)
