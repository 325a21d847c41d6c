"""Lease secrets for the length of one call; say in silo's words why one can't be had.

`silo.secrets.sources` finds them. A place is opened only when a call needs a secret from it, in a worker thread: a
keyring may wait for a person to unlock it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType

import silo_vault
from anyio import to_thread
from silo_vault import VaultError

from silo.errors import (
    FileRefused,
    SecretMissing,
    SiloError,
    UsageError,
    VaultBusy,
    VaultLocked,
    VaultRefused,
    VaultRolledBack,
    VaultUnreachable,
    VaultUnusable,
)
from silo.remedies import Commands, Remedy, Setting
from silo.secrets.sources import Sources


@dataclass(frozen=True, repr=False)
class Lease:
    """What one call got.

    Attributes:
        values: the declared secrets by name.
        canaries: decoys by name. The call does not get them; if one turns up, somebody has read the vault.
    """

    values: Mapping[str, str]
    canaries: Mapping[str, str]


@dataclass(frozen=True)
class Secrets:
    """Leases on secrets.

    Attributes:
        sources: where they are looked up.
        headless: nobody can unlock anything, so the error for a locked vault says `SILO_AUTH_REQUIRED`.
    """

    sources: Sources
    headless: bool = False

    @asynccontextmanager
    async def lease(
        self, skill: str, names: Sequence[str], supplied: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncIterator[Lease]:
        """Yield the values by name; they are forgotten when the context ends, as far as Python can forget.

        Args:
            skill: the namespace of the skill that gets them.
            names: which ones.
            supplied: values that a person typed in for this call; used if no place has the secret.

        A vault with decoys is opened for each call, also for one without secrets: silo must look for decoys in each.

        Raises:
            SecretMissing: no place has one or more of them; the message names all of these.
            VaultLocked, VaultUnusable, VaultBusy: see these classes.
        """
        values, canaries = await to_thread.run_sync(self._read, skill, tuple(names), supplied)
        try:
            yield Lease(values, canaries)
        finally:
            values.clear()
            canaries.clear()

    def can_keep(self, skill: str, name: str) -> bool:
        """Whether a secret in the vault file would be found there, i.e. no mapping names another place."""
        return self.sources.reference(skill, name) is None

    def _read(
        self, skill: str, names: tuple[str, ...], supplied: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        values: dict[str, str] = {}
        missing: list[str] = []
        try:
            for name in names:
                found = self.sources.find(skill, name)
                if found is not None:
                    values[name] = found.reveal()
                elif name in supplied:
                    values[name] = supplied[name]
                else:
                    missing.append(name)
            canaries = {name: decoy.reveal() for name, decoy in self.sources.canaries().items()}
        except VaultError as error:
            raise from_vault_error(error, headless=self.headless) from error
        if missing:
            raise self._missing(skill, missing)
        return values, canaries

    def _missing(self, skill: str, names: Sequence[str]) -> SecretMissing:
        references = {name: self.sources.reference(skill, name) for name in names}
        quoted = ", ".join(
            f"{name!r} (mapped to {reference.text})" if reference else repr(name)
            for name, reference in references.items()
        )
        to_add = tuple(f"silo vault add {name}" for name, reference in references.items() if reference is None)
        remedy: Remedy = (
            Commands(to_add, "add it with {}")
            if to_add
            else Setting("[secrets.sources]", "put it there, or change {} in silo.toml")
        )
        message = f"{quoted} {'is' if len(names) == 1 else 'are'} not in the vault"
        # silo's predecessors used this word, and headless scripts look for it.
        message = f"SILO_AUTH_REQUIRED: {message}" if self.headless else message
        return SecretMissing(message, hint=remedy, names=tuple(names))


def from_vault_error(error: VaultError, *, headless: bool = False) -> SiloError:
    """Return silo's error for one of `silo_vault`'s; the nearest class in `vault_errors` decides."""
    mapping = vault_errors()
    ours = next((mapping[kind] for kind in type(error).__mro__ if kind in mapping), VaultUnusable)
    message = error.message
    if headless and issubclass(ours, VaultLocked):
        message = f"SILO_AUTH_REQUIRED: {message}"
    return ours(message, hint=error.hint)


def vault_errors() -> Mapping[type[Exception], type[SiloError]]:
    """Return silo's error for each of the vault's."""
    return {
        silo_vault.VaultLocked: VaultLocked,
        silo_vault.KeyUnavailable: VaultLocked,
        silo_vault.KeyUnreachable: VaultUnreachable,
        silo_vault.AccessRefused: VaultRefused,
        silo_vault.VaultRolledBack: VaultRolledBack,
        silo_vault.KeysReturn: VaultRolledBack,
        silo_vault.VaultDamaged: VaultUnusable,
        silo_vault.VaultNotWritten: VaultUnusable,
        silo_vault.VaultBusy: VaultBusy,
        silo_vault.SecretNotFound: SecretMissing,
        silo_vault.SecretInvalid: UsageError,
        silo_vault.SourceUnreadable: FileRefused,
    }
