"""A control group for one guest of the namespace backend: bounds for all its processes together.

Works with cgroup v2 if a folder is delegated to the user or silo is root, and with v1 as root. Otherwise the guest has
only resource limits, which count for each process separately; `silo doctor` says so.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from silo.sandbox.base import Limits
from silo.sizes import MIB

_MOUNT = Path("/sys/fs/cgroup")
_REMOVE_S = 2.0


@dataclass(frozen=True)
class ControlGroup:
    """One group: its folders (one with v2, one per controller with v1)."""

    folders: tuple[Path, ...]

    @property
    def entries(self) -> tuple[Path, ...]:
        """The files to which a process writes its id in order to join."""
        return tuple(folder / "cgroup.procs" for folder in self.folders)

    def oom_kills(self) -> int:
        """How many of its processes the kernel killed because they ran out of memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    for line in (folder / name).read_text().splitlines():
                        if line.startswith("oom_kill "):
                            return int(line.split()[1])
        return 0

    def remove(self) -> None:
        """Delete the group once its processes are gone. The kernel may need a moment to notice that."""
        end = time.monotonic() + _REMOVE_S
        for folder in self.folders:
            while True:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    if time.monotonic() > end:
                        break  # empty and harmless; the next boot clears it
                    time.sleep(0.005)
                    continue
                break


def parents() -> tuple[Path, ...] | None:
    """Return the folders under which groups can be made here, or None if there are none."""
    own = dict(_own())
    if "" in own and (_MOUNT / "cgroup.controllers").is_file():
        folder = _MOUNT / own[""].lstrip("/")
        for candidate in (folder, *folder.parents):
            if not candidate.is_relative_to(_MOUNT):
                break
            if _delegates(candidate):
                return (candidate,)
        return None
    legacy = [_MOUNT / name / own[name].lstrip("/") for name in ("pids", "memory") if name in own]
    if len(legacy) == 2 and all(os.access(folder, os.W_OK) for folder in legacy):
        return tuple(legacy)
    return None


def make(under: tuple[Path, ...], name: str, limits: Limits) -> ControlGroup:
    """Make a group with a guest's limits.

    Raises:
        OSError: the kernel refused.
    """
    group = ControlGroup(tuple(folder / name for folder in under))
    memory_bytes = limits.memory_mib * MIB
    settings = {"pids.max": limits.processes, "memory.max": memory_bytes, "memory.swap.max": 0}
    settings |= {"memory.limit_in_bytes": memory_bytes, "memory.memsw.limit_in_bytes": memory_bytes}
    try:
        for folder in group.folders:
            folder.mkdir()
            for setting, value in settings.items():
                if (folder / setting).exists():
                    (folder / setting).write_text(str(value))
    except OSError:
        group.remove()  # a guest must not run with half of its limits
        raise
    return group


def _own() -> Iterator[tuple[str, str]]:
    """Yield this process's groups as (controller, path); the controller is empty for cgroup v2 (`man 7 cgroups`)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                yield controller, path


def _delegates(folder: Path) -> bool:
    try:
        enabled = set((folder / "cgroup.subtree_control").read_text().split())
    except OSError:
        return False
    return {"pids", "memory"} <= enabled and os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)
