"""What is asked, what comes back, and the protocol of whatever carries the two. How it looks is each channel's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True)
class WantedSecret:
    """A secret that a person is asked to type in, instead of a yes.

    Attributes:
        name: what it is called, e.g. `GITHUB_TOKEN`.
        description: what it is for, in the words of whoever wants it (a stranger's).
        keeper: where it can be kept, e.g. `the vault of this machine`; empty if it can't be.
    """

    name: str
    description: str = ""
    keeper: str = ""


@dataclass(frozen=True)
class Question:
    """A question to a person, in parts, so that a terminal and a web page can each show it in their way.

    Every text may hold anything that a stranger chose, line breaks and control characters included: a channel shows all of it,
    in a form that can't pass for something else.

    Attributes:
        title: what will happen on a yes, in one line, e.g. `Run github.close_issue`.
        who: on whose behalf, e.g. `claude-code through MCP`.
        facts: label and text of what a person needs to know to decide, in order; none may be left out.
        danger: what can go wrong, in a sentence; empty if there is nothing to say beyond the facts.
        arguments: name and JSON value of what it will be done with, in order; shown whole, like the facts.
        changes: what is different from the last time that this was agreed to, a sentence each; empty if nothing is, or nothing was.
        grace_s: for how many seconds a person may let the same happen again without being asked; 0 if only once.
        group: questions of the same group are alike, and are shown next to each other (each is decided alone).
        wanted: the secret to type in; None for a yes-or-no question.
    """

    title: str
    who: str
    facts: tuple[tuple[str, str], ...] = ()
    danger: str = ""
    arguments: tuple[tuple[str, Json], ...] = ()
    changes: tuple[str, ...] = ()
    grace_s: int = 0
    group: str = ""
    wanted: WantedSecret | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the question as JSON values; `from_json` takes them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Question:
        """Return the question that `to_json` wrote.

        Raises:
            TypeError, KeyError: it did not.
        """
        wanted = data["wanted"]
        return cls(
            title=data["title"],
            who=data["who"],
            facts=tuple((label, text) for label, text in data["facts"]),
            danger=data["danger"],
            arguments=tuple((name, value) for name, value in data["arguments"]),
            changes=tuple(data["changes"]),
            grace_s=data["grace_s"],
            group=data["group"],
            wanted=None if wanted is None else WantedSecret(**wanted),
        )

    def digest(self) -> str:
        """Return SHA-256 in hex of all that a person is shown; a decision names the digest of what it was made on."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a person said.

    Attributes:
        approved: true for an explicit yes (or a secret that was typed in), and for nothing else.
        reason: how it came about, in words, for the record and for whoever asked.
        interrupted: the person wants to end not only this, but what asked (Ctrl-C).
        grace: the yes stands for as long as the question offers, not once.
        value: the secret that was typed in.
        keep: the person wants it kept where the question says.
    """

    approved: bool
    reason: str
    interrupted: bool = False
    grace: bool = False
    value: str | None = field(default=None, repr=False)
    keep: bool = False


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
