"""Run a child process to its end, with all of its children, bounded output and a clean death when the task is cancelled.

Which programs are run and what they may see of the environment is the callers'.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.abc

MAX_OUTPUT_BYTES: Final = 8 * 1024 * 1024
"""Kept of stdout, and as much of stderr: more than the lock of any sane skill; what comes after is read and dropped."""


@dataclass(frozen=True)
class Finished:
    """What uv came to; text is decoded with replacement and capped."""

    status: int
    stdout: str
    stderr: str


async def run_to_end(command: Sequence[str], *, environ: Mapping[str, str], stdin: bytes = b"") -> Finished:
    """Run a command in `/` with exactly this environment.

    When this returns or raises, the process is gone. When it raises (a deadline of the caller's, Ctrl-C), so are the
    children that it started: it leads a session of its own, which is killed whole.

    Raises:
        OSError: it can't be started.
    """
    process = await anyio.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=environ,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = bytearray(), bytearray()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_drain, process.stdout, stdout)
            tasks.start_soon(_drain, process.stderr, stderr)
            tasks.start_soon(_feed, process.stdin, stdin)
            status = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await process.wait()
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await process.aclose()
    return Finished(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


async def _feed(stream: anyio.abc.ByteSendStream, data: bytes) -> None:
    try:
        await stream.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # it ended without reading all of it; its status says why
    finally:
        await stream.aclose()


async def _drain(stream: AsyncIterable[bytes], kept: bytearray) -> None:
    async for chunk in stream:
        kept += chunk[: MAX_OUTPUT_BYTES - len(kept)]
