"""What can be said of a vault without opening a value: its state, its keys, and what it holds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from silo_vault.format import AnyWrap, Record, TransitWrap, UnknownWrap

CANARIES = "!canary"
"""The namespace of decoys: no program can ask for it, because none can be called that."""


WARN_SEALS = 2**30
"""From this many values sealed under one data key on, `VaultStatus.should_rotate` is true: a quarter of what is allowed."""


@dataclass(frozen=True)
class KeySlot:
    """One key that opens a vault.

    Attributes:
        kind: where it lies: `env`, `keyring`, `passphrase`, `transit`, `kv`, or what a newer version wrote.
        key_id: 16 hex digits that tell keys apart; empty for an unknown kind.
        kdf: `none` for a key of 32 bytes, `argon2id` for a passphrase, `transit` for one that a server keeps, empty for an unknown kind.
    """

    kind: str
    key_id: str
    kdf: str


@dataclass(frozen=True)
class VaultStatus:
    """What can be said of a vault without a key; nothing of it is authenticated.

    Attributes:
        exists: false if there is no file yet; then the rest is zero or empty.
        vault_id: 32 hex digits.
        created: UTC, ISO 8601.
        secrets: how many the file says it holds, decoys included.
        seals: how many values were sealed under the present data key.
    """

    path: Path
    exists: bool
    vault_id: str = ""
    generation: int = 0
    created: str = ""
    secrets: int = 0
    seals: int = 0
    keys: tuple[KeySlot, ...] = ()

    @property
    def should_rotate(self) -> bool:
        """Whether the data key has sealed so much that `Vault.rotate` is due."""
        return self.seals >= WARN_SEALS


@dataclass(frozen=True)
class SecretInfo:
    """What can be said of a secret without opening its value.

    Attributes:
        namespace: empty for one that is for all.
        modified: when its value was stored, in seconds since 1970, UTC.
        is_canary: it is a decoy.
    """

    namespace: str
    name: str
    modified: int
    is_canary: bool = False


def info_of(record: Record) -> SecretInfo:
    """Return what can be said of a record."""
    is_canary = record.namespace == CANARIES
    return SecretInfo("" if is_canary else record.namespace, record.name, record.modified, is_canary)


def key_name(wrap: AnyWrap) -> str:
    """Return what names a wrap's key to a person: its id, or its kind where this version can't read an id."""
    slot = key_slot(wrap)
    return slot.key_id or slot.kind


def key_slot(wrap: AnyWrap) -> KeySlot:
    """Return what can be said of a wrap."""
    if isinstance(wrap, UnknownWrap):
        return KeySlot(wrap.kind, "", "")
    if isinstance(wrap, TransitWrap):
        return KeySlot(wrap.kind, wrap.key_id.hex(), "transit")
    return KeySlot(wrap.kind, wrap.key_id.hex(), "none" if wrap.kdf is None else "argon2id")
