"""Reads from the descriptors of a guest without blocking the event loop, and without letting a guest keep it busy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint

_READ_BYTES = 256 * 1024

_SMALL_BYTES = 1024
"""A read that returns less costs more than its bytes are worth."""

_BURST = 200
_PER_S = 200
"""How many small reads of one stream are for free, and how many a second after that. A guest that writes single bytes
as fast as it can then costs the host 1 % of a core; what it writes meanwhile waits, and is read at once."""


class Pace:
    """Spreads what a guest may make the host do: `burst` times at once, `per_s` times a second in the long run.

    This is the generic cell rate algorithm (ITU-T I.371, annex A).
    """

    def __init__(self, *, burst: int, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ahead_s = burst / per_s
        self._each_s = 1 / per_s
        self._clock = clock
        self._due = clock()

    def spend(self) -> float:
        """Count one more, and return how many seconds to wait before doing it."""
        now = self._clock()
        self._due = max(self._due, now) + self._each_s
        return max(0.0, self._due - self._ahead_s - now)

    async def wait(self) -> None:
        """Count one more, and wait until it may be done; lets other tasks run in any case."""
        await anyio.sleep(self.spend())


class Reader:
    """Reads a non-blocking descriptor of a guest; many small pieces are read more slowly than few large ones."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pace = Pace(burst=_BURST, per_s=_PER_S)
        self._pause_s = 0.0

    async def some(self) -> bytes:
        """Wait for data and read it; `EOFError` at the end."""
        if self._pause_s > 0:  # before the read: what was read must not be lost if the wait is cancelled
            await anyio.sleep(self._pause_s)
        data = await read_some(self._descriptor)
        self._pause_s = self._pace.spend() if len(data) < _SMALL_BYTES else 0.0
        return data


async def read_some(descriptor: int) -> bytes:
    """Wait for data and read it; `EOFError` at the end.

    Lets other tasks run each time: otherwise a guest that writes without end would keep the event loop from everything
    else, including its own deadline.
    """
    while True:
        await checkpoint()
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            await anyio.wait_readable(descriptor)
            continue
        except ConnectionResetError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        return data
