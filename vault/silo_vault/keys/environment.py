"""Keys that a person or a deployment gives as text: in `SILO_MASTER_KEY`, or as a passphrase that only a person knows.

Who reads the variable: `silo_vault.process`; who asks the person: whoever uses this library.
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
"""Of a recovery passphrase. Argon2id makes each guess cost 0.3 s and 64 MiB; it can't make a short list of guesses long."""

_HEX = re.compile(f"[0-9a-fA-F]{{{2 * KEY_BYTES}}}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=?|[A-Za-z0-9_-]{43}=?")


@final
class EnvironmentKey:
    """Wraps under a key of 32 bytes in hex or base64; any other text is a passphrase, and goes through Argon2id.

    Never more is done to make a text fit: nothing is cut, padded or hashed into a key.
    """

    kind = "env"
    recheck_s = None

    def __init__(self, text: str | None, *, label: str = MASTER_KEY_VARIABLE, cost: Argon2Cost = DEFAULT_COST) -> None:
        """Take the key as it stands in the variable.

        Args:
            text: None if the variable is not set. Checked when it is first used, so that what needs no vault needs no key.
            label: what the messages call it.
            cost: of a new passphrase wrap; an existing one says its own.
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
                hint=f"the vault wants 32 bytes in hex or base64, and {self.label} is a passphrase",
            )
        return unwrap_under(_kek(text, wrap.kdf), wrap, vault_id=vault_id, label=self.label)

    def retire(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> None:
        """Nothing is kept anywhere."""

    def forget(self) -> None:
        """Drop the text; whoever needs it again has to start with it again."""
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


@final
class PassphraseKey:
    """Wraps under a passphrase, always through Argon2id: for recovery, when no other key is left.

    It is asked for when it is needed, and not kept.
    """

    kind = "passphrase"
    label = "the passphrase"
    recheck_s = None

    def __init__(self, ask: Callable[[], str | None], *, cost: Argon2Cost = DEFAULT_COST) -> None:
        """Take what asks for it.

        Args:
            ask: returns the passphrase, as it was typed, or None if there is nobody to ask.
            cost: of a new wrap; an existing one says its own.
        """
        self._ask = ask
        self._cost = cost

    def wrap(self, dek: bytes, *, vault_id: bytes, random: RandomBytes) -> Wrap:
        """As `KeyProvider.wrap`.

        Raises:
            VaultLocked: it has fewer than `MIN_PASSPHRASE_CHARS` characters.
        """
        text = self._asked()
        if len(text) < MIN_PASSPHRASE_CHARS:
            raise VaultLocked(
                f"a passphrase of {len(text)} characters can be guessed",
                hint=f"take at least {MIN_PASSPHRASE_CHARS}, e.g. five random words",
            )
        kdf = Argon2(random(SALT_BYTES), self._cost)
        return wrap_under(_stretched(text, kdf), dek, kind=self.kind, kdf=kdf, vault_id=vault_id, random=random)

    def unwrap(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> bytes:
        """As `KeyProvider.unwrap`."""
        assert isinstance(wrap, Wrap)
        if wrap.kdf is None:
            raise VaultLocked("the file names no key derivation for the passphrase", hint="it was changed by somebody")
        return unwrap_under(_stretched(self._asked(), wrap.kdf), wrap, vault_id=vault_id, label=self.label)

    def retire(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> None:
        """Nothing is kept anywhere."""

    def forget(self) -> None:
        """Nothing is kept in memory."""

    def _asked(self) -> str:
        text = self._ask()
        if not text:
            raise KeyUnavailable("no passphrase was given", hint="run it on a terminal, where it can be asked for")
        return text


def _stretched(text: str, kdf: Argon2) -> bytes:
    # One form for each text, so that a passphrase typed on another keyboard is the same (NFC, as RFC 8265 §4.2 has it).
    return stretch(unicodedata.normalize("NFC", text).encode(), salt=kdf.salt, cost=kdf.cost)


def raw_key(text: str) -> bytes | None:
    """Return the key of 32 bytes if the text is one in hex or base64; None means that it is a passphrase."""
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
    key = raw_key(text)
    assert key is not None
    return key
