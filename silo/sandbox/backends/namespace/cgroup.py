"""Control groups that silo makes itself, as folders (`man 7 cgroups`); `place` finds out where.

Groups of a silo that was killed are left with nothing in them, since guests die with silo, and the next silo deletes
them. It never guesses from a process id whether a group is in use: its silo holds a lock on it, which the kernel drops
when that silo ends, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from silo.sandbox.base import Limits
from silo.sizes import MIB

_PREFIX = "silo-guest-"
_NAME = re.compile(rf"{_PREFIX}\d+-[0-9a-f]{{8}}")
"""What `sweep` may remove."""

_REMOVE_S = 2.0

# Joins the groups before bubblewrap starts, so that no part of the guest ever runs outside them.
_JOIN = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1" || exit 71; shift; n=$((n-1)); done; ulimit -c 0; exec "$@"'
)


@dataclass(frozen=True)
class Folders:
    """Folders under which silo can make groups: one with cgroup v2, one for each controller with v1."""

    parents: tuple[Path, ...]
    version: int

    @property
    def text(self) -> str:
        """The version, and where."""
        return f"cgroup v{self.version}, {self.parents[0]}"

    def make(self, limits: Limits) -> FolderGroup:
        """Make a folder under each parent, lock the first, and write the limits.

        The kernel drops the lock when silo ends, however it ends; so `sweep` finds out which groups are in use.
        """
        lock = -1
        while lock < 0:
            first = self.parents[0] / new_name()
            first.mkdir()
            lock = _lock(first)  # -1 if another silo has just taken it for one that was left
        group = FolderGroup(tuple(parent / first.name for parent in self.parents), lock)
        try:
            for folder in group.folders:
                folder.mkdir(exist_ok=folder == first)
                for setting, value in _settings(limits).items():
                    if (folder / setting).exists():
                        (folder / setting).write_text(str(value))
        except OSError:
            group.remove()  # a guest must not run with half of its limits
            raise
        return group

    def sweep(self) -> None:
        """Delete the groups that nobody holds a lock on."""
        for name in sorted({entry.name for parent in self.parents for entry in parent.glob(f"{_PREFIX}*")}):
            if not _NAME.fullmatch(name):
                continue
            lock = _lock(self.parents[0] / name)
            # The first folder is made first and deleted last, so a group without it is in nobody's use.
            if lock >= 0 or not (self.parents[0] / name).exists():
                group = FolderGroup(tuple(parent / name for parent in self.parents), lock)
                group.kill()
                group.remove()


@dataclass(frozen=True)
class FolderGroup:
    """A group that silo made: its folders, and the lock on the first (-1: none)."""

    folders: tuple[Path, ...]
    lock: int = field(compare=False)

    def command(self, argv: Sequence[str]) -> list[str]:
        """Let a shell join the group, and become `argv`."""
        entries = [str(folder / "cgroup.procs") for folder in self.folders]
        return ["/bin/sh", "-c", _JOIN, "sh", str(len(entries)), *entries, *argv]

    def oom_kills(self, pid: int) -> int:
        """Read the kernel's count, in either version."""
        del pid
        return max(count_oom_kills(folder) for folder in self.folders)

    def is_bounded(self, limits: Limits) -> bool:
        """Whether the kernel took the limits."""
        found = {}
        for folder in self.folders:
            for setting in _settings(limits):
                with contextlib.suppress(OSError):
                    found[setting] = (folder / setting).read_text().strip()
        memory = found.get("memory.max", found.get("memory.limit_in_bytes"))
        return (memory, found.get("pids.max")) == (str(limits.memory_mib * MIB), str(limits.processes))

    def kill(self) -> None:
        """Kill whatever is in it."""
        end = time.monotonic() + _REMOVE_S
        for folder in self.folders:
            if (kill := folder / "cgroup.kill").exists():  # Linux 5.14, cgroup v2
                with contextlib.suppress(OSError):
                    kill.write_text("1")
            with contextlib.suppress(OSError):
                while (pids := (folder / "cgroup.procs").read_text().split()) and time.monotonic() < end:
                    for pid in pids:
                        if int(pid) > 0:  # 0 is a process of another pid namespace
                            with contextlib.suppress(OSError):
                                os.kill(int(pid), signal.SIGKILL)
                    time.sleep(0.005)

    def remove(self) -> None:
        """Delete the folders, the locked one last. The kernel may need a moment to notice that a group is empty."""
        end = time.monotonic() + _REMOVE_S
        for folder in reversed(self.folders):
            while True:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > end:
                        break  # without a lock; the next silo sweeps it
                    time.sleep(0.005)
                    continue
                break
        if self.lock >= 0:
            os.close(self.lock)


def new_name() -> str:
    """Return a name for a group, with the id of this process for people who look."""
    return f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"


def _lock(folder: Path) -> int:
    """Lock a folder and return the descriptor that holds the lock; -1 if another process has locked or deleted it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(folder.stat(), os.fstat(descriptor)):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return -1


def _settings(limits: Limits) -> dict[str, int]:
    """Return the limits by the names of their files; each version, and each controller of v1, has some of these."""
    memory_bytes = limits.memory_mib * MIB
    bounds = {"pids.max": limits.processes, "memory.max": memory_bytes, "memory.swap.max": 0}
    bounds |= {"memory.limit_in_bytes": memory_bytes, "memory.memsw.limit_in_bytes": memory_bytes}
    # Without `memory.memsw` (swapaccount=0), swap is not counted; so the group gets none.
    return bounds | {"memory.swappiness": 0}


def count_oom_kills(folder: Path) -> int:
    """Return the kernel's count of a group's folder, in either version; 0 if there is none."""
    for name in ("memory.events", "memory.oom_control"):
        with contextlib.suppress(OSError):
            for line in (folder / name).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0
