"""The cryptographic operations of the vault, each with fixed parameters. `silo_vault.format` defines what is sealed.

Most runs of silo open no vault, so slow modules are imported where they are used: `cryptography` (40 ms).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from silo_vault.errors import KeyUnavailable

KEY_BYTES = 32
NONCE_BYTES = 12
"""96 bits, the one length that AES-GCM uses without hashing it first (NIST SP 800-38D §8.2)."""
TAG_BYTES = 16

MAX_SEALS = 2**32
"""How many random nonces one key may be used with (NIST SP 800-38D §8.3)."""


class Unauthentic(Exception):
    """The ciphertext was not sealed under this key with this nonce and context, or was changed."""


@dataclass(frozen=True)
class Argon2Cost:
    """The cost of one guess at a passphrase (RFC 9106 §3.1): `t` passes over `m_kib` KiB of memory in `p` lanes."""

    t: int = 3
    m_kib: int = 64 * 1024
    p: int = 4


DEFAULT_COST = Argon2Cost()
"""RFC 9106 §4, the second recommended option: about 0.3 s on a small machine."""

MAX_COST = Argon2Cost(t=16, m_kib=1024 * 1024, p=16)
"""The most that a reader accepts. The parameters come from the file, and an edited file must not hang its reader."""


def join(*parts: bytes) -> bytes:
    """Return each part after its length (u32, big-endian), so that no two lists of parts give the same bytes."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def seal(key: bytes, nonce: bytes, plaintext: bytes, context: bytes) -> bytes:
    """Return AES-256-GCM ciphertext and tag.

    Args:
        key: 32 bytes.
        nonce: fresh and random.
        plaintext: what is encrypted.
        context: authenticated, but not stored.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).encrypt(nonce, plaintext, context)


def unseal(key: bytes, nonce: bytes, sealed: bytes, context: bytes) -> bytes:
    """Return what `seal` was given.

    Raises:
        Unauthentic: another key, nonce or context, or changed bytes. These cases can't be distinguished.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(nonce, sealed, context)
    except InvalidTag:
        raise Unauthentic from None


def derive(key: bytes, *, vault_id: bytes, purpose: str) -> bytes:
    """Return a key of 32 bytes for one purpose in one vault (HKDF-SHA-256, RFC 5869).

    Each derived key has one purpose only.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=vault_id, info=f"silo-vault v1 {purpose}".encode()).derive(
        key
    )


def stretch(passphrase: bytes, *, salt: bytes, cost: Argon2Cost) -> bytes:
    """Return a key of 32 bytes from a passphrase (Argon2id version 0x13, RFC 9106).

    Raises:
        KeyUnavailable: `cryptography` was built against an OpenSSL without Argon2id.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    try:
        kdf = Argon2id(salt=salt, length=KEY_BYTES, iterations=cost.t, lanes=cost.p, memory_cost=cost.m_kib)
    except UnsupportedAlgorithm as error:
        raise KeyUnavailable(
            "this build of the package 'cryptography' has no Argon2id, which a passphrase needs",
            hint="install its binary wheel, or use a key of 32 bytes in hex",
        ) from error
    return kdf.derive(passphrase)


def file_mac(key: bytes, head: bytes, record_digests: Iterable[bytes]) -> bytes:
    """Return HMAC-SHA-256 over the head of a vault file and the SHA-256 of each record, in order."""
    digests = b"".join(record_digests)
    return hmac.digest(key, join(b"silo-mac-v1", head, digests), "sha256")


def digest(record: bytes) -> bytes:
    """Return the SHA-256 of one encoded record."""
    return hashlib.sha256(record).digest()


def same(left: bytes, right: bytes) -> bool:
    """Whether two MACs are equal. The time it takes doesn't depend on where they differ."""
    return hmac.compare_digest(left, right)
