"""Builds the vault from the configuration: which keys open it, and where secrets are looked up.

Nothing is opened here. `silo.config.schema` says what the settings mean, `silo.secrets.sources` defines the order of
the places.

Every command that opens a runtime loads this module, so slow modules are imported where they are used: the client of
HashiCorp Vault (0.02 s, which most users do not need), in `silo_vault.hashicorp`, `silo_vault.keys.transit` and
`silo_vault.keys.kv`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from silo_vault import (
    MASTER_KEY_VARIABLE,
    EnvironmentKey,
    KeyProvider,
    KeyringKey,
    KeyringSecrets,
    PassphraseKey,
    Vault,
    VaultError,
)
from silo_vault.keys.texts import refusal

from silo.config.schema import Config
from silo.errors import UsageError
from silo.secrets.sources import Sources, parse_reference

if TYPE_CHECKING:
    from silo_vault.hashicorp import HashicorpServer, KvSecrets

FILE_NAME = "credentials.silo"

_log = logging.getLogger(__name__)

KINDS = ("env", "keyring", "passphrase", "transit", "kv")
"""Kinds of keys that `silo vault rekey` can add, in the order in which its help names them."""


class VaultSetup:
    """The vault of one home folder, created at first use, with its keys and the places of secrets."""

    def __init__(
        self,
        home: Path,
        config: Config,
        *,
        environ: Mapping[str, str],
        master_key: str | None,
        ask_passphrase: Callable[[], str | None] | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            environ: for the variables of HashiCorp Vault.
            master_key: the text of `SILO_MASTER_KEY`, or None.
            ask_passphrase: asks a person for the recovery passphrase; returns None if there is nobody to ask.
        """
        self._home = home
        self._config = config
        self._environ = environ
        self._master_key = master_key
        self._ask_passphrase = ask_passphrase
        self._vault: Vault | None = None
        self._server: HashicorpServer | None = None
        self._server_secrets: KvSecrets | None = None

    @property
    def vault(self) -> Vault:
        """The vault. The first key that is there opens it: a server's, the environment's, the keyring's, a passphrase.

        Raises:
            VaultError: the configuration of the server is invalid.
        """
        if self._vault is None:
            kind, grace_s = self._config.hashicorp.key, self._config.hashicorp.offline_grace_s
            remote = () if kind == "none" else (self._server_key(kind),)
            # Last, because it is the only key that a person has to type.
            passphrase = PassphraseKey(self._ask_passphrase or (lambda: None))
            providers = (*remote, EnvironmentKey(self._master_key), KeyringKey(), passphrase)
            self._vault = Vault(self._home / FILE_NAME, providers, grace_s=grace_s)
            if (reason := self.weak_key()) is not None:
                _log.warning("%s", reason)
        return self._vault

    def weak_key(self) -> str | None:
        """Return a warning if the vault opens with a text in `SILO_MASTER_KEY` that no new vault may have, else None.

        Such a vault still opens, so that its owner can change the key.
        """
        reason = None if self._master_key is None else refusal(self._master_key)
        if reason is None:
            return None
        try:
            slots = self.vault.status().keys
        except VaultError:  # whoever uses the vault gets this error
            return None
        if not any(slot.kind == "env" and slot.kdf == "argon2id" for slot in slots):
            return None
        return (
            f"{MASTER_KEY_VARIABLE} {reason}. A thief of the vault's file may guess it. Make a new key with "
            "`export NEW=$(openssl rand -hex 32)`, run `silo vault rekey --replace env --from-env NEW`, and keep it"
        )

    def close(self) -> None:
        """Give back the token that was obtained from the server, if one was. Blocks for a moment; never raises."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def new_key(self, kind: str, ask: Callable[[], str]) -> KeyProvider:
        """Return a provider that makes another key for the vault.

        Args:
            kind: one of `KINDS`.
            ask: returns the new key's text, for kinds that have one.

        Raises:
            UsageError: the kind is unknown.
        """
        match kind:
            case "env":
                return EnvironmentKey(ask(), label="the new key")
            case "keyring":
                return KeyringKey()
            case "passphrase":
                # Typed once, and used twice: to seal, and to check that it opens the vault.
                text = ask()
                return PassphraseKey(lambda: text)
            case "transit" | "kv":
                return self._server_key(kind)
        raise UsageError(f"there is no key of the kind {kind!r}", hint=f"it is one of {', '.join(KINDS)}")

    def sources(self) -> Sources:
        """Return where secrets are looked up."""
        settings = self._config.secrets
        keyring = KeyringSecrets()
        return Sources(
            file=lambda: self.vault,
            server=self._kv_secrets,
            keyring=lambda: keyring,
            use_keyring=settings.keyring,
            server_path=settings.hashicorp_path,
            mapped={name: parse_reference(text) for name, text in settings.sources.items()},
        )

    def _server_key(self, kind: Literal["transit", "kv"]) -> KeyProvider:
        if kind == "transit":
            from silo_vault.keys.transit import TransitKey

            return TransitKey(self._connection())
        from silo_vault.keys.kv import KvKey

        return KvKey(self._connection())

    def _kv_secrets(self) -> KvSecrets:
        if self._server_secrets is None:
            from silo_vault.hashicorp import KvSecrets

            self._server_secrets = KvSecrets(self._connection())
        return self._server_secrets

    def _connection(self) -> HashicorpServer:
        if self._server is None:
            from silo_vault.hashicorp import VARIABLES, HashicorpServer, settings_from

            section = self._config.hashicorp
            # The environment comes before the file, as for all of silo's settings.
            by_variable = {name for variable, name in VARIABLES.items() if self._environ.get(variable)}
            given = {
                name: getattr(section, name)
                for name in section.model_fields_set - {"key", "offline_grace_s"} - by_variable
            }
            self._server = HashicorpServer(settings_from(self._environ, **given))
        return self._server
