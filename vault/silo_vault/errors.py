"""Every error that the vault raises on purpose, one class for each case that a caller would treat differently.

No message and no hint here ever holds a secret, a key or ciphertext; names of secrets, key ids and paths may appear.
"""

from __future__ import annotations

from typing import ClassVar


class VaultError(Exception):
    """An expected failure: what happened, and what to do next. The file of the vault is as it was.

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
    """No key opens the vault: there is none, it is the wrong one, or the file was changed.

    Wrong key and changed file are one error on purpose: telling them apart would help only whoever changes files.
    """

    code = "vault-locked"


class KeyUnavailable(VaultLocked):
    """This provider has no key here; another one may have."""


class KeyUnreachable(KeyUnavailable):
    """A place for keys or secrets on another machine did not answer: it is down, sealed, or out of reach. Nothing was refused."""

    code = "key-unreachable"


class AccessRefused(VaultLocked):
    """A place on another machine answered, and said no (HTTP 403). That is never the same as being out of reach."""

    code = "access-refused"


class VaultRolledBack(VaultLocked):
    """The file is older than one that was seen here before; somebody put an old copy in its place."""

    code = "vault-rolled-back"


class VaultDamaged(VaultError):
    """The file can't be a vault that this version may touch: malformed, of a newer version, or open to other users."""

    code = "vault-damaged"


class VaultBusy(VaultError):
    """Another process is writing, and did not finish in time; the message names its process id."""

    code = "vault-busy"


class VaultNotWritten(VaultError):
    """The system refused a write, a flush or a rename: the disk is full, read-only or broken."""

    code = "vault-not-written"


class SecretNotFound(VaultError):
    """The vault holds no secret of that name; the hint gives the nearest names."""

    code = "secret-not-found"


class SecretInvalid(VaultError):
    """The name or the value breaks a rule, so nothing was stored."""

    code = "secret-invalid"


class SourceUnreadable(VaultError):
    """What secrets were to come from is missing, too large, another kind of file, or needs a program that is not here."""

    code = "source-unreadable"
