"""Protects the memory of this process from other processes of the same user.

This works on Linux. Elsewhere the key is only removed from the environment that child processes inherit.
`silo_vault.keys.environment` uses the key that `harden` returns.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import MutableMapping

from silo_vault.errors import VaultLocked
from silo_vault.keys.environment import MASTER_KEY_VARIABLE

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4  # linux/prctl.h
_ENV_START, _ENV_END = 50 - 3, 51 - 3  # fields of /proc/self/stat (man 5 proc), counted after the name in brackets


def harden(environ: MutableMapping[str, str] = os.environ, *, variable: str = MASTER_KEY_VARIABLE) -> str | None:
    """Remove the key from the environment, and protect this process from other processes. Call it before anything else.

    - The variable is removed from `environ`. Its bytes are also removed from the environment block, which
      `/proc/PID/environ` would otherwise show for as long as the process runs.
    - No other process of this user can read this one's memory or trace it (`PR_SET_DUMPABLE`, man 2 prctl). As a side
      effect, files under `/proc/self` such as `mem` and `environ` then belong to root.
    - Neither this process nor its children write core dumps (`RLIMIT_CORE`).

    Returns:
        the text of the variable; None if it is not set, as in a second call, which is harmless.

    Raises:
        VaultLocked: one of these steps failed, so the key is not safe here.
    """
    text = environ.pop(variable, None)
    if not sys.platform.startswith("linux"):
        return text
    try:
        if _prctl(_PR_GET_DUMPABLE) != 0:  # else this was done before, and the files it needs belong to root now
            _wipe(variable)
            _prctl(_PR_SET_DUMPABLE, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except OSError as error:
        raise VaultLocked(
            f"cannot hide {variable} from other processes: {error.strerror}",
            hint="check that /proc is mounted, and that prctl and setrlimit are allowed here",
        ) from error
    return text


def _wipe(variable: str) -> None:
    """Overwrite the variable in the memory block in which the kernel passed the environment."""
    entry = variable.encode() + b"="
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[_ENV_START]), int(fields[_ENV_END])
    if end <= start:
        return
    with open("/proc/self/environ", "rb") as file:
        if not _offsets(file.read(), entry):
            return
    # Through the file and not through a pointer: if the block has moved, this fails instead of crashing.
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start)
        block = memory.read(end - start) or b""
        for position in _offsets(block, entry):
            length = len(block[position:].partition(b"\0")[0])
            memory.seek(start + position)
            memory.write(bytes(length))


def _offsets(block: bytes, entry: bytes) -> list[int]:
    """Return the positions of `NAME=` at the start of an entry, in a block of entries that each end with a NUL."""
    found = [0] if block.startswith(entry) else []
    position = block.find(b"\0" + entry)
    while position >= 0:
        found.append(position + 1)
        position = block.find(b"\0" + entry, position + 1)
    return found


def _prctl(option: int, argument: int = 0) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.prctl(option, argument, 0, 0, 0))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
