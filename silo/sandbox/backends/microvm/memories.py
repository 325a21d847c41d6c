"""Sealed copies of templates' memory, for a QEMU that can't map a file read-only; bounded by size and by use.

QEMU before 8.2 opens the memory file of a guest read-write even if it maps it privately. It gets a copy in memory that
is sealed against writing, so that no clone can change what the next one starts from. A copy takes 100 to 170 MiB and
some 50 ms, so a process that stays keeps those that were used last. Newer versions need no copy: they map the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from silo.errors import SandboxBroken

_IDLE_S = 900.0
"""How long a copy is kept that no clone was started from: as long as a clone waits (`pool`), which needs it as well."""

_Key = tuple[int, int, int]


@dataclass
class _Copy:
    descriptor: int
    size_bytes: int
    used_at: float


class Memories:
    """The copies that one process keeps.

    Args:
        budget_bytes: how much all of them together may take. The kernel frees a copy that is not kept when the last
            clone that was started from it ends.
        clock: a monotonic clock in seconds.
    """

    def __init__(self, budget_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget_bytes = budget_bytes
        self._clock = clock
        self._kept: OrderedDict[_Key, _Copy] = OrderedDict()
        self._filled = anyio.Event()
        self._copying = anyio.Lock()

    @property
    def size_bytes(self) -> int:
        """How much memory the kept copies take."""
        return sum(copy.size_bytes for copy in self._kept.values())

    @contextlib.asynccontextmanager
    async def copy_of(self, memory: Path) -> AsyncIterator[int]:
        """Yield the descriptor of a copy of a template's memory file. It is valid until the context ends.

        Raises:
            SandboxBroken: the file can't be read, or there is no memory for the copy.
        """
        async with self._copying:  # calls that come at once share a copy
            try:
                key = _identity(memory)
                known = self._kept.get(key)
                # A descriptor of its own: the kept one may be closed while a clone is being started.
                descriptor = os.dup(known.descriptor) if known else await anyio.to_thread.run_sync(sealed_copy, memory)
            except OSError as error:
                raise SandboxBroken(
                    f"cannot copy the memory of a template: {error}",
                    hint="see with `free -h` whether this machine has memory for it, then call again",
                ) from error
            self._keep(key, descriptor)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    async def forget_unused(self) -> None:
        """Close copies that nobody has used for a quarter of an hour. Runs until it is cancelled."""
        while True:
            await self._filled.wait()
            while self._kept:
                oldest = next(iter(self._kept.values()))
                await anyio.sleep(max(0.0, oldest.used_at + _IDLE_S - self._clock()))
                self.sweep()
            self._filled = anyio.Event()

    def sweep(self) -> None:
        """Close the copies that have not been used for too long."""
        while self._kept and next(iter(self._kept.values())).used_at + _IDLE_S <= self._clock():
            self._drop_oldest()

    def close(self) -> None:
        """Close all copies."""
        while self._kept:
            self._drop_oldest()

    def _keep(self, key: _Key, descriptor: int) -> None:
        known = self._kept.get(key)
        if known is None:
            size_bytes = os.fstat(descriptor).st_blocks * 512
            known = self._kept[key] = _Copy(os.dup(descriptor), size_bytes, self._clock())
        known.used_at = self._clock()
        self._kept.move_to_end(key)
        while self.size_bytes > self._budget_bytes:
            self._drop_oldest()
        if self._kept:
            self._filled.set()

    def _drop_oldest(self) -> None:
        _, copy = self._kept.popitem(last=False)
        os.close(copy.descriptor)


def _identity(memory: Path) -> _Key:
    """Identify a file; a template that was made anew has the same path, but is another file."""
    status = memory.stat()
    return status.st_dev, status.st_ino, status.st_mtime_ns


def sealed_copy(path: Path) -> int:
    """Copy the data of a sparse file into a memfd, and seal it against every change; return its descriptor."""
    copy = os.memfd_create("template", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(source).st_size
        os.ftruncate(copy, size)
        at = 0
        while True:
            try:
                start = os.lseek(source, at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                break
            at = os.lseek(source, start, os.SEEK_HOLE)
            os.lseek(copy, start, os.SEEK_SET)
            while start < at:
                start += os.sendfile(copy, source, start, at - start)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(copy)
        raise
    finally:
        os.close(source)
    return copy
