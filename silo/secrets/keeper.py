"""Keeps secrets that a person typed in when a call asked for them. Asking is done in `silo.approvals`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from silo_vault import Vault, VaultError

from silo.secrets.lease import from_vault_error


@dataclass(frozen=True)
class SecretKeeper:
    """Puts a secret into the vault, for one skill only, and records that.

    Attributes:
        vault: returns the vault; called only when there is something to keep.
        record: adds an event to the audit log.
        headless: nobody can unlock the vault.
    """

    vault: Callable[[], Vault]
    record: Callable[..., None]
    headless: bool

    def __call__(self, skill: str, name: str, value: str) -> None:
        """Keep a secret. Blocks.

        Raises:
            SiloError: the vault can't be written, as `from_vault_error` says.
            AuditBroken: the secret is kept, but that could not be recorded.
        """
        try:
            self.vault().put(name, value, namespace=skill)
        except VaultError as error:
            raise from_vault_error(error, headless=self.headless) from error
        self.record("vault", action="add", name=name, skill=skill, how="typed in when a call wanted it")
