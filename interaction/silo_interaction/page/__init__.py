"""The approval page: what waits on a board, in a browser on this machine. This file: its life; the parts have files of their own.

    page = Page(board)
    print(page.link(token))

Why it is built as it is: an agent on the same machine can read every link, send any request, run a server of its own on another port,
and lead the person there. What it can't do is read the browser's profile, or this process. So a link shows nothing, a browser shows
something only after a code was typed into it that only a person gets, and the two secrets of its session never leave this origin
(`sessions`). No page of another origin can use that session (`guard`), and no other process can get this origin (`server.Port`).
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

__all__ = ["Page"]


class Page:
    """A page that listens while something waits, and for a while after. All methods may be called from any thread."""

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
        """Show this board; nothing listens yet.

        Args:
            product: what the program that asks is called.
            code_from: where a person gets a pairing code, in a sentence or two; what stands between backquotes is a command.
            linger_s: how long it goes on to listen when nothing waits any more.
            session_s: how long a browser stays paired.
            now: the seconds since the epoch.
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
        """Listen, if it doesn't already, and return the address: `http://127.0.0.1:PORT`.

        The port stays the same, and browsers stay paired, for as long as this object lives.

        Raises:
            OSError, RuntimeError: there is no port to be had, or the thread did not come up.
        """
        with self._lock:
            if self._serving is None or not self._serving.postpone_end():
                self._serve()
            assert self._port is not None
            return f"http://127.0.0.1:{self._port.number}"

    def link(self, token: str) -> str:
        """Return the address that leads a paired browser to the question of this token; listens, if it doesn't already."""
        return f"{self.start()}/q/{token}"

    @property
    def has_session(self) -> bool:
        """Some browser is paired."""
        return self._sessions.has_any

    @property
    def has_viewer(self) -> bool:
        """Some paired browser has the page open right now."""
        feed = self._feed
        return feed is not None and feed.viewers > 0

    def stop(self) -> None:
        """Stop listening, end all sessions, and give the port up. Returns when no thread and no connection is left."""
        with self._lock:
            if self._serving is not None:
                self._serving.stop()
            self._serving = self._feed = None
            self._sessions.clear()
            if self._port is not None:
                self._port.close()
                self._port = None

    def _serve(self) -> None:
        # Here, not above: FastAPI takes a third of a second to import, and most runs of a program never show the page.
        from silo_interaction.page.app import build_app
        from silo_interaction.page.feed import BoardFeed
        from silo_interaction.page.render import Renderer
        from silo_interaction.page.server import Port, ServerThread

        if self._serving is not None:
            self._serving.stop()
            self._serving = None
        self._port = self._port or Port()
        listening, is_same = self._port.listen()
        if not is_same:  # whoever has the old port now can have what browsers hold for it
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
