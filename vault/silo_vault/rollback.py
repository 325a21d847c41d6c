"""Detects that a vault file was replaced by an older one. It compares a file with the newest known generation. Pure.

A vault file can't prove that it is the newest: an old copy is complete, and its MAC is valid. So a second file
remembers the newest generation that was used on this machine. This detects a program or person who replaces the vault
file only: a synchronising program, a restored copy, a thief who wants a revoked key back. It doesn't stop anyone who
can write to the whole folder. `silo_vault.storage` reads and writes the second file.

The second file also has what `restore` needs when the vault file itself can't be read: how many values were sealed, so
that this number never falls, and which keys opened the vault, so that no removed key comes back in silence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from silo_vault.crypto import MAX_SEALS
from silo_vault.format import KEY_ID_BYTES, MAC_BYTES, MAX_COUNTER, VAULT_ID_BYTES, Document, Header
from silo_vault.status import wrap_id

_HEX = "[0-9a-f]{%d}"
_KEY = _HEX % (2 * KEY_ID_BYTES)
_LINE = re.compile(
    f"silo-seen (?P<version>[12]) (?P<vault_id>{_HEX % (2 * VAULT_ID_BYTES)}) (?P<generation>[0-9]{{1,19}}) "
    f"(?P<mac>{_HEX % (2 * MAC_BYTES)})(?: (?P<seals>[0-9]{{1,10}}) (?P<keys>{_KEY}(?:,{_KEY})*))?\n"
)


class Order(Enum):
    """How a vault file relates to the newest known generation. `OTHER`: it is another vault."""

    SAME = "same"
    NEWER = "newer"
    OLDER = "older"
    OTHER = "other"


@dataclass(frozen=True)
class KnownGeneration:
    """One generation of one vault.

    Attributes:
        mac: of the file, which distinguishes two files of the same generation.
        seals: how many values were sealed under its data key; 0 in a memory of version 1, which doesn't have it.
        keys: the ids of the keys that open it, as `wrap_id` gives them; None in a memory of version 1.
    """

    vault_id: bytes
    generation: int
    mac: bytes
    seals: int = 0
    keys: frozenset[str] | None = None

    @classmethod
    def of(cls, document: Document) -> KnownGeneration:
        """Return the generation of a file whose MAC is valid."""
        return cls.of_header(document.header, document.mac)

    @classmethod
    def of_header(cls, header: Header, mac: bytes) -> KnownGeneration:
        """Return the generation of a file with this header and MAC."""
        keys = frozenset(wrap_id(wrap) for wrap in header.wraps)
        return cls(header.vault_id, header.generation, mac, header.seals, keys)

    @classmethod
    def parse(cls, data: bytes) -> KnownGeneration | None:
        """Parse what `encode` returned, now or in version 1. None for an empty file, which a power cut can leave.

        Raises:
            ValueError: it is something else.
        """
        if not data:
            return None
        found = _LINE.fullmatch(data.decode("ascii", "replace"))
        if found is None or (found["version"] == "2") != (found["keys"] is not None):
            raise ValueError("not a line that `encode` returns")
        known = cls(
            bytes.fromhex(found["vault_id"]),
            int(found["generation"]),
            bytes.fromhex(found["mac"]),
            int(found["seals"] or 0),
            frozenset(found["keys"].split(",")) if found["keys"] else None,
        )
        if known.generation > MAX_COUNTER or known.seals > MAX_SEALS:
            raise ValueError("a number is higher than any vault can have")
        return known

    def encode(self) -> bytes:
        """Return the generation as one line of text. Its keys must be known."""
        assert self.keys
        keys = ",".join(sorted(self.keys))
        return f"silo-seen 2 {self.vault_id.hex()} {self.generation} {self.mac.hex()} {self.seals} {keys}\n".encode()

    def compare(self, found: KnownGeneration) -> Order:
        """Return how the generation that was found relates to this one, the newest known."""
        if found.vault_id != self.vault_id:
            return Order.OTHER
        if found.generation != self.generation:
            return Order.NEWER if found.generation > self.generation else Order.OLDER
        # Another file of the same generation: it was made from an older copy.
        return Order.SAME if found.mac == self.mac else Order.OLDER
