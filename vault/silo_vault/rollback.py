"""The newest generation of a vault that was seen on this machine, so that an older file in its place is noticed. Pure.

A file can't prove that it is the newest: an old copy is whole, and its code fits. The memory of it lies in a file of its own, which
keeps out whoever replaces the vault's file (a synchronising program, a restored copy, a thief who wants a revoked key back), and not
whoever can write anything in that folder. Reading and writing that file is `silo_vault.storage`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from silo_vault.format import MAC_BYTES, VAULT_ID_BYTES, Document

_LINE = re.compile(rb"silo-seen 1 ([0-9a-f]{%d}) ([0-9]{1,19}) ([0-9a-f]{%d})\n" % (2 * VAULT_ID_BYTES, 2 * MAC_BYTES))


class Order(Enum):
    """How a vault's file stands to what was seen."""

    SAME = "same"
    NEWER = "newer"
    OLDER = "older"
    OTHER = "other"


@dataclass(frozen=True)
class KnownGeneration:
    """One generation of one vault; the code tells two files of one generation apart."""

    vault_id: bytes
    generation: int
    mac: bytes

    @classmethod
    def of(cls, document: Document) -> KnownGeneration:
        """What there is to remember of a file whose code fits."""
        return cls(document.header.vault_id, document.header.generation, document.mac)

    @classmethod
    def parse(cls, data: bytes) -> KnownGeneration | None:
        """Return what `encode` gave; None for an empty file, which a power cut can leave.

        Raises:
            ValueError: it is anything else.
        """
        if not data:
            return None
        found = _LINE.fullmatch(data)
        if found is None:
            raise ValueError("not a line that was written here")
        return cls(bytes.fromhex(found[1].decode()), int(found[2]), bytes.fromhex(found[3].decode()))

    def encode(self) -> bytes:
        """Return one line."""
        return f"silo-seen 1 {self.vault_id.hex()} {self.generation} {self.mac.hex()}\n".encode()

    def compare(self, found: KnownGeneration) -> Order:
        """Say how a file that was found stands to this one, the newest that was seen."""
        if found.vault_id != self.vault_id:
            return Order.OTHER
        if found.generation != self.generation:
            return Order.NEWER if found.generation > self.generation else Order.OLDER
        # Two files of one generation: somebody went on from an older copy.
        return Order.SAME if found.mac == self.mac else Order.OLDER
