"""Uses a vault whose key is in the keyring of this session. `test_os_keyring.py` runs this, each time as a new process.

    keyring_user.py PATH put NAME VALUE | get NAME | forget | replace | restore | read NAME

Prints what it got; exit status 7 and a JSON object for a `VaultError`.
"""

import json
import sys
from pathlib import Path

import keyring
from silo_vault import KeyringKey, KeyringSecrets, Vault, VaultError


def main(path: str, action: str, *arguments: str) -> str:
    vault = Vault(Path(path), [KeyringKey()])
    match action, *arguments:
        case "put", name, value:
            vault.put(name, value)
        case "get", name:
            return vault.get(name).reveal()
        case ("forget",):
            status = vault.status()
            keyring.delete_password("silo", f"vault {status.vault_id} key {status.keys[0].key_id}")
        case ("replace",):
            vault.rekey(add=[KeyringKey()], remove=[vault.status().keys[0].key_id])
        case ("restore",):
            vault.restore()
        case "read", name:
            found = KeyringSecrets().read(name)
            return "nothing" if found is None else found.reveal()
    return ""


try:
    sys.stdout.write(main(*sys.argv[1:]))
except VaultError as error:
    sys.stdout.write(json.dumps({"code": error.code, "message": error.message, "hint": error.hint}))
    sys.exit(7)
