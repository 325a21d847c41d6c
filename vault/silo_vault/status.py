"""What a vault file tells without decrypting a value: its state, its keys and the names of its secrets. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from silo_vault.format import AnyWrap, Record, TransitWrap, UnknownWrap

CANARIES = "!canary"
"""The namespace of decoys. No program can ask for it, because no skill can have this name."""

WARN_SEALS = 2**30
"""`VaultStatus.should_rotate` is true from this many values sealed under one data key: a quarter of the maximum."""


@dataclass(frozen=True)
class KeySlot:
    """One key that opens a vault.

    Attributes:
        kind: where it is kept: `env`, `keyring`, `passphrase`, `transit`, `kv`, or a kind of a newer version.
        key_id: 16 hex digits that identify the key; empty for an unknown kind.
        kdf: `none` for a key of 32 bytes, `argon2id` for a passphrase, `transit` for a key that stays on a server,
            empty for an unknown kind.
    """

    kind: str
    key_id: str
    kdf: str


@dataclass(frozen=True)
class VaultStatus:
    """What the header of a vault says. It is read without a key, so nothing of it is authenticated.

    Attributes:
        exists: false if there is no file yet; the rest is then zero or empty.
        vault_id: 32 hex digits.
        created: UTC, ISO 8601.
        secrets: how many the file has, including decoys.
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
        """Whether the data key has sealed so many values that `Vault.rotate` is due."""
        return self.seals >= WARN_SEALS


@dataclass(frozen=True)
class SecretInfo:
    """What a vault tells of a secret without decrypting its value.

    Attributes:
        namespace: empty for a secret that every program can use.
        modified: when its value was stored, in seconds since 1970, UTC.
        is_canary: whether it is a decoy.
    """

    namespace: str
    name: str
    modified: int
    is_canary: bool = False


def info_of(record: Record) -> SecretInfo:
    """Describe a record."""
    is_canary = record.namespace == CANARIES
    return SecretInfo("" if is_canary else record.namespace, record.name, record.modified, is_canary)


def key_name(wrap: AnyWrap) -> str:
    """Return the name of a wrap's key for people: its id, or its kind if this version can't read the id."""
    slot = key_slot(wrap)
    return slot.key_id or slot.kind


def wrap_id(wrap: AnyWrap) -> str:
    """Return 16 hex digits that identify the key of a wrap. One of an unknown kind is identified by its own bytes."""
    return sha256(wrap.canonical).hexdigest()[:16] if isinstance(wrap, UnknownWrap) else wrap.key_id.hex()


def key_slot(wrap: AnyWrap) -> KeySlot:
    """Describe the key of a wrap."""
    if isinstance(wrap, UnknownWrap):
        return KeySlot(wrap.kind, "", "")
    if isinstance(wrap, TransitWrap):
        return KeySlot(wrap.kind, wrap.key_id.hex(), "transit")
    return KeySlot(wrap.kind, wrap.key_id.hex(), "none" if wrap.kdf is None else "argon2id")
