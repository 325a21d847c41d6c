"""Where control groups for guests can be made here: bounds for all processes of a guest together.

Resource limits count for each process separately, and shared memory (memfd, anonymous shared mappings, System V) counts
for none. So a guest's memory has a bound only in a control group. There are these ways to one, and `find_place` tries
them in this order, each with a real process:

- a folder of cgroup v2 that is delegated to this user, as those below a user's systemd are, or any if silo is root;
- folders of cgroup v1, if silo is root;
- a scope that the user's systemd makes, for a silo that does not run below it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from silo.sandbox.backends.namespace.cgroup import FolderGroup, Folders
from silo.sandbox.backends.namespace.scope import UserManager
from silo.sandbox.base import Limits
from silo.sandbox.programs import find_program

_TRY_S = 30.0
_TRIAL = Limits(memory_mib=64, processes=16)

_NEEDED = {"memory", "pids"}


class ControlGroup(Protocol):
    """One group, for one guest."""

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that starts `argv` in the group, or fails."""
        ...

    def oom_kills(self, pid: int) -> int:
        """Return how many of its processes the kernel killed because they ran out of memory; `pid` is one of it."""
        ...

    def remove(self) -> None:
        """Delete the group, once its processes are gone. Blocks."""
        ...


class Place(Protocol):
    """Where groups can be made."""

    @property
    def text(self) -> str:
        """What it is, for `silo doctor`."""
        ...

    def make(self, limits: Limits) -> ControlGroup:
        """Make a group with a guest's limits.

        Raises:
            OSError: the kernel refused.
        """
        ...

    def sweep(self) -> None:
        """Delete groups that killed silos left, and kill what is still in them. Blocks."""
        ...


@dataclass(frozen=True)
class Host:
    """Where the kernel tells of groups, so that a test can tell of others.

    Attributes:
        mounts: `/proc/self/mountinfo` (`man 5 proc`).
        own: `/proc/self/cgroup`.
        runtime: the folder with the users' runtime folders.
    """

    mounts: Path = Path("/proc/self/mountinfo")
    own: Path = Path("/proc/self/cgroup")
    runtime: Path = Path("/run/user")


def find_place(host: Host) -> tuple[Place | None, tuple[str, ...]]:
    """Return the first place where a process could be put into a group, and why those before it did not do. Blocks."""
    failed = []
    for place in candidates(host):
        if isinstance(place, str):
            failed.append(place)
            continue
        failure = _try(place)
        if not failure:
            return place, tuple(failed)
        failed.append(f"{place.text}: {failure}")
    return None, tuple(failed)


def _try(place: Place) -> str:
    """Start a process in a group of this place; return why that fails, or an empty string."""
    try:
        group = place.make(_TRIAL)
    except OSError as error:
        return error.strerror or str(error)
    try:
        if isinstance(group, FolderGroup) and not group.is_bounded(_TRIAL):
            return "the kernel takes no limits of memory and processes there"
        done = subprocess.run(
            group.command(["/bin/sh", "-c", "exit 0"]),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            timeout=_TRY_S,
        )
    except subprocess.TimeoutExpired:
        return f"a process did not start within {_TRY_S:.0f} s"
    finally:
        group.remove()
    said = [line for line in done.stderr.splitlines() if line.strip()] or [f"status {done.returncode}"]
    return said[-1].strip() if done.returncode else ""


def candidates(host: Host) -> Iterator[Place | str]:
    """Yield places that may do, untried, and reasons why there are no others."""
    mounts, own = list(_mounts(host.mounts)), dict(_own(host.own))
    unified = next((_inside(mount, own[""]) for mount in mounts if mount.version == 2 and "" in own), None)
    mount = next((mount.point for mount in mounts if mount.version == 2), None)
    if unified is not None and mount is not None:
        found = [folder for folder in (unified, *unified.parents) if folder.is_relative_to(mount)]
        delegated = [Folders((folder,), 2) for folder in found if _delegates(folder)]
        yield from delegated
        if not delegated:
            yield f"cgroup v2: no folder above {unified} is delegated to this user"
    legacy = {
        controller: _inside(mount, own[controller])
        for mount in mounts
        for controller in ("pids", "memory")
        if mount.version == 1 and controller in mount.controllers and controller in own
    }
    folders = tuple(folder for folder in legacy.values() if folder is not None)
    if len(folders) == 2:
        may = all(os.access(folder, os.W_OK) for folder in folders)
        yield Folders(tuple(dict.fromkeys(folders)), 1) if may else "cgroup v1: only root may make groups"
    if mount is None and not folders:
        yield "no cgroup file system with memory and pids is mounted"
    if os.geteuid() != 0 and mount is not None:
        manager = _user_manager(host, mount)
        yield manager
        if isinstance(manager, UserManager):
            yield replace(manager, has_policy=False)  # an older one refuses what it doesn't know


def _user_manager(host: Host, mount: Path) -> UserManager | str:
    program = find_program("systemd-run")
    runtime = host.runtime / str(os.geteuid())
    socket = runtime / "systemd" / "private"
    try:
        is_there = program is not None and stat.S_ISSOCK(socket.stat().st_mode)
    except OSError:
        is_there = False
    if program is None or not is_there:
        return f"systemd: this user has none that runs ({socket})"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, env={}).stdout
    version = re.match(r"systemd (\d+)", said)
    return UserManager(program, runtime, mount, int(version.group(1)) if version else 0)


@dataclass(frozen=True)
class _Mount:
    """A mounted hierarchy: where, which part of it, and with which controllers (v1)."""

    version: int
    point: Path
    root: str
    controllers: tuple[str, ...]


def _mounts(mountinfo: Path) -> Iterator[_Mount]:
    with contextlib.suppress(OSError):
        for line in mountinfo.read_text().splitlines():
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            root, point = (_unescaped(word) for word in before.split(" ")[3:5])
            if kind in ("cgroup", "cgroup2"):
                yield _Mount(2 if kind == "cgroup2" else 1, Path(point), root, tuple(options.split(",")))


def _unescaped(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), word)


def _inside(mount: _Mount, path: str) -> Path | None:
    """Return where a group lies in a mount; None if the mount does not show it."""
    try:
        return mount.point / Path(path).relative_to(mount.root)
    except ValueError:
        return None


def _own(cgroup: Path) -> Iterator[tuple[str, str]]:
    """Yield this process's groups as (controller, path); the controller is empty for cgroup v2 (`man 7 cgroups`)."""
    with contextlib.suppress(OSError):
        for line in cgroup.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                yield controller, path


def _delegates(folder: Path) -> bool:
    """Whether groups under this folder have both controllers, and this user may make them."""
    try:
        enabled = set((folder / "cgroup.subtree_control").read_text().split())
        offered = set((folder / "cgroup.controllers").read_text().split())
    except OSError:
        return False
    if not (os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)):
        return False
    if not enabled >= _NEEDED and offered >= _NEEDED:
        # Whoever delegated it left to its owner what it hands down. It can't hold processes as well; only the root of
        # the whole hierarchy can, which alone has no `cgroup.events`.
        with contextlib.suppress(OSError):
            if not (folder / "cgroup.procs").read_text() or not (folder / "cgroup.events").exists():
                (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(_NEEDED)))
                return True
    return enabled >= _NEEDED
