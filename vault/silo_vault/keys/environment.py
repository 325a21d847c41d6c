"""Keys that are given as text: in `SILO_MASTER_KEY`, or as a passphrase that a person types.

`silo_vault.process` reads the variable. The program that uses this library asks the person.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable
from typing import final

from silo_vault.crypto import DEFAULT_COST, KEY_BYTES, Argon2Cost, stretch
from silo_vault.errors import KeyUnavailable, VaultLocked
from silo_vault.format import SALT_BYTES, Argon2, TransitWrap, Wrap
from silo_vault.keys.base import RandomBytes, unwrap_under, wrap_under

MASTER_KEY_VARIABLE = "SILO_MASTER_KEY"

MIN_PASSPHRASE_CHARS = 12
"""Of a recovery passphrase. Argon2id makes each guess cost 0.3 s and 64 MiB, but a short one needs few guesses."""

_HEX = re.compile(f"[0-9a-fA-F]{{{2 * KEY_BYTES}}}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=?|[A-Za-z0-9_-]{43}=?")


@final
class EnvironmentKey:
    """Wraps under a key of 32 bytes in hex or base64. Any other text is a passphrase, and goes through Argon2id.

    The text is never cut, padded or hashed to make a key of it.
    """

    kind = "env"
    recheck_s = None

    def __init__(self, text: str | None, *, label: str = MASTER_KEY_VARIABLE, cost: Argon2Cost = DEFAULT_COST) -> None:
        """Take the text of the variable.

        Args:
            text: None if the variable is not set. It is checked at its first use: without a vault, no key is needed.
            label: its name in messages.
            cost: of a new wrap under a passphrase. An existing wrap contains its own.
        """
        self._text = text
        self._cost = cost
        self._is_forgotten = False
        self.label = label

    def __repr__(self) -> str:
        return f"EnvironmentKey(label={self.label!r})"

    def wrap(self, dek: bytes, *, vault_id: bytes, random: RandomBytes) -> Wrap:
        """As `KeyProvider.wrap`."""
        text = self._checked(f"set it, e.g. with `export {self.label}=$(openssl rand -hex 32)`, and keep it")
        kdf = None if raw_key(text) else Argon2(random(SALT_BYTES), self._cost)
        return wrap_under(_kek(text, kdf), dek, kind=self.kind, kdf=kdf, vault_id=vault_id, random=random)

    def unwrap(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> bytes:
        """As `KeyProvider.unwrap`."""
        assert isinstance(wrap, Wrap)
        text = self._checked(f"set {self.label} to the key that this vault was locked with; a new one can't open it")
        if wrap.kdf is None and raw_key(text) is None:
            raise VaultLocked(
                f"{self.label} does not open it",
                hint=f"the vault needs a key of 32 bytes in hex or base64, but {self.label} is a passphrase",
            )
        return unwrap_under(_kek(text, wrap.kdf), wrap, vault_id=vault_id, label=self.label)

    def retire(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> None:
        """Do nothing: no provider state belongs to a wrap."""

    def forget(self) -> None:
        """Forget the text. A process that needs it again has to be started again with it."""
        self._is_forgotten = self._is_forgotten or self._text is not None
        self._text = None

    def _checked(self, hint: str) -> str:
        if self._is_forgotten:
            raise KeyUnavailable(
                f"{self.label} was forgotten when the vault was locked", hint="start this process again with its key"
            )
        if self._text is None:
            raise KeyUnavailable(f"{self.label} is not set", hint=hint)
        if not self._text.strip():
            raise VaultLocked(f"{self.label} is empty", hint=f"set it to a key, or remove it with `unset {self.label}`")
        if self._text != self._text.strip() or not self._text.isprintable():
            # A stray newline would silently turn a key into a passphrase, and the vault would not open elsewhere.
            raise VaultLocked(
                f"{self.label} starts or ends with white space, or has invisible characters",
                hint="remove them; `$(cat FILE)` in a shell omits the last newline",
            )
        return self._text


@final
class PassphraseKey:
    """Wraps under a passphrase, always through Argon2id. It is for recovery, when no other key is left.

    The passphrase is asked for when it is needed, and not kept in memory.
    """

    kind = "passphrase"
    label = "the passphrase"
    recheck_s = None

    def __init__(self, ask: Callable[[], str | None], *, cost: Argon2Cost = DEFAULT_COST) -> None:
        """Take the function that asks for the passphrase.

        Args:
            ask: returns the passphrase as it was typed, or None if nobody can be asked.
            cost: of a new wrap. An existing wrap contains its own.
        """
        self._ask = ask
        self._cost = cost

    def wrap(self, dek: bytes, *, vault_id: bytes, random: RandomBytes) -> Wrap:
        """As `KeyProvider.wrap`.

        Raises:
            VaultLocked: the passphrase has fewer than `MIN_PASSPHRASE_CHARS` characters.
        """
        text = self._asked()
        if len(text) < MIN_PASSPHRASE_CHARS:
            raise VaultLocked(
                f"a passphrase of {len(text)} characters can be guessed",
                hint=f"use at least {MIN_PASSPHRASE_CHARS}, e.g. five random words",
            )
        kdf = Argon2(random(SALT_BYTES), self._cost)
        return wrap_under(_stretched(text, kdf), dek, kind=self.kind, kdf=kdf, vault_id=vault_id, random=random)

    def unwrap(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> bytes:
        """As `KeyProvider.unwrap`."""
        assert isinstance(wrap, Wrap)
        if wrap.kdf is None:
            raise VaultLocked("the file names no key derivation for the passphrase", hint="somebody changed the file")
        return unwrap_under(_stretched(self._asked(), wrap.kdf), wrap, vault_id=vault_id, label=self.label)

    def retire(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> None:
        """Do nothing: no provider state belongs to a wrap."""

    def forget(self) -> None:
        """Do nothing: the passphrase is not kept in memory."""

    def _asked(self) -> str:
        text = self._ask()
        if not text:
            raise KeyUnavailable(
                "no passphrase was given", hint="run the command on a terminal, so that it can ask for it"
            )
        return text


def _stretched(text: str, kdf: Argon2) -> bytes:
    # Normalised to NFC (RFC 8265 §4.2), so that the same passphrase typed on another keyboard has the same bytes.
    return stretch(unicodedata.normalize("NFC", text).encode(), salt=kdf.salt, cost=kdf.cost)


def raw_key(text: str) -> bytes | None:
    """Return the key if the text is 32 bytes in hex or base64. None means that it is a passphrase."""
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if not _BASE64.fullmatch(text):
        return None
    unpadded = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(unpadded + "=", validate=True)
    except binascii.Error:
        return None
    # The last of the 43 digits has two unused bits. They must be zero, or several texts would be the same key.
    return key if base64.b64encode(key).decode().rstrip("=") == unpadded else None


def _kek(text: str, kdf: Argon2 | None) -> bytes:
    if kdf is not None:
        return stretch(text.encode(), salt=kdf.salt, cost=kdf.cost)
    key = raw_key(text)
    assert key is not None
    return key
