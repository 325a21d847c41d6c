"""How a person is reached from here: the page, the desktop and the store, built out of the configuration. Nothing is started here.

What they do is `silo_interaction`'s; when they are used, `silo.approvals.consent`'.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from silo.approvals.consent import Approvals, Keep
from silo.approvals.recorded_board import Record, RecordedBoard
from silo.approvals.store import Decisions
from silo.config.schema import Config

if TYPE_CHECKING:
    from silo_interaction import Board, Channel
    from silo_interaction.desktop import DesktopNotifier
    from silo_interaction.page import Page


CODE_FROM = "The desktop notification of a question shows one; in a terminal of your own, `silo approvals pair` does."


def build_approvals(
    home: Path,
    config: Config,
    *,
    environ: Mapping[str, str],
    terminal: Channel | None,
    keep: Keep,
    show_code: Callable[[str], None] | None,
    record: Record,
) -> Approvals:
    """Return where calls ask; arguments as of `Approvals` and `RecordedBoard`."""
    decisions = Decisions(home)
    return Approvals(
        decisions,
        terminal=terminal,
        page=LazyPage(RecordedBoard(decisions, record)),
        desktop=UserDesktop(environ),
        channels=config.approval.channels,
        timeout_s=config.approval.timeout_s,
        headless=config.approval.headless,
        keep=keep,
        show_code=show_code,
    )


class LazyPage:
    """The approval page, loaded when there is something to ask: a web server is what most calls never need."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._page: Page | None = None

    def link(self, token: str) -> str:
        """As `silo_interaction.page.Page.link`."""
        if self._page is None:
            from silo_interaction.page import Page

            self._page = Page(self._board, code_from=CODE_FROM)
        return self._page.link(token)

    @property
    def has_session(self) -> bool:
        """As `silo_interaction.page.Page.has_session`."""
        return self._page is not None and self._page.has_session

    @property
    def has_viewer(self) -> bool:
        """As `silo_interaction.page.Page.has_viewer`."""
        return self._page is not None and self._page.has_viewer

    def stop(self) -> None:
        """As `silo_interaction.page.Page.stop`."""
        if self._page is not None:
            self._page.stop()
            self._page = None


class UserDesktop:
    """The desktop of the user who runs silo, as far as the environment tells of one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._notifier: DesktopNotifier | None = None

    def can_open(self) -> bool:
        """Whether there is a browser to open."""
        from silo_interaction.desktop import browser_command

        return browser_command(self._environ, sys.platform) is not None

    def open(self, url: str) -> bool:
        """As `silo_interaction.desktop.open_in_browser`."""
        from silo_interaction.desktop import open_in_browser

        return open_in_browser(url, self._environ)

    def notify(self, title: str, body: str) -> bool:
        """As `silo_interaction.desktop.DesktopNotifier.notify`."""
        if self._notifier is None:
            from silo_interaction.desktop import DesktopNotifier

            self._notifier = DesktopNotifier(self._environ, app="silo")
        return self._notifier.notify(title, body)

    def close(self) -> None:
        """As `silo_interaction.desktop.DesktopNotifier.close`."""
        if self._notifier is not None:
            self._notifier.close()
            self._notifier = None
