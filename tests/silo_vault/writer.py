"""Use a vault from a process of its own; `test_storage.py` starts this, several at once, or under strace.

    writer.py PATH KEY put NAME VALUE       one save
    writer.py PATH KEY many PREFIX COUNT    COUNT saves
    writer.py PATH KEY hold                 take the lock, say so, keep it until stdin ends
    writer.py PATH KEY small NAME VALUE     one save, under a limit on the size of files
    writer.py PATH KEY rekey NEW            open it with the key NEW instead
    writer.py PATH KEY rotate               a new data key
    writer.py PATH KEY restore              the backup comes back

Exit status 7: a `VaultError`, whose code and message go to stdout.
"""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

from silo_vault import EnvironmentKey, Vault, VaultError
from silo_vault.storage import VaultFiles


def main(path: str, key: str, action: str, *arguments: str) -> None:
    vault = Vault(Path(path), [EnvironmentKey(key)], lock_timeout_s=300.0)  # others save as well, on any machine
    # All that is imported lazily is there now; what follows the marker in a trace is the vault's work.
    with suppress(VaultError):
        vault.get("KEPT")
    with suppress(OSError):
        os.open("/silo-vault-marker", os.O_RDONLY)
    match action, *arguments:
        case "put", name, value:
            vault.put(name, value)
        case "many", prefix, count:
            for number in range(int(count)):
                vault.put(f"{prefix}_{number}", f"{prefix} {number}")
        case ("hold",):
            with VaultFiles(Path(path)).writing(timeout_s=1):
                sys.stdout.write("held\n")
                sys.stdout.flush()
                sys.stdin.read()
        case "small", name, value:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
            vault.put(name, value)
        case "rekey", new:
            vault.rekey(add=[EnvironmentKey(new)], remove=[vault.status().keys[0].key_id])
        case ("rotate",):
            vault.rotate()
        case ("restore",):
            vault.restore()


try:
    main(*sys.argv[1:])
except VaultError as error:
    sys.stdout.write(f"{error.code}: {error}")
    sys.exit(7)
