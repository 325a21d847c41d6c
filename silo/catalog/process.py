"""Run a child process to its end, with bounded output; if the task is cancelled, kill it with all of its children.

The callers choose the programs and their environment.
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
"""The limit for stdout, and for stderr: more than any reasonable lock. The rest is read and dropped."""


@dataclass(frozen=True)
class ProcessResult:
    """A process that has ended; its output is decoded with replacement and capped."""

    status: int
    stdout: str
    stderr: str


async def run_to_end(command: Sequence[str], *, environ: Mapping[str, str], stdin: bytes = b"") -> ProcessResult:
    """Run a command in `/` with exactly this environment.

    When this returns or raises, the process has ended. When it raises (a deadline of the caller, Ctrl-C), its children
    have ended too: it leads its own session, and all of the session is killed.

    Raises:
        OSError: the command can't be started.
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
    return ProcessResult(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


async def _feed(stream: anyio.abc.ByteSendStream, data: bytes) -> None:
    try:
        await stream.send(data)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # the process ended before it read all; its status says why
    finally:
        await stream.aclose()


async def _drain(stream: AsyncIterable[bytes], kept: bytearray) -> None:
    async for chunk in stream:
        kept += chunk[: MAX_OUTPUT_BYTES - len(kept)]
