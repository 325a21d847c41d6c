"""The key that a person or a deployment gives as text, usually in `SILO_MASTER_KEY`. Who reads the variable: `silo_vault.process`."""

from __future__ import annotations

import base64
import binascii
import re
from typing import final

from silo_vault.crypto import DEFAULT_COST, KEY_BYTES, Argon2Cost, stretch
from silo_vault.errors import KeyUnavailable, VaultLocked
from silo_vault.format import SALT_BYTES, Argon2, Wrap
from silo_vault.keys.base import RandomBytes, unwrap_under, wrap_under

MASTER_KEY_VARIABLE = "SILO_MASTER_KEY"

_HEX = re.compile(f"[0-9a-fA-F]{{{2 * KEY_BYTES}}}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=?|[A-Za-z0-9_-]{43}=?")


@final
class EnvironmentKey:
    """Wraps under a key of 32 bytes in hex or base64; any other text is a passphrase, and goes through Argon2id.

    Never more is done to make a text fit: nothing is cut, padded or hashed into a key.
    """

    kind = "env"

    def __init__(self, text: str | None, *, label: str = MASTER_KEY_VARIABLE, cost: Argon2Cost = DEFAULT_COST) -> None:
        """Take the key as it stands in the variable.

        Args:
            text: None if the variable is not set. Checked when it is first used, so that what needs no vault needs no key.
            label: what the messages call it.
            cost: of a new passphrase wrap; an existing one says its own.
        """
        self._text = text
        self._cost = cost
        self.label = label

    def __repr__(self) -> str:
        return f"EnvironmentKey(label={self.label!r})"

    def wrap(self, dek: bytes, *, vault_id: bytes, random: RandomBytes) -> Wrap:
        """As `KeyProvider.wrap`."""
        text = self._checked()
        kdf = None if _raw_key(text) else Argon2(random(SALT_BYTES), self._cost)
        return wrap_under(_kek(text, kdf), dek, kind=self.kind, kdf=kdf, vault_id=vault_id, random=random)

    def unwrap(self, wrap: Wrap, *, vault_id: bytes) -> bytes:
        """As `KeyProvider.unwrap`."""
        text = self._checked()
        if wrap.kdf is None and _raw_key(text) is None:
            raise VaultLocked(
                f"{self.label} does not open it",
                hint=f"the vault wants 32 bytes in hex or base64, and {self.label} is a passphrase",
            )
        return unwrap_under(_kek(text, wrap.kdf), wrap, vault_id=vault_id, label=self.label)

    def _checked(self) -> str:
        if self._text is None:
            raise KeyUnavailable(
                f"{self.label} is not set",
                hint=f"set it, e.g. with `export {self.label}=$(openssl rand -hex 32)`, and keep it",
            )
        if not self._text.strip():
            raise VaultLocked(
                f"{self.label} is empty", hint=f"give it a key, or take it away with `unset {self.label}`"
            )
        if self._text != self._text.strip() or not self._text.isprintable():
            # A stray newline would turn a key into a passphrase, silently, and the vault would open nowhere else.
            raise VaultLocked(
                f"{self.label} has white space at an end, or characters that can't be seen",
                hint="take them away; `$(cat FILE)` in a shell leaves out the last newline",
            )
        return self._text


def _raw_key(text: str) -> bytes | None:
    """Return the key if the text is one; None means that it is a passphrase."""
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if not _BASE64.fullmatch(text):
        return None
    unpadded = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(unpadded + "=", validate=True)
    except binascii.Error:
        return None
    # The last of 43 digits has two bits that belong to no byte; they must be zero, or two texts would be one key.
    return key if base64.b64encode(key).decode().rstrip("=") == unpadded else None


def _kek(text: str, kdf: Argon2 | None) -> bytes:
    if kdf is not None:
        return stretch(text.encode(), salt=kdf.salt, cost=kdf.cost)
    key = _raw_key(text)
    assert key is not None
    return key
