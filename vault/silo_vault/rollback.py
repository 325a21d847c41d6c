"""Detects that a vault file was replaced by an older one. It compares a file with the newest known generation. Pure.

A vault file can't prove that it is the newest: an old copy is complete, and its MAC is valid. So a second file
remembers the newest generation that was used on this machine. This detects a program or person who replaces the vault
file only: a synchronising program, a restored copy, a thief who wants a revoked key back. It doesn't stop anyone who
can write to the whole folder. `silo_vault.storage` reads and writes the second file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from silo_vault.format import MAC_BYTES, VAULT_ID_BYTES, Document

_LINE = re.compile(rb"silo-seen 1 ([0-9a-f]{%d}) ([0-9]{1,19}) ([0-9a-f]{%d})\n" % (2 * VAULT_ID_BYTES, 2 * MAC_BYTES))


class Order(Enum):
    """How a vault file relates to the newest known generation. `OTHER`: it is another vault."""

    SAME = "same"
    NEWER = "newer"
    OLDER = "older"
    OTHER = "other"


@dataclass(frozen=True)
class KnownGeneration:
    """One generation of one vault. The MAC distinguishes two files of the same generation."""

    vault_id: bytes
    generation: int
    mac: bytes

    @classmethod
    def of(cls, document: Document) -> KnownGeneration:
        """Return the generation of a file whose MAC is valid."""
        return cls(document.header.vault_id, document.header.generation, document.mac)

    @classmethod
    def parse(cls, data: bytes) -> KnownGeneration | None:
        """Parse what `encode` returned. None for an empty file, which a power cut can leave.

        Raises:
            ValueError: it is something else.
        """
        if not data:
            return None
        found = _LINE.fullmatch(data)
        if found is None:
            raise ValueError("not a line that `encode` returns")
        return cls(bytes.fromhex(found[1].decode()), int(found[2]), bytes.fromhex(found[3].decode()))

    def encode(self) -> bytes:
        """Return the generation as one line of text."""
        return f"silo-seen 1 {self.vault_id.hex()} {self.generation} {self.mac.hex()}\n".encode()

    def compare(self, found: KnownGeneration) -> Order:
        """Return how the generation that was found relates to this one, the newest known."""
        if found.vault_id != self.vault_id:
            return Order.OTHER
        if found.generation != self.generation:
            return Order.NEWER if found.generation > self.generation else Order.OLDER
        # Another file of the same generation: it was made from an older copy.
        return Order.SAME if found.mac == self.mac else Order.OLDER
