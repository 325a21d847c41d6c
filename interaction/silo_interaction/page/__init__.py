"""The approval page: the waiting questions of a board, in a browser on this machine. This file starts and stops it.

    page = Page(board)
    print(page.link(token))

The design assumes an agent on the same machine that can read every link, send any request, run its own server on
another port, and lure the person there. It can't read the browser's profile or this process's memory. So:

- A link alone shows nothing. A browser shows questions only after somebody typed in a code that only a person gets.
- The two secrets of a browser's session never leave this origin (`sessions`).
- No page of another origin can use that session (`guard`), and no other process can get this origin (`server.Port`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from silo_interaction.board import Board
from silo_interaction.page.sessions import Sessions

if TYPE_CHECKING:
    from silo_interaction.page.feed import BoardFeed
    from silo_interaction.page.server import Port, ServerThread

# Most runs of a program never show the page, so slow modules are imported where they are used:
# `silo_interaction.page` (FastAPI, uvicorn and Jinja2, a third of a second or more by `python -X importtime`).

__all__ = ["Page"]


class Page:
    """A page that listens while a question waits, and for a while after. All methods may be called from any thread."""

    def __init__(
        self,
        board: Board,
        *,
        product: str = "silo",
        code_from: str = "",
        linger_s: float = 60.0,
        session_s: float = 12 * 3600,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Make the page of this board; nothing listens yet.

        Args:
            board: the questions to show.
            product: the name of the program that asks.
            code_from: where a person gets a pairing code, in a sentence or two, with commands between backquotes.
            linger_s: how long the page keeps listening after nothing waits any more.
            session_s: how long a browser stays paired.
            now: returns the seconds since the epoch.
        """
        self._board = board
        self._product = product
        self._code_from = code_from
        self._linger_s = linger_s
        self._now = now
        self._lock = threading.Lock()
        self._sessions = Sessions(life_s=session_s, now=now)
        self._port: Port | None = None
        self._serving: ServerThread | None = None
        self._feed: BoardFeed | None = None

    def start(self) -> str:
        """Listen, if the page doesn't already, and return its address: `http://127.0.0.1:PORT`.

        The port stays the same, and browsers stay paired, for as long as this object lives.

        Raises:
            OSError: no port is free.
            RuntimeError: the server's thread did not start.
        """
        with self._lock:
            if self._serving is None or not self._serving.postpone_end():
                self._serve()
            assert self._port is not None
            return f"http://127.0.0.1:{self._port.number}"

    def link(self, token: str) -> str:
        """Listen, if the page doesn't already, and return the link to this token's question, for a paired browser."""
        return f"{self.start()}/q/{token}"

    @property
    def has_session(self) -> bool:
        """Whether a browser is paired."""
        return self._sessions.has_any

    @property
    def has_viewer(self) -> bool:
        """Whether a paired browser has the page open right now."""
        feed = self._feed
        return feed is not None and feed.viewers > 0

    def stop(self) -> None:
        """Stop listening, end all sessions and release the port. Returns when its thread and connections have ended."""
        with self._lock:
            if self._serving is not None:
                self._serving.stop()
            self._serving = self._feed = None
            self._sessions.clear()
            if self._port is not None:
                self._port.close()
                self._port = None

    def _serve(self) -> None:
        from silo_interaction.page.app import build_app
        from silo_interaction.page.feed import BoardFeed
        from silo_interaction.page.render import Renderer
        from silo_interaction.page.server import Port, ServerThread

        if self._serving is not None:
            self._serving.stop()
            self._serving = None
        self._port = self._port or Port()
        listening, is_same = self._port.listen()
        if not is_same:  # another process may have the old port now, and get what browsers keep for that origin
            self._sessions.clear()
        self._feed = BoardFeed(self._board)
        authority = f"127.0.0.1:{self._port.number}"
        app = build_app(
            self._board,
            self._sessions,
            self._feed,
            authority=authority,
            renderer=Renderer(self._product, self._code_from),
            now=self._now,
        )
        serving = ServerThread(app, self._feed, listening, self._port, linger_s=self._linger_s)
        serving.start()
        self._serving = serving
