"""Run apt without prompts, and find the last line of its output for an error message."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

_APT_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def apt(command: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of apt and return its output; it downloads to `cwd`."""
    environment = {**os.environ, **_APT_ENVIRONMENT}
    return subprocess.run(
        list(command), capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL, cwd=cwd
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of a failed command's output, or its exit status."""
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"exit status {done.returncode}"
