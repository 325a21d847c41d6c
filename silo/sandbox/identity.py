"""Which user a confined program is for the host's kernel. It is never root, whoever silo is.

If silo is an ordinary user, the program stays that user, in a user namespace of its own. If silo is root, a user
namespace alone would change only how the program sees itself: for the host's kernel it would still be user 0, to whom
`/proc/sys` and all of root's files belong, and whom limits of processes don't bind. So it becomes a user that owns
nothing, and each program becomes another one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from silo.errors import SandboxUnavailable
from silo.sandbox.seccomp import sealed

_UNUSED = (range(0x70000000, 0x7FFE0000), range(61184, 65520))
"""Ids that belong to nobody, best first: unused by any convention that systemd's "Users, Groups, UIDs and GIDs" knows,
and those of its dynamic users, for a container that has only 16 bits of ids."""

_NEEDED = {"CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SYS_ADMIN": 21}
"""`linux/capability.h`: to make the other namespaces without one of users, and to become the user."""

_TRY_S = 30.0

_NAMESPACES = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")


@dataclass(frozen=True)
class Identity:
    """How programs are kept from being the host's root.

    Attributes:
        users: ids to choose from, if silo is root; None if a user namespace is enough.
    """

    users: range | None = None

    @property
    def text(self) -> str:
        """What `silo doctor` says."""
        return "in a user namespace" if self.users is None else "as a user of its own"

    def draw(self) -> int | None:
        """Return the id of a user, and of a group, for one program; None if it stays silo's user."""
        return None if self.users is None else self.users.start + secrets.randbelow(len(self.users))

    @property
    def namespaces(self) -> list[str]:
        """Bubblewrap's options for all namespaces but that of mounts, which it always makes, and for capabilities.

        Without a user namespace, the program starts as root with two capabilities, and loses them as it becomes the
        user that was drawn.
        """
        if self.users is None:
            return ["--unshare-user", *_NAMESPACES, "--cap-drop", "ALL"]
        keep = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        return [*_NAMESPACES, "--cap-drop", "ALL", *keep]


def find_identity(proc: Path = Path("/proc/self"), *, user: int | None = None) -> Identity:
    """Return how programs are confined here.

    Args:
        proc: the folder with `status`, `uid_map` and `gid_map` (`man 5 proc`).
        user: the effective user, or None for this process's own.

    Raises:
        SandboxUnavailable: silo is root, and can neither become another user nor is in a user namespace.
    """
    if (os.geteuid() if user is None else user) != 0:
        return Identity()
    maps = [_extents(proc / name) for name in ("uid_map", "gid_map")]
    lacking = _lacking(proc / "status")
    for users in _UNUSED:
        if not lacking and all(any(users.start in ids and users[-1] in ids for ids, _ in each) for each in maps):
            return Identity(users)
    if all(outside != 0 for ids, outside in maps[0] if 0 in ids):
        return Identity()  # only this user namespace takes silo for root
    why = f"has no {' and no '.join(lacking)}" if lacking else "has no other user ids"
    raise SandboxUnavailable(
        f"silo runs as root and {why} here, so QEMU and guests would be root for the host's kernel",
        hint="run silo as an ordinary user (in a container: `USER` in its Dockerfile, or `docker run --user 1000`)",
    )


def try_to_confine(bwrap: Path, options: Sequence[str], rules: bytes) -> str:
    """Run `true` with all of the host's files, these options of bubblewrap, and a filter. Blocks.

    Returns:
        Why that fails, in bubblewrap's words; empty if it works.
    """
    true = shutil.which("true", path="/usr/bin:/bin") or "/bin/true"
    descriptor = sealed(rules)
    try:
        argv = [str(bwrap), "--ro-bind", "/", "/", *options, "--seccomp", str(descriptor), "--", true]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env={}, pass_fds=(descriptor,), timeout=_TRY_S
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {_TRY_S:.0f} s"
    finally:
        os.close(descriptor)
    said = [line for line in done.stderr.splitlines() if line.strip()] or [f"status {done.returncode}"]
    return said[-1].strip() if done.returncode else ""


def why_not(message: str, *, proc: Path = Path("/proc")) -> str:
    """Return what to do about bubblewrap's message, e.g. `setting up uid map: Permission denied`."""

    def switch(name: str) -> str:
        try:
            return (proc / "sys" / name.replace(".", "/")).read_text().strip()
        except OSError:
            return ""

    if switch("kernel.unprivileged_userns_clone") == "0":
        return (
            "user namespaces are switched off: `sudo sysctl -w kernel.unprivileged_userns_clone=1`, and put that line "
            "(without `sudo sysctl -w`) into /etc/sysctl.d/60-userns.conf"
        )
    if switch("user.max_user_namespaces") == "0":
        return (
            "no user namespace may be made: `sudo sysctl -w user.max_user_namespaces=10000`, and put that line "
            "(without `sudo sysctl -w`) into /etc/sysctl.d/60-userns.conf"
        )
    if switch("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor keeps bwrap from using user namespaces; allow it for bwrap alone: "
            f"`{ALLOW_BWRAP}`, then `sudo apparmor_parser -r /etc/apparmor.d/bwrap`"
        )
    if "No space left" in message:
        return "too many user namespaces: raise `user.max_user_namespaces` with `sudo sysctl -w`"
    return (
        "in a container, allow user namespaces and mounts in them: docker's `--security-opt` with `seccomp=` and "
        "`apparmor=` profiles that do, and `systempaths=unconfined`"
    )


ALLOW_BWRAP = (
    "printf 'abi <abi/4.0>,\\nprofile bwrap /usr/bin/bwrap flags=(unconfined) { userns, }\\n' "
    "| sudo tee /etc/apparmor.d/bwrap"
)
"""Writes a profile that lets bwrap, and nothing else, make user namespaces (Ubuntu 24.04 and later)."""


def _extents(path: Path) -> list[tuple[range, int]]:
    """Return the ids that a user namespace has, and which id the first of each extent is outside."""
    found = []
    for line in path.read_text().splitlines():
        inside, outside, count = (int(word) for word in line.split())
        found.append((range(inside, inside + count), outside))
    return found


def _lacking(status: Path) -> list[str]:
    effective = next(line for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    held = int(effective.split()[1], 16)
    return [name for name, number in _NEEDED.items() if not held >> number & 1]
