"""Tell open pages when the board changes: one poll, a few times a second, for all of them. `app` serves the stream."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable

from silo_interaction.board import Board
from silo_interaction.page.sessions import BrowserSession

logger = logging.getLogger(__name__)

POLL_S = 0.3
"""A person doesn't notice a delay below this."""
MAX_STREAMS = 8
"""The page's script shares one stream between all tabs of a browser, so this is enough for eight browsers."""

_REREAD_S = 2.0
"""How often the questions are read even if the version is the same: questions expire without a write to the board."""
_HEARTBEAT_S = 10.0
"""It is also how long a stream can outlive its session."""


class BoardFeed:
    """The waiting questions as open pages know them. For the page's loop; other threads may read only `viewers`."""

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
        """The number of connected event streams."""
        return self._viewers

    @property
    def idle_s(self) -> float:
        """How long no question has been waiting."""
        return time.monotonic() - self._busy_at

    def poll(self) -> None:
        """Read the board, and wake the streams if it changed."""
        try:
            version = self._board.version()
            if version == self._version and time.monotonic() - self._looked_at < _REREAD_S:
                waiting = self._waiting
            else:
                waiting = tuple(posted.id for posted in self._board.waiting())
                self._looked_at = time.monotonic()
        except Exception as error:  # the board is the caller's code, and one failed read must not end the page
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

    async def stream(self, session: BrowserSession, is_open: Callable[[BrowserSession], bool]) -> AsyncIterator[bytes]:
        """Yield server-sent events (HTML Standard §9.2): the ids of the waiting questions, now and at each change.

        The stream ends with the session.
        """
        self._viewers += 1
        try:
            self.poll()  # the first list must not be older than the page that it goes to
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
    """Return where an error was raised, without its message, which may hold what a person typed in."""
    return "".join(traceback.format_tb(error.__traceback__)).rstrip()
