"""How a person is reached: the page, the desktop and the store, built from the configuration.

Nothing is started here. `silo_interaction` has the page and the desktop, `silo.approvals.consent` decides when they are
used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from silo_interaction.desktop import DesktopNotifier, browser_command, open_in_browser
from silo_interaction.page import Page

from silo.approvals.consent import Approvals, Keep
from silo.approvals.recorded_board import Record, RecordedBoard
from silo.approvals.store import Decisions
from silo.config.schema import Config

if TYPE_CHECKING:
    from silo_interaction import Channel


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
        page=Page(RecordedBoard(decisions, record), code_from=CODE_FROM),
        desktop=UserDesktop(environ),
        channels=config.approval.channels,
        timeout_s=config.approval.timeout_s,
        headless=config.approval.headless,
        keep=keep,
        show_code=show_code,
    )


class UserDesktop:
    """The desktop of the user who runs silo, if the environment names one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._notifier = DesktopNotifier(environ, app="silo")

    def can_open(self) -> bool:
        """Whether there is a browser to open."""
        return browser_command(self._environ, sys.platform) is not None

    def open(self, url: str) -> bool:
        """As `silo_interaction.desktop.open_in_browser`."""
        return open_in_browser(url, self._environ)

    def notify(self, title: str, body: str) -> bool:
        """As `silo_interaction.desktop.DesktopNotifier.notify`."""
        return self._notifier.notify(title, body)

    def close(self) -> None:
        """As `silo_interaction.desktop.DesktopNotifier.close`."""
        self._notifier.close()
