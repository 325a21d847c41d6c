"""A vault for secrets in one file: AES-256-GCM, opened by a key in the environment, the OS keyring or elsewhere.

    from silo_vault import EnvironmentKey, KeyringKey, Vault

    vault = Vault(folder / "credentials.silo", [EnvironmentKey(text), KeyringKey()])
    vault.put("GITHUB_TOKEN", value)
    vault.get("GITHUB_TOKEN").reveal()

These names are the public interface, with those of `silo_vault.hashicorp` and `silo_vault.transfer`. The library does
not depend on silo. Importing it loads neither `cryptography` nor `keyring`, which are slow to load.
"""

from silo_vault.errors import (
    AccessRefused,
    KeysReturn,
    KeyUnavailable,
    KeyUnreachable,
    SecretInvalid,
    SecretNotFound,
    SourceUnreadable,
    VaultBusy,
    VaultDamaged,
    VaultError,
    VaultLocked,
    VaultNotWritten,
    VaultRolledBack,
)
from silo_vault.keys.base import KeyProvider
from silo_vault.keys.environment import MASTER_KEY_VARIABLE, EnvironmentKey, PassphraseKey
from silo_vault.keys.os_keyring import KeyringKey, KeyringSecrets
from silo_vault.process import harden
from silo_vault.restoration import Restoration
from silo_vault.secret import Secret
from silo_vault.status import KeySlot, SecretInfo, VaultStatus
from silo_vault.vault import Vault

__all__ = [
    "MASTER_KEY_VARIABLE",
    "AccessRefused",
    "EnvironmentKey",
    "KeyProvider",
    "KeySlot",
    "KeyUnavailable",
    "KeyUnreachable",
    "KeyringKey",
    "KeyringSecrets",
    "KeysReturn",
    "PassphraseKey",
    "Restoration",
    "Secret",
    "SecretInfo",
    "SecretInvalid",
    "SecretNotFound",
    "SourceUnreadable",
    "Vault",
    "VaultBusy",
    "VaultDamaged",
    "VaultError",
    "VaultLocked",
    "VaultNotWritten",
    "VaultRolledBack",
    "VaultStatus",
    "harden",
]
