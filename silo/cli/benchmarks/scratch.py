"""What the benchmarks that run calls have in common: a throw-away folder, and an environment of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from silo.cli.context import run_until_signal

T = TypeVar("T")


def scratch_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the user's environment without silo's settings, with a new master key.

    It has no screen, so that no browser is opened for questions that nobody is meant to see.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith("SILO_") and name not in {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"}
    }
    return kept | {"SILO_MASTER_KEY": os.urandom(32).hex()}


def run_in_scratch_folder(work: Callable[[Path], Awaitable[T]]) -> T:
    """Run something in a new folder, which is always deleted, also if a signal ends it (`run_until_signal`).

    Raises:
        EndedBySignal: a signal ended it.
    """

    async def play() -> T:
        # Made here, where a signal ends the work and not the process.
        folder = Path(tempfile.mkdtemp(prefix="silo-bench-"))
        try:
            return await work(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return run_until_signal(play)
