"""What a place for keys must do, and how a key of 32 bytes wraps the data key. Which places there are: the modules beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from silo_vault.crypto import KEY_BYTES, NONCE_BYTES, Unauthentic, derive, seal, unseal
from silo_vault.errors import VaultLocked
from silo_vault.format import KEY_ID_BYTES, Argon2, TransitWrap, Wrap, wrap_context

RandomBytes = Callable[[int], bytes]
"""Where randomness comes from: `os.urandom` everywhere but in tests."""


class KeyProvider(Protocol):
    """One place where a key-encryption key (KEK) may lie. It never gives the key away, it only wraps and unwraps."""

    @property
    def kind(self) -> str:
        """The kind of wrap that it makes and opens, as it stands in the file."""

    @property
    def label(self) -> str:
        """What a person calls this place, e.g. `SILO_MASTER_KEY`."""

    @property
    def recheck_s(self) -> float | None:
        """After how many seconds an open vault asks it again, so that access which was revoked ends; None for never."""

    def wrap(self, dek: bytes, *, vault_id: bytes, random: RandomBytes) -> Wrap | TransitWrap:
        """Return a data key, sealed; a key may be made for it, which `retire` takes back.

        Raises:
            KeyUnavailable: this place has no key here; another may.
            VaultLocked: it should have one, and something is wrong with it.
        """

    def unwrap(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> bytes:
        """Return the data key; never makes a key.

        Raises:
            KeyUnreachable: the place can't be asked now.
            KeyUnavailable: this place has no key here; another may.
            VaultLocked: the key does not open the wrap, or the place refuses to use it.
        """

    def retire(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> None:
        """Give up what was made for a wrap that is in no file any more (an entry in a keyring). Never raises."""

    def forget(self) -> None:
        """Forget what this object holds of keys, tokens and answers; what asks for a key later asks the place again, or fails."""


def wrap_under(kek: bytes, dek: bytes, *, kind: str, kdf: Argon2 | None, vault_id: bytes, random: RandomBytes) -> Wrap:
    """Return the data key sealed under a KEK of 32 bytes."""
    nonce, key_id = random(NONCE_BYTES), _key_id(kek, vault_id)
    sealed = seal(_wrapping_key(kek, vault_id), nonce, dek, wrap_context(vault_id, kind, key_id, kdf))
    return Wrap(kind, key_id, kdf, nonce, sealed)


def unwrap_under(kek: bytes, wrap: Wrap, *, vault_id: bytes, label: str) -> bytes:
    """Return the data key that `wrap_under` sealed.

    Raises:
        VaultLocked: another KEK, or a changed wrap.
    """
    context = wrap_context(vault_id, wrap.kind, wrap.key_id, wrap.kdf)
    try:
        dek = unseal(_wrapping_key(kek, vault_id), wrap.nonce, wrap.wrapped_dek, context)
    except Unauthentic:
        # The id is safe to show: it comes out of HKDF, and for a passphrase out of Argon2id before that.
        tried = _key_id(kek, vault_id).hex()
        raise VaultLocked(
            f"{label} does not open it", hint=f"the vault wants key {wrap.key_id.hex()}, and {label} holds key {tried}"
        ) from None
    assert len(dek) == KEY_BYTES
    return dek


def _wrapping_key(kek: bytes, vault_id: bytes) -> bytes:
    return derive(kek, vault_id=vault_id, purpose="wrap")


def _key_id(kek: bytes, vault_id: bytes) -> bytes:
    return derive(kek, vault_id=vault_id, purpose="key id")[:KEY_ID_BYTES]
