"""Every error that the vault raises on purpose, one class for each case that callers handle differently.

No message or hint contains a secret, a key or ciphertext. Names of secrets, key ids and paths may appear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from silo_vault.restoration import Restoration


class VaultError(Exception):
    """An expected failure: what happened, and what to do next. The vault file is unchanged.

    Attributes:
        message: names the thing that failed.
        hint: a command to run or a line to change.
        code: stable, kebab-case.
    """

    code: ClassVar[str] = "vault-error"

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class VaultLocked(VaultError):
    """No key opens the vault: there is no key, it is the wrong one, or the file was changed.

    A wrong key and a changed file are one error on purpose: the difference would only help an attacker.
    """

    code = "vault-locked"


class KeyUnavailable(VaultLocked):
    """This provider has no key here; another provider may have one."""


class KeyUnreachable(KeyUnavailable):
    """A server that holds keys or secrets gave no usable answer: it is down, sealed or out of reach."""

    code = "key-unreachable"


class AccessRefused(VaultLocked):
    """A server that holds keys or secrets refused access (HTTP 403). This is never treated like `KeyUnreachable`."""

    code = "access-refused"


class VaultRolledBack(VaultLocked):
    """The file is older than one that was used here before: it was replaced by an old copy."""

    code = "vault-rolled-back"


class KeysReturn(VaultRolledBack):
    """A file is to be restored that opens with keys that were removed since, and nobody agreed to that.

    Attributes:
        restoration: what the restore would change; `keys` has those keys.
    """

    code = "keys-return"

    def __init__(self, message: str, *, hint: str, restoration: Restoration) -> None:
        super().__init__(message, hint=hint)
        self.restoration = restoration


class VaultDamaged(VaultError):
    """The file is malformed, of a newer version or open to other users, so this version leaves it alone."""

    code = "vault-damaged"


class VaultBusy(VaultError):
    """Another process is writing and did not finish in time. The message gives its process id."""

    code = "vault-busy"


class VaultNotWritten(VaultError):
    """The system refused a write, a flush or a rename: the disk is full, read-only or broken."""

    code = "vault-not-written"


class SecretNotFound(VaultError):
    """The vault has no secret of that name. The hint gives the nearest names."""

    code = "secret-not-found"


class SecretInvalid(VaultError):
    """The name or the value breaks a rule. Nothing was stored."""

    code = "secret-invalid"


class SourceUnreadable(VaultError):
    """The file to import or restore is missing, too large or of another kind, or needs a missing program."""

    code = "source-unreadable"
