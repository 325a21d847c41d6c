"""What is asked, what comes back, and the protocol of whatever carries the two. How it looks is each channel's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Question:
    """A yes-or-no question, in parts, so that a terminal and a web page can each show it in their way.

    Every text may hold anything that a stranger chose, line breaks and control characters included: a channel shows all of it,
    in a form that can't pass for something else.

    Attributes:
        title: what will happen on a yes, in one line, e.g. `Run github.close_issue`.
        who: on whose behalf, e.g. `claude-code through MCP`.
        facts: label and text of what a person needs to know to decide, in order; none may be left out.
        danger: what can go wrong, in a sentence; empty if there is nothing to say beyond the facts.
    """

    title: str
    who: str
    facts: tuple[tuple[str, str], ...] = ()
    danger: str = ""


@dataclass(frozen=True)
class Answer:
    """What a person said.

    Attributes:
        approved: true for an explicit yes, and for nothing else.
        reason: how it came about, in words, for the record and for whoever asked.
        interrupted: the person wants to end not only this, but what asked (Ctrl-C).
    """

    approved: bool
    reason: str
    interrupted: bool = False


class Channel(Protocol):
    """A way to reach a person."""

    async def ask(self, question: Question, *, timeout_s: float) -> Answer:
        """Show the whole question and wait for the answer.

        Args:
            question: what to ask.
            timeout_s: how long the question stands, in seconds, waiting for earlier questions included.

        Raises:
            NobodyToAsk: there is no person at the other end; nothing was shown.
            NoAnswer: the time is over.
        """
