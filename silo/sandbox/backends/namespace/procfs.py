"""What a guest sees of `/proc`: its own processes, its network, and a few facts that programs ask for.

The kernel has one `/proc` for facts about the whole host: names of the users' kernel keys, its command line, its disks,
modules, locks and interrupts, its settings. No namespace hides them. So everything is covered but a list, and what a
later kernel adds is covered too. `silo.sandbox.backends.namespace.backend` mounts.
"""

from __future__ import annotations

import os
from pathlib import Path

VISIBLE = frozenset({"cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "uptime", "version"})
"""What programs ask about the machine: its CPUs, memory and load, and its kernel, which system calls tell as well."""

_OTHERS = 0o007


def covers(empty: Path, proc: Path = Path("/proc")) -> list[str]:
    """Return bubblewrap's options that cover the rest of a new `/proc`.

    Entries that only root may use are left: a guest is never root (`silo.sandbox.identity`). A covered file can't be
    opened, because bubblewrap allows no devices there; a covered folder is empty.

    Args:
        empty: an empty folder of the host.
        proc: the host's, which has the same names.
    """
    options: list[str] = []
    with os.scandir(proc) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.isdigit() or entry.name in VISIBLE or entry.is_symlink():
                continue
            if entry.stat(follow_symlinks=False).st_mode & _OTHERS:
                source = empty if entry.is_dir(follow_symlinks=False) else Path("/dev/null")
                options += ["--ro-bind", str(source), f"/proc/{entry.name}"]
    return options
