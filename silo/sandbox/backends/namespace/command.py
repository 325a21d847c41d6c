"""Bubblewrap's command line for a guest (`man 1 bwrap`). Pure but for a look at `/proc`; `backend` starts it.

Paths inside are those of the microVM.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from silo.sandbox.backends.namespace.procfs import covers
from silo.sandbox.base import GuestSpec
from silo.sandbox.identity import Identity
from silo.sizes import MIB

SKILL_UID = 1000
"""The user that a guest sees in a user namespace; in the microVM, it is the same."""

_BECOME = """\
os.setgroups([])
os.setresgid({user}, {user}, {user})
os.setresuid({user}, {user}, {user})
"""
"""What a guest does first if it starts as root (`silo.sandbox.identity`), before it can import anything of the skill.

The kernel then forgets that this process dies with bubblewrap (`man 2 prctl`, PR_SET_PDEATHSIG). It ends all the same
when silo does: `silo.guest.init` reads the control stream to its end.
"""

_START = """\
import os, sys
{become}sys.path[:0] = ["/runtime"]
sys.path.append("/skill/env")
from silo.guest.init import main_namespace
main_namespace({streams}, processes={processes}, data_bytes={data}, file_bytes={file})
"""

_USERS = """\
root:x:0:0:root:/:/usr/sbin/nologin
skill:x:{user}:{user}:skill:/tmp:/usr/sbin/nologin
"""


def confinement(identity: Identity, user: int | None, empty: Path) -> list[str]:
    """Return the options that every guest has, whatever its files are; the probe tries the same.

    Args:
        identity: how it is kept from being root.
        user: the user that was drawn for it, if silo is root.
        empty: an empty folder of the host.
    """
    options = [*identity.namespaces, "--die-with-parent", "--new-session", "--as-pid-1", "--clearenv"]
    if user is None:
        options += ["--disable-userns", "--uid", str(SKILL_UID), "--gid", str(SKILL_UID)]
    options += ["--proc", "/proc", *covers(empty)]
    # Nothing there is for writing. Bubblewrap makes folders read-only only if it finds that it can write to them.
    return [*options, "--remount-ro", "/proc"]


def files(spec: GuestSpec) -> list[str]:
    """Return the options for the guest's file system, without `/proc`."""
    root, scratch = spec.root.tree, str(spec.limits.scratch_mib * MIB)
    options: list[str] = []
    for folder in ("usr", "opt", "etc"):
        options += ["--ro-bind", str(root / folder), f"/{folder}"]
    options += ["--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib", "/lib64"]
    for path, image in spec.mounts.items():
        options += ["--ro-bind", str(image.tree), path]
    options += ["--dev", "/dev", "--perms", "1777", "--size", scratch, "--tmpfs", "/dev/shm"]
    return [*options, "--perms", "1777", "--size", scratch, "--tmpfs", "/tmp", "--remount-ro", "/dev"]


def passwd(user: int) -> bytes:
    """Return `/etc/passwd` for a guest whose user was drawn."""
    return _USERS.format(user=user).encode()


def program(spec: GuestSpec, ends: Sequence[int], user: int | None) -> list[str]:
    """Return what the guest runs: the guest's init, with its ends of the streams."""
    start = _START.format(
        become="" if user is None else _BECOME.format(user=user),
        streams=", ".join(map(str, ends)),
        processes=spec.limits.processes,
        data=spec.limits.memory_mib * MIB,
        file=spec.limits.scratch_mib * MIB,
    )
    return ["/usr/bin/python3", "-I", "-S", "-B", "-c", start]
