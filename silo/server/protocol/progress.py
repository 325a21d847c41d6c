"""Progress of a call on its way to the client: kept in order, ever growing, bounded. Knows nothing of calls or of MCP's types."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from silo.model import ProgressReport

MAX_WAITING = 64
"""Reports that wait for a slow client; the oldest go first, since only the latest says where the call is."""

MAX_MESSAGE_CHARS = 1000

T = TypeVar("T")

Send = Callable[[float, float | None, str | None], Awaitable[None]]


async def relayed(send: Send, work: Callable[[Callable[[ProgressReport], None]], Awaitable[T]]) -> T:
    """Do `work`, which gets a function for its reports, and send those meanwhile; all are sent before this returns.

    What `work` does in several steps, each from its own zero, is one growing progress for the client.
    """
    relay = ProgressRelay(send)
    done: list[T] = []
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(relay.forward)
        try:
            done.append(await work(relay.add))
        except Exception as error:  # raised again below: through the task group it would come out as a group
            failure = error
        relay.finish()
    if failure is not None:
        raise failure
    return done[0]


class ProgressRelay:
    """Takes reports from a running call without blocking it, and sends them from a task of its own."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: deque[ProgressReport] = deque(maxlen=MAX_WAITING)
        self._news = anyio.Event()
        self._finished = False

    def add(self, report: ProgressReport) -> None:
        """Take one report; on the event loop, never blocks."""
        self._waiting.append(report)
        self._news.set()

    def finish(self) -> None:
        """Let `forward` end once it has sent what waits: MCP allows no progress after the result."""
        self._finished = True
        self._news.set()

    async def forward(self) -> None:
        """Send what comes in until `finish`."""
        last = -math.inf
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            while self._waiting:
                report = grown(self._waiting.popleft(), last)
                if report is not None:
                    last = report.progress
                    await self._send(report.progress, report.total, report.message)
            if self._finished:
                return


def grown(report: ProgressReport, last: float) -> ProgressReport | None:
    """Return `report` with a progress above `last`, as MCP demands of each notification; None if there is nothing to tell.

    Both silo and the skill report, each from its own zero. A report that comes in too low keeps its message and gets the
    next possible number; one without a message, or with a number that JSON can't carry, is dropped.
    """
    progress = float(report.progress)
    message = None if report.message is None else report.message[:MAX_MESSAGE_CHARS].encode(errors="replace").decode()
    if not math.isfinite(progress):
        return None
    if progress <= last:
        progress = math.nextafter(last, math.inf)
        if not message or not math.isfinite(progress):
            return None
    total = report.total
    if total is not None and (not math.isfinite(total) or total < progress):
        total = None
    return ProgressReport(progress, total, message)
