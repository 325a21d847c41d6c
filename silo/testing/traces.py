"""Find what a guest left behind on the host: processes, descriptors, control groups, mounts, files. Linux only.

For `silo.testing.conformance` and the tests of silo's promises. Nothing here ends or removes what it finds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from silo.sandbox.backends.namespace.cgroup import Folders
from silo.sandbox.backends.namespace.place import Host, candidates


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """Adopt orphaned grandchildren (`man 2 prctl`, PR_SET_CHILD_SUBREAPER), so that `processes` finds all of them."""
    libc = ctypes.CDLL(None)
    libc.prctl(36, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(36, 0, 0, 0, 0)


def processes() -> dict[int, str]:
    """Return the names of all living descendants of this process by process id; reaps adopted ones that have ended.

    A process that the kernel is ending (PF_EXITING of `linux/sched.h`) runs no more code, and counts as ended.
    """
    parents: dict[int, tuple[int, bool, str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                state, parent, _, _, _, _, flags = rest.split()[:7]
                parents[int(entry.name)] = (int(parent), state != "Z" and not int(flags) & 4, name)
    family = {os.getpid()}
    while more := {pid for pid, (parent, _, _) in parents.items() if parent in family} - family:
        family |= more
    found = {}
    for pid in family - {os.getpid()}:
        parent_pid, is_alive, process_name = parents[pid]
        if is_alive:
            found[pid] = process_name
        elif parent_pid == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    return found


def traces(temporary: Path | None) -> dict[str, object]:
    """Return the processes, open descriptors, control groups, mounts and temporary files that a guest could leave."""
    groups = [
        entry.name
        for place in candidates(Host())
        if isinstance(place, Folders)
        for folder in place.parents
        for entry in folder.iterdir()
        if entry.name.startswith(f"silo-guest-{os.getpid()}-")
    ]
    return {
        "processes": processes(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "groups": sorted(groups),
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "files": sorted(path.name for path in temporary.rglob("*")) if temporary is not None else [],
    }
