"""News of the board for open pages: one look at it a few times a second, whoever many are watching. What they say: `app`."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable

from silo_interaction.board import Board
from silo_interaction.page.sessions import Session

logger = logging.getLogger(__name__)

POLL_S = 0.3
"""A person sees no delay below this."""
MAX_STREAMS = 8
"""The script of the page shares one stream between all tabs of a browser, so this is enough for eight browsers."""

_REREAD_S = 2.0
"""So often the questions are read though the version is the same: time runs out without anybody writing something down."""
_HEARTBEAT_S = 10.0
"""Also how long a stream can outlive its session."""


class BoardFeed:
    """The state of the board as open pages know it. Runs in the page's loop; only `viewers` may be read from other threads."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._version: str | None = None
        self._looked_at = float("-inf")
        self._busy_at = time.monotonic()
        self._waiting: tuple[str, ...] = ()
        self._news = asyncio.Event()
        self._is_ending = False
        self._viewers = 0

    @property
    def viewers(self) -> int:
        """How many event streams are connected."""
        return self._viewers

    @property
    def idle_s(self) -> float:
        """For how long nothing has been waiting."""
        return time.monotonic() - self._busy_at

    def poll(self) -> None:
        """Look at the board, and wake the streams if the list of questions is another one."""
        try:
            version = self._board.version()
            if version == self._version and time.monotonic() - self._looked_at < _REREAD_S:
                waiting = self._waiting
            else:
                waiting = tuple(posted.id for posted in self._board.waiting())
                self._looked_at = time.monotonic()
        except Exception as error:  # the board is the caller's, and one look that fails must not end the page
            logger.error("the board can't be read: %s\n%s", type(error).__name__, traceback_only(error))
            self._busy_at = time.monotonic()  # something may be waiting
            return
        if waiting:
            self._busy_at = time.monotonic()
        if version != self._version or waiting != self._waiting:
            self._version, self._waiting = version, waiting
            self._wake()

    def end(self) -> None:
        """End all streams."""
        self._is_ending = True
        self._wake()

    async def stream(self, session: Session, is_open: Callable[[Session], bool]) -> AsyncIterator[bytes]:
        """Yield server-sent events (HTML Standard §9.2): the ids of what waits, now and whenever the board changes.

        It ends with the session.
        """
        self._viewers += 1
        try:
            self.poll()  # the first list must not be older than the page that it reaches
            said = None
            while is_open(session) and not self._is_ending:
                news = self._news
                if said is news:
                    yield b": still here\n\n"
                else:
                    said = news
                    yield f"event: board\ndata: {json.dumps({'waiting': self._waiting})}\n\n".encode()
                try:
                    async with asyncio.timeout(_HEARTBEAT_S):
                        await news.wait()
                except TimeoutError:
                    continue
        finally:
            self._viewers -= 1

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def traceback_only(error: BaseException) -> str:
    """Return where an error was raised, without what it says: that may hold what a person typed in."""
    return "".join(traceback.format_tb(error.__traceback__)).rstrip()
