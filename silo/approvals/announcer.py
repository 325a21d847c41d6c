"""Bring waiting questions to a person's attention: one window, one notification and one pairing code, however many.

`silo.approvals.consent` decides whether the page is used; `silo_interaction` has the page and the desktop.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from silo_interaction import PostedQuestion

from silo.approvals.store import Decisions
from silo.errors import StateUnusable

PAUSE_S = 1.0
"""How long after a notification the next one comes: questions of calls that run side by side make one with a count."""

WINDOW_PAUSE_S, WINDOW_PAUSE_UNPAIRED_S = 60.0, 300.0
"""How long after a window the next one may come, if none shows the page. A person who still types a code into the
first must not have the next one come up over it; so long is a code good."""

_MOST_LINES = 3


class Page(Protocol):
    """The approval page, as `silo_interaction.page.Page` implements it."""

    def link(self, token: str) -> str:
        """Return the address at which a person answers a question; the page is served from now on."""
        ...

    @property
    def has_session(self) -> bool:
        """Whether some browser is paired with it."""
        ...

    @property
    def has_viewer(self) -> bool:
        """Whether some paired browser shows it now."""
        ...

    def stop(self) -> None:
        """End it."""
        ...


class Desktop(Protocol):
    """The desktop of a person, as `silo.compose.approvals.UserDesktop` implements it."""

    def can_open(self) -> bool:
        """Whether there is a browser to open."""
        ...

    def open(self, url: str) -> bool:
        """Open an address in the user's browser; true if one was started."""
        ...

    def notify(self, title: str, body: str) -> bool:
        """Show a message in place of the one before; true if the desktop took it."""
        ...

    def close(self) -> None:
        """Remove the message; another one can be shown later."""
        ...


class Announcer:
    """Tells a person what waits in this process. Its methods block for a second at most; any thread may call them."""

    def __init__(
        self,
        decisions: Decisions,
        page: Page,
        desktop: Desktop | None,
        *,
        notifies: bool,
        show_code: Callable[[str], None] | None,
        pause_s: float = PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
        timer: Callable[[float, Callable[[], None]], threading.Timer] = threading.Timer,
    ) -> None:
        """Show nothing yet.

        Args:
            notifies: whether the desktop may show messages.
            show_code: as for `silo.approvals.consent.Approvals`.
            pause_s: the least time between two messages.
            clock: a monotonic clock, in seconds.
            timer: makes what calls a function later.
        """
        self._decisions = decisions
        self._page = page
        self._desktop = desktop
        self._notifies = notifies and desktop is not None
        self._show_code = show_code
        self._pause_s = pause_s
        self._clock = clock
        self._make_timer = timer
        self._lock = threading.RLock()
        self._links: dict[str, str] = {}
        self._code = ""
        self._told_at = self._opened_at = float("-inf")
        self._is_shown = False
        self._timer: threading.Timer | None = None

    def announce(self, posted: PostedQuestion, token: str, *, opens: bool) -> str:
        """Tell a person of a new question, and return its link.

        Args:
            token: the secret part of the link.
            opens: whether a browser is opened if none shows the page.
        """
        with self._lock:
            link = self.link(token)
            self._links[posted.id] = link
            self._decisions.serves(link.removesuffix(f"/q/{token}"))
            if self._timer is None:
                left = self._told_at + self._pause_s - self._clock()
                if left > 0:
                    self._timer = self._make_timer(left, self._tell_later)
                    self._timer.daemon = True
                    self._timer.start()
                else:
                    self._tell()
            if opens and self._desktop is not None and self._may_open():
                self._opened_at = self._clock()
                self._desktop.open(link)
        return link

    def link(self, token: str) -> str:
        """Return the link of a question, and serve the page."""
        return self._page.link(token)

    def settle(self) -> None:
        """Remove the message if nothing of this process waits any more."""
        with self._lock, suppress(StateUnusable):
            if self._is_shown and self._desktop is not None and not self._decisions.asked_here():
                self._desktop.close()
                self._is_shown = False

    def close(self) -> None:
        """End what is planned, and remove the message."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._notifies = False
            self._show_code = None
            if self._desktop is not None:
                self._desktop.close()

    def _tell_later(self) -> None:
        # If silo stops meanwhile, or can't read the file, nobody is told. The calls that wait find out by themselves.
        with self._lock, suppress(StateUnusable):
            self._timer = None
            self._tell()

    def _tell(self) -> None:
        """Show the code, and the message, as they are now."""
        if not self._notifies and self._show_code is None:
            return
        self._told_at = self._clock()
        waiting = self._decisions.asked_here()
        self._links = {posted.id: self._links[posted.id] for posted in waiting if posted.id in self._links}
        if not self._links:
            return
        code = "" if self._page.has_session else self._current_code()
        if self._notifies and self._desktop is not None:
            title, body = message([posted for posted in waiting if posted.id in self._links], self._links)
            # The code comes first: the rest is partly untrusted text, and may be cut.
            self._desktop.notify(title, f"Pairing code: {code}\n{body}" if code else body)
            self._is_shown = True

    def _current_code(self) -> str:
        """Return a code that is good: the same as before, as long as a person may be typing it."""
        if not self._code or not self._decisions.renew_code(self._code):
            self._code = self._decisions.new_code()
            if self._show_code is not None:
                self._show_code(self._code)
        return self._code

    def _may_open(self) -> bool:
        pause_s = WINDOW_PAUSE_S if self._page.has_session else WINDOW_PAUSE_UNPAIRED_S
        return not self._page.has_viewer and self._clock() - self._opened_at >= pause_s


def message(waiting: list[PostedQuestion], links: dict[str, str]) -> tuple[str, str]:
    """Return title and body of the message about questions that wait, without arguments. Pure.

    Args:
        links: the link of each question, by its id.
    """
    first = waiting[0]
    if len(waiting) == 1:
        return first.question.title, f"Answer at {links[first.id]}\nasked by {first.question.who}"
    page = links[first.id].partition("/q/")[0]
    kinds = Counter((posted.question.title, posted.question.who) for posted in waiting)
    lines = [f"{count} × {title}, asked by {who}" for (title, who), count in kinds.most_common(_MOST_LINES)]
    more = [f"and {len(kinds) - _MOST_LINES} others"] if len(kinds) > _MOST_LINES else []
    return f"{len(waiting)} questions wait for you", "\n".join([f"Answer at {page}/", *lines, *more])
