"""The protocol of key providers, and how a key of 32 bytes wraps the data key. The providers are the other modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from silo_vault.crypto import KEY_BYTES, NONCE_BYTES, Unauthentic, derive, seal, unseal
from silo_vault.errors import VaultLocked
from silo_vault.format import KEY_ID_BYTES, Argon2, TransitWrap, Wrap, wrap_context

RandomBytes = Callable[[int], bytes]
"""Returns random bytes: `os.urandom`, except in tests."""


class KeyProvider(Protocol):
    """A place that keeps a key-encryption key (KEK). It never returns the key; it only wraps and unwraps."""

    @property
    def kind(self) -> str:
        """The kind of wrap that it makes and opens, as written in the vault file."""

    @property
    def label(self) -> str:
        """The name of this place in messages, e.g. `SILO_MASTER_KEY`."""

    @property
    def recheck_s(self) -> float | None:
        """After how many seconds an open vault asks it again, so that revoking access has an effect. None for never."""

    def wrap(self, dek: bytes, *, vault_id: bytes, random: RandomBytes, is_new: bool = True) -> Wrap | TransitWrap:
        """Return a data key, sealed. This may make a new KEK, which `retire` removes.

        Args:
            dek: the data key.
            vault_id: of the vault.
            random: makes keys, nonces and salts.
            is_new: whether this place does not open the vault yet. A key that is easy to guess is refused then only.

        Raises:
            KeyUnavailable: this place has no key; another place may have one.
            VaultLocked: something is wrong with the key that it should have.
        """

    def unwrap(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> bytes:
        """Return the data key. This never makes a KEK.

        Raises:
            KeyUnreachable: the place gives no usable answer now.
            KeyUnavailable: this place has no key; another place may have one.
            VaultLocked: the key does not open the wrap, or the place refuses to use it.
        """

    def retire(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> None:
        """Remove what was made for a wrap that no file contains any more, e.g. an entry in a keyring. Never raises."""

    def forget(self) -> None:
        """Forget keys, tokens and answers in memory. Later calls have to ask the place again, or fail."""


def wrap_under(kek: bytes, dek: bytes, *, kind: str, kdf: Argon2 | None, vault_id: bytes, random: RandomBytes) -> Wrap:
    """Return the data key sealed under a KEK of 32 bytes."""
    nonce, key_id = random(NONCE_BYTES), _key_id(kek, vault_id)
    sealed = seal(_wrapping_key(kek, vault_id), nonce, dek, wrap_context(vault_id, kind, key_id, kdf))
    return Wrap(kind, key_id, kdf, nonce, sealed)


def unwrap_under(kek: bytes, wrap: Wrap, *, vault_id: bytes, label: str) -> bytes:
    """Return the data key that `wrap_under` sealed.

    Raises:
        VaultLocked: it was sealed under another KEK, or was changed.
    """
    context = wrap_context(vault_id, wrap.kind, wrap.key_id, wrap.kdf)
    try:
        dek = unseal(_wrapping_key(kek, vault_id), wrap.nonce, wrap.wrapped_dek, context)
    except Unauthentic:
        # The id is safe to show: it is derived with HKDF, and before that a passphrase goes through Argon2id.
        tried = _key_id(kek, vault_id).hex()
        raise VaultLocked(
            f"{label} does not open it",
            hint=f"the vault needs key {wrap.key_id.hex()}, but {label} has key {tried}",
        ) from None
    assert len(dek) == KEY_BYTES
    return dek


def _wrapping_key(kek: bytes, vault_id: bytes) -> bytes:
    return derive(kek, vault_id=vault_id, purpose="wrap")


def _key_id(kek: bytes, vault_id: bytes) -> bytes:
    return derive(kek, vault_id=vault_id, purpose="key id")[:KEY_ID_BYTES]
