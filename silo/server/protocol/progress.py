"""Relay a call's progress to the client: in order, always growing, bounded. Independent of calls and MCP's types."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from silo.model import ProgressReport

MAX_WAITING = 64
"""How many reports wait for a slow client. The oldest are dropped, because only the latest matters."""

MAX_MESSAGE_CHARS = 1000

T = TypeVar("T")

Send = Callable[[float, float | None, str | None], Awaitable[None]]


async def relayed(send: Send, work: Callable[[Callable[[ProgressReport], None]], Awaitable[T]]) -> T:
    """Do `work` and send what it reports meanwhile. All reports are sent before this returns.

    `work` gets a function that takes reports. Several steps of it may each count from zero; the client sees one
    progress that grows.
    """
    relay = ProgressRelay(send)
    done: list[T] = []
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(relay.forward)
        try:
            done.append(await work(relay.add))
        except Exception as error:  # raised again below; the task group would wrap it into a group
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
        """Take one report. Call it on the event loop; it never blocks."""
        self._waiting.append(report)
        self._news.set()

    def finish(self) -> None:
        """Let `forward` end after it has sent what waits. MCP allows no progress after the result."""
        self._finished = True
        self._news.set()

    async def forward(self) -> None:
        """Send reports until `finish` is called."""
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
    """Return `report` with a progress above `last`, as MCP requires of each notification, or None to drop it.

    Both silo and the skill report, and each counts from zero. A report with a number that is too low keeps its message
    and gets the next possible number. It is dropped if it has no message, or a number that JSON can't carry.
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
