"""Questions, answers, and the protocol of a channel that asks. Each channel decides how a question looks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True)
class WantedSecret:
    """A secret that a person is asked to type in, instead of saying yes.

    Attributes:
        name: e.g. `GITHUB_TOKEN`.
        description: what it is for, in the words of the code that wants it (untrusted text).
        keeper: where it can be kept, e.g. `the vault of this machine`; empty if it can't be kept.
    """

    name: str
    description: str = ""
    keeper: str = ""


@dataclass(frozen=True)
class Question:
    """A question to a person, in parts, so that a terminal and a web page can each show it in their own way.

    All text is untrusted and may hold line breaks and control characters. A channel shows all of it, in a form that
    can't be mistaken for the channel's own labels or buttons.

    Attributes:
        title: what will happen on a yes, in one line, e.g. `Run github.close_issue`.
        who: on whose behalf, e.g. `claude-code through MCP`.
        facts: what a person needs to know to decide, as pairs of label and text, in order. A channel shows every one.
        danger: what can go wrong, in a sentence; empty if the facts say it all.
        arguments: the call's arguments, as pairs of name and JSON value, in order. A channel shows each one whole.
        changes: what is different since the last yes to this, a sentence each; empty without changes or an earlier yes.
        grace_s: the grace period that the person may choose: for so many seconds after a yes, the same call runs again
            without a question. 0 if a yes can count only once.
        group: questions of the same group are shown next to each other; each is decided on its own.
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
        """Return the question as JSON values, for `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Question:
        """Return the question that `to_json` wrote.

        Raises:
            TypeError, KeyError: the data does not come from `to_json`.
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
        """Return the SHA-256 in hex of everything that a person is shown; a decision names its question's digest."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What a person said.

    Attributes:
        approved: true only for an explicit yes, or a secret that was typed in.
        reason: how the answer came about, in words, for the record and for the caller.
        interrupted: the person pressed Ctrl-C: they want to end the program that asked, not only say no.
        grace: the yes holds for the question's grace period, instead of once.
        value: the secret that was typed in.
        keep: the person wants the secret kept in `WantedSecret.keeper`.
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
            timeout_s: how long to wait for the answer, in seconds, including the wait for earlier questions.

        Raises:
            NobodyToAsk: there is no person at the other end; nothing was shown.
            NoAnswer: nobody answered in time.
        """
