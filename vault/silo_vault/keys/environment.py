"""Keys that are given as text: in `SILO_MASTER_KEY`, or as a passphrase that a person types.

`silo_vault.process` reads the variable. The program that uses this library asks the person.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import final

from silo_vault.crypto import DEFAULT_COST, Argon2Cost, stretch
from silo_vault.errors import KeyUnavailable, VaultLocked
from silo_vault.format import SALT_BYTES, Argon2, TransitWrap, Wrap
from silo_vault.keys.base import RandomBytes, unwrap_under, wrap_under
from silo_vault.keys.texts import HOW_TO_MAKE, raw_key, refusal, stray, weakness

MASTER_KEY_VARIABLE = "SILO_MASTER_KEY"


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

    def wrap(self, dek: bytes, *, vault_id: bytes, random: RandomBytes, is_new: bool = True) -> Wrap:
        """As `KeyProvider.wrap`.

        Raises:
            VaultLocked: the text is nearly a key, or a passphrase that is easy to guess.
        """
        text = self._checked(f"set it, e.g. with `export {self.label}=$(openssl rand -hex 32)`, and keep it")
        if is_new and (reason := refusal(text)) is not None:
            raise VaultLocked(f"{self.label} {reason}", hint=f"{HOW_TO_MAKE}, or use a passphrase of five random words")
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
        if (reason := stray(self._text)) == "is empty":
            raise VaultLocked(f"{self.label} is empty", hint=f"set it to a key, or remove it with `unset {self.label}`")
        if reason is not None:
            # A stray newline would silently turn a key into a passphrase, and the vault would not open elsewhere.
            raise VaultLocked(
                f"{self.label} {reason}", hint="remove it; `$(cat FILE)` in a shell omits the last line break"
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

    def wrap(self, dek: bytes, *, vault_id: bytes, random: RandomBytes, is_new: bool = True) -> Wrap:
        """As `KeyProvider.wrap`.

        Raises:
            VaultLocked: the passphrase is easy to guess.
        """
        text = self._asked()
        if is_new and (reason := weakness(text)) is not None:
            raise VaultLocked(
                f"the passphrase can be guessed: it {reason}", hint="use a longer one, e.g. five random words"
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
    try:
        encoded = unicodedata.normalize("NFC", text).encode()
    except UnicodeEncodeError:
        # `from None`: the message of a UnicodeError quotes the passphrase.
        raise VaultLocked("the passphrase is not UTF-8", hint="check the encoding of the terminal") from None
    return stretch(encoded, salt=kdf.salt, cost=kdf.cost)


def _kek(text: str, kdf: Argon2 | None) -> bytes:
    if kdf is not None:
        return stretch(text.encode(), salt=kdf.salt, cost=kdf.cost)
    key = raw_key(text)
    assert key is not None
    return key
