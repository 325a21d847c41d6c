"""Reaches the person at the terminal of a command, with a spinner that waits meanwhile.

Commands load this module for `--help`, so slow modules are imported where they are used: `silo_interaction` (asyncio).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from silo.cli.render import Steps, say

if TYPE_CHECKING:
    from silo_interaction import Answer, Channel, Question


def quiet_terminal(steps: Steps) -> Channel:
    """Return a channel that asks on the terminal and hides the spinner meanwhile. It checks that a person is there."""
    from silo_interaction import TerminalChannel

    class QuietTerminal:
        async def ask(self, question: Question, *, timeout_s: float) -> Answer:
            with steps.paused():
                return await TerminalChannel().ask(question, timeout_s=timeout_s)

    return QuietTerminal()


def show_code(code: str) -> None:
    """Show a pairing code if standard error is a person's terminal. Otherwise an agent could read it."""
    from silo_interaction import NobodyToAsk
    from silo_interaction.terminal import require_person

    with suppress(NobodyToAsk):
        require_person((2, "standard error"))
        say(f"silo: a browser that is not paired with the approval page yet asks for this code: {code}")
