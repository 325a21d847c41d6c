"""Use a vault from a process of its own; `test_storage.py` starts this, several at once, or under strace.

    writer.py PATH KEY put NAME VALUE       one save
    writer.py PATH KEY many PREFIX COUNT    COUNT saves
    writer.py PATH KEY hold                 take the lock, say so, keep it until stdin ends
    writer.py PATH KEY small NAME VALUE     one save, under a limit on the size of files

Exit status 7: a `VaultError`, whose code and message go to stdout.
"""

import resource
import sys
from pathlib import Path

from silo_vault import EnvironmentKey, Vault, VaultError
from silo_vault.storage import VaultFiles


def main(path: str, key: str, action: str, *arguments: str) -> None:
    vault = Vault(Path(path), [EnvironmentKey(key)])
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


try:
    main(*sys.argv[1:])
except VaultError as error:
    sys.stdout.write(f"{error.code}: {error}")
    sys.exit(7)
