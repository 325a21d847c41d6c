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
from pathlib import Path
from typing import Final

import anyio
import anyio.abc

MAX_OUTPUT_BYTES: Final = 8 * 1024 * 1024
"""The limit for stdout, and for stderr: more than any reasonable lock. The rest is read and dropped."""

_LOOK_EVERY_S: Final = 0.05


class TooMuchWritten(Exception):
    """A process wrote more bytes than it may, and was killed.

    Attributes:
        open_files: the files that it had open then.
    """

    def __init__(self, open_files: tuple[Path, ...]) -> None:
        super().__init__("the process wrote too many bytes")
        self.open_files = open_files


@dataclass(frozen=True)
class ProcessResult:
    """A process that has ended; its output is decoded with replacement and capped."""

    status: int
    stdout: str
    stderr: str


async def run_to_end(
    command: Sequence[str], *, environ: Mapping[str, str], stdin: bytes = b"", max_written_bytes: int | None = None
) -> ProcessResult:
    """Run a command in `/` with exactly this environment.

    When this returns or raises, the process has ended. When it raises (a deadline of the caller, Ctrl-C), its children
    have ended too: it leads its own session, and all of the session is killed.

    Args:
        command: the program and its arguments.
        environ: its environment.
        stdin: what it reads.
        max_written_bytes: how much it may write, as the kernel counts it (`wchar` in `man 5 proc_pid_io`). It is looked
            at every 0.05 s, so it may be some hundred MB more. Without `/proc`, nothing is counted.

    Raises:
        OSError: the command can't be started.
        TooMuchWritten: it wrote more than it may.
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
    watching = anyio.CancelScope()
    too_much: list[TooMuchWritten] = []
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_drain, process.stdout, stdout)
            tasks.start_soon(_drain, process.stderr, stderr)
            tasks.start_soon(_feed, process.stdin, stdin)
            if max_written_bytes is not None:
                tasks.start_soon(_watch, process.pid, max_written_bytes, watching, too_much)
            status = await process.wait()
            watching.cancel()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await process.wait()
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await process.aclose()
    if too_much:
        raise too_much[0]
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


async def _watch(pid: int, limit: int, scope: anyio.CancelScope, too_much: list[TooMuchWritten]) -> None:
    """Kill a session whose leader wrote more than `limit` bytes; the leader is not yet waited for."""
    with scope, contextlib.suppress(OSError):  # no /proc, or the process has ended
        while _written(pid) <= limit:  # noqa: ASYNC110  the kernel has no event for this
            await anyio.sleep(_LOOK_EVERY_S)
        os.killpg(pid, signal.SIGSTOP)
        too_much.append(TooMuchWritten(_open_files(pid)))
        os.killpg(pid, signal.SIGKILL)


def _written(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


def _open_files(pid: int) -> tuple[Path, ...]:
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(descriptor.readlink())
    return tuple(link for link in links if link.is_absolute())
