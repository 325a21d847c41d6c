"""Control groups that the user's systemd makes, as scopes (`man 1 systemd-run`); `place` finds out if there is one.

A silo in a login session, such as one over SSH, runs outside the part of the groups that the user's systemd may use.
The kernel lets no ordinary user move a process from one part to another. systemd can have it moved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from silo.sandbox.backends.namespace.cgroup import count_oom_kills, new_name
from silo.sandbox.base import Limits
from silo.sizes import MIB

# systemd sets no limit, and says nothing, where the controller is not delegated to it. So the limits are read first.
_CHECK = """\
mount=$1 memory=$2 processes=$3; shift 3
while IFS=: read -r _ controllers path; do [ -n "$controllers" ] || group=$mount$path; done < /proc/self/cgroup
read -r is_memory < "$group/memory.max" && read -r is_processes < "$group/pids.max"
[ "$is_memory" = "$memory" ] && [ "$is_processes" = "$processes" ] || { echo "systemd set no limits" >&2; exit 71; }
ulimit -c 0; exec env -i PATH=/usr/bin:/bin LC_ALL=C "$@"
"""


@dataclass(frozen=True)
class UserManager:
    """The user's systemd, which makes groups as scopes (`man 1 systemd-run`).

    Attributes:
        runtime: the user's runtime folder, with its socket.
        mount: where cgroup v2 is mounted.
        version: of systemd.
        has_policy: a scope takes `OOMPolicy`, with which it goes on when one of its processes runs out of memory.
            Otherwise systemd may end all of it, and a call learns only that its guest is lost.
    """

    program: Path
    runtime: Path
    mount: Path
    version: int
    has_policy: bool = True

    @property
    def text(self) -> str:
        """What makes the groups."""
        return f"a scope of systemd {self.version}"

    def make(self, limits: Limits) -> ScopeGroup:
        """Return a scope that will exist when its command runs."""
        return ScopeGroup(self, new_name(), limits)

    def sweep(self) -> None:
        """systemd deletes a scope once it is empty; and its processes die with silo."""


@dataclass(frozen=True)
class ScopeGroup:
    """A scope."""

    manager: UserManager
    name: str
    limits: Limits

    def command(self, argv: Sequence[str]) -> list[str]:
        """Let `systemd-run` join the scope, a shell check its limits, and become `argv`."""
        memory_bytes = self.limits.memory_mib * MIB
        properties = [f"MemoryMax={memory_bytes}", "MemorySwapMax=0", f"TasksMax={self.limits.processes}"]
        if self.manager.has_policy:
            properties.append("OOMPolicy=continue")
        return [
            *("/usr/bin/env", f"XDG_RUNTIME_DIR={self.manager.runtime}", str(self.manager.program)),
            *("--user", "--scope", "--quiet", "--collect", f"--unit={self.name}.scope"),
            *(word for each in properties for word in ("-p", each)),
            *("--", "/bin/sh", "-c", _CHECK, "sh", str(self.manager.mount), str(memory_bytes)),
            *(str(self.limits.processes), *argv),
        ]

    def oom_kills(self, pid: int) -> int:
        """Read the kernel's count in the folder that systemd made."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
                if line.startswith("0::") and self.name in line:
                    return count_oom_kills(self.manager.mount / line[3:].lstrip("/"))
        return 0

    def remove(self) -> None:
        """systemd does this."""
