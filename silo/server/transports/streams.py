"""The process's standard streams as the channel of the protocol: claimed, read and written by descriptor.

It replaces the library's own stdio transport for two reasons. That one reads in a thread that only the next line can
end, so the process would hang after a signal. And it claims stdout only when it is imported, when some other library
may already have printed.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import anyio
import anyio.lowlevel

from silo.errors import UsageError

READ_BYTES = 256 * 1024
WRITE_BYTES = 4096
"""PIPE_BUF on Linux: how much a pipe that polls as writable accepts without blocking (man 7 pipe)."""

MAX_LINE_BYTES = 64 * 1024 * 1024
"""One message: the largest files of a call (`Limits.files_bytes`, 32 MiB) in base64, and room to spare."""


class LineTooLong(ValueError):
    """A line of more than `MAX_LINE_BYTES`, which is dropped."""


@dataclass(frozen=True)
class Pipes:
    """The descriptors of the protocol. No child process inherits them."""

    read_fd: int
    write_fd: int


@contextmanager
def claimed() -> Iterator[Pipes]:
    """Take descriptors 0 and 1 for the protocol. Meanwhile stdin reads as empty, and prints go to stderr.

    That holds for C code and child processes, too, and for what Python's `sys.stdout` buffered before.

    Raises:
        UsageError: stdin or stdout is closed.
    """
    # Python sets these to None if the descriptor was closed at its start. Another file may have taken it since.
    if sys.__stdin__ is None or sys.__stdout__ is None:
        raise UsageError(
            "stdin and stdout must be open: MCP is spoken over them",
            hint="let an MCP client start this command; `silo mcp config CLIENT` prints the entry for it",
        )
    # Above 2: otherwise, with stderr closed, one of them could become everybody's stderr.
    pipes = Pipes(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3), fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3))
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.dup2(null, 0)
        try:
            os.dup2(2, 1)
        except OSError:
            os.dup2(null, 1)
        _flush_stdout()  # what was printed before is not part of the protocol, either
        yield pipes
    finally:
        _flush_stdout()
        os.dup2(pipes.read_fd, 0)
        os.dup2(pipes.write_fd, 1)
        for descriptor in (null, pipes.read_fd, pipes.write_fd):
            os.close(descriptor)


def _flush_stdout() -> None:
    with suppress(OSError, ValueError):  # nobody reads stderr, or the object is closed: only this text is lost
        sys.stdout.flush()


async def lines(fd: int) -> AsyncIterator[bytes | LineTooLong]:
    """Yield the lines that arrive on `fd`, without their ends, until the other side closes it.

    Cancellable at any time. A line that is too long is yielded as one `LineTooLong`; blank lines are skipped.
    """
    buffer = bytearray()
    overlong = False
    while chunk := await _read(fd):
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            buffer += chunk[start:end]
            start = end + 1
            if overlong or len(buffer) > MAX_LINE_BYTES:
                yield LineTooLong(f"a line of more than {MAX_LINE_BYTES:,} bytes")
            elif buffer.strip():
                yield bytes(buffer)
            buffer.clear()
            overlong = False
        buffer += chunk[start:]
        if len(buffer) > MAX_LINE_BYTES:
            overlong = True
            buffer.clear()


async def write(fd: int, data: bytes) -> None:
    """Write all of `data` to `fd`, waiting for the other side to read.

    Raises:
        BrokenPipeError: nobody will read it.
    """
    view = memoryview(data)
    while view:
        await _ready(anyio.wait_writable, fd)
        try:
            view = view[os.write(fd, view[:WRITE_BYTES]) :]
        except BlockingIOError:  # the client made its end of a socket non-blocking, and it filled up after our poll
            continue


async def _read(fd: int) -> bytes:
    while True:
        await _ready(anyio.wait_readable, fd)
        try:
            return os.read(fd, READ_BYTES)
        except BlockingIOError:
            continue
        except ConnectionResetError:  # the other end of a socket is gone
            return b""


async def _ready(wait: Callable[[int], Awaitable[None]], fd: int) -> None:
    try:
        await wait(fd)
    except PermissionError:
        # epoll refuses regular files and /dev/null (EPERM, man 2 epoll_ctl), which never block.
        await anyio.lowlevel.checkpoint()
