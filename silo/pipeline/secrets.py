"""Lease secrets from the vault for the length of one call. Where and how they are kept is `silo_vault`'s.

The vault is opened only when a call needs a secret, in a worker thread: a keyring may wait for a person to unlock it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from anyio import to_thread

from silo.errors import SecretMissing, SiloError, UsageError, VaultBusy, VaultLocked, VaultUnusable

if TYPE_CHECKING:
    from silo_vault import VaultError


class Revealable(Protocol):
    """A secret that shows itself only when asked to."""

    def reveal(self) -> str:
        """Return the value."""
        ...


class SecretSource(Protocol):
    """What the pipeline needs of a vault: `silo_vault.Vault` is one."""

    def get(self, name: str) -> Revealable:
        """Return a secret.

        Raises:
            VaultError: there is none of that name, or the vault does not open.
        """
        ...


@dataclass(frozen=True)
class Secrets:
    """Leases on secrets.

    Attributes:
        open_vault: returns the vault; called only when a secret is needed.
        headless: nobody can unlock anything, so a locked vault says `SILO_AUTH_REQUIRED`.
    """

    open_vault: Callable[[], SecretSource]
    headless: bool = False

    @asynccontextmanager
    async def lease(self, names: Sequence[str]) -> AsyncIterator[Mapping[str, str]]:
        """Yield the values by name; they are forgotten when the context ends, as far as Python can forget.

        Raises:
            SecretMissing: one or more are not in the vault; the message names all of them.
            VaultLocked, VaultUnusable, VaultBusy: as they say.
        """
        if not names:
            yield {}
            return
        values = await to_thread.run_sync(self._read, tuple(names))
        try:
            yield values
        finally:
            values.clear()

    def _read(self, names: tuple[str, ...]) -> dict[str, str]:
        from silo_vault import SecretNotFound, VaultError

        values: dict[str, str] = {}
        missing: list[str] = []
        try:
            vault = self.open_vault()
            for name in names:
                try:
                    values[name] = vault.get(name).reveal()
                except SecretNotFound:
                    missing.append(name)
        except VaultError as error:
            raise from_vault_error(error, headless=self.headless) from error
        if missing:
            quoted = ", ".join(repr(name) for name in missing)
            raise SecretMissing(
                f"{quoted} {'is' if len(missing) == 1 else 'are'} not in the vault",
                hint="add it with " + " and ".join(f"`silo vault add {name}`" for name in missing),
            )
        return values


def from_vault_error(error: VaultError, *, headless: bool = False) -> SiloError:
    """Return our error for one of `silo_vault`'s; the nearest class in `vault_errors` decides."""
    mapping = vault_errors()
    ours = next((mapping[kind] for kind in type(error).__mro__ if kind in mapping), VaultUnusable)
    message = error.message
    if headless and issubclass(ours, VaultLocked):
        message = f"SILO_AUTH_REQUIRED: {message}"
    return ours(message, hint=error.hint)


def vault_errors() -> Mapping[type[Exception], type[SiloError]]:
    """Return which of our errors stands for which of the vault's. A function, so that importing this file loads no cryptography."""
    import silo_vault

    return {
        silo_vault.VaultLocked: VaultLocked,
        silo_vault.KeyUnavailable: VaultLocked,
        silo_vault.VaultDamaged: VaultUnusable,
        silo_vault.VaultNotWritten: VaultUnusable,
        silo_vault.VaultBusy: VaultBusy,
        silo_vault.SecretNotFound: SecretMissing,
        silo_vault.SecretInvalid: UsageError,
    }
