"""Which terminal a person types at, as a name: an approval for one command there counts for the others there.

Whether a person is there to answer is decided by `silo_interaction.terminal`.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

_NAME_CHARS = 16
_START_TIME = 21 - 2
"""`starttime` in `/proc/PID/stat` (`man 5 proc_pid_stat`), counted from the field after the name."""


def terminal_name(proc: Path = Path("/proc")) -> str:
    """Return a name for this process's terminal session, or empty if no person types at it.

    A person types at it if standard input and standard error are its controlling terminal, and this process is in the
    foreground there. So a program that runs commands in pipes, such as an agent, has no part in what a person approved.
    The name is that of one login or window: a later one on the same device has another.
    """
    try:
        if {os.tcgetpgrp(0), os.tcgetpgrp(2)} != {os.getpgrp()}:
            return ""
        leader = os.getsid(0)
        facts = (proc / str(leader) / "stat").read_text().rpartition(") ")[2].split()
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        text = f"{boot} {os.fstat(0).st_rdev} {leader} {facts[_START_TIME]}"
    except (OSError, ValueError, IndexError):  # no terminal, or no /proc; then each command is a session of its own
        return ""
    return hashlib.sha256(text.encode()).hexdigest()[:_NAME_CHARS]
