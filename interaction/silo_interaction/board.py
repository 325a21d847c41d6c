"""The board: where questions wait for whoever can answer them. What the page needs of it; who keeps it is the program's own.

A program posts a question and waits; a page, a command in another terminal, or both, look at the board and decide. The first
decision counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from silo_interaction.question import Answer, Question

QuestionState = Literal["waiting", "approved", "denied", "expired", "withdrawn"]
"""`expired`: nobody answered in time. `withdrawn`: whoever asked is gone."""

DecideOutcome = Literal["decided", "changed", "gone"]
"""`changed`: what was decided on is not what would happen. `gone`: it is not waiting (any more); somebody else was faster, or time."""


@dataclass(frozen=True)
class PostedQuestion:
    """A question on the board.

    Attributes:
        id: 16 hex digits, for people and for addresses; knowing it opens nothing.
        digest: of the question, as `Question.digest`.
        asked_at, expires_at, decided_at: seconds since the epoch.
        reason: of the decision, in words.
        grace: the yes stands until its grace is over.
    """

    id: str
    question: Question
    digest: str
    asked_at: float
    expires_at: float
    state: QuestionState = "waiting"
    reason: str = ""
    grace: bool = False
    decided_at: float | None = None


class Board(Protocol):
    """All questions of one program. Safe to use from several threads; methods block for milliseconds at most."""

    def waiting(self) -> Sequence[PostedQuestion]:
        """Return the questions that wait and can be answered here, oldest first."""
        ...

    def get(self, question_id: str) -> PostedQuestion | None:
        """Return one question in whatever state; None if there is no such question, or it was forgotten."""
        ...

    def follow(self, token: str, session: str) -> PostedQuestion | None:
        """Return the question to which a link leads. The first session that follows it is the only one for which it does.

        Args:
            token: the secret part of the link.
            session: a name for the session, which need not be secret.
        """
        ...

    def decide(self, question_id: str, digest: str, answer: Answer, *, by: str) -> DecideOutcome:
        """Put down a person's answer, if the question still waits and is what they saw.

        Args:
            digest: of what they saw.
            by: through what it came, e.g. `the approval page`.
        """
        ...

    def redeem(self, code: str) -> bool:
        """Use a pairing code up; false if there is no such code, or it is too old. Compares in constant time."""
        ...

    def version(self) -> str:
        """Return a text that changes whenever something on the board does; cheap enough to be asked several times a second."""
        ...
