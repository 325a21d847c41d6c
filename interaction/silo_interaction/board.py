"""The board: where questions wait for an answer. Only the protocol is here; the program implements it.

A program posts a question and waits. The approval page, or a command in another terminal, reads the board and decides.
The first decision counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from silo_interaction.question import Answer, Question

QuestionState = Literal["waiting", "approved", "denied", "expired", "withdrawn"]
"""`expired`: nobody answered in time. `withdrawn`: the program that asked has ended."""

DecideOutcome = Literal["decided", "changed", "gone"]
"""What became of an attempt to decide.

`changed`: the question on the board is no longer the one that the person saw. `gone`: it does not wait any more,
because it was already decided, withdrawn, or ran out of time.
"""


@dataclass(frozen=True)
class PostedQuestion:
    """A question on the board.

    Attributes:
        id: 16 hex digits, for people and for addresses. It is not a secret.
        digest: `Question.digest` of the question.
        asked_at, expires_at, decided_at: seconds since the epoch.
        reason: how the decision came about, in words.
        grace: the yes also holds for the same call until the question's grace period is over.
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
    """All questions of one program. Safe to use from several threads; each method returns within milliseconds."""

    def waiting(self) -> Sequence[PostedQuestion]:
        """Return the waiting questions that can be answered here, oldest first."""
        ...

    def get(self, question_id: str) -> PostedQuestion | None:
        """Return one question in any state; None if there is no such question, or it was deleted."""
        ...

    def follow(self, token: str, session: str) -> PostedQuestion | None:
        """Return the question that a link leads to. A link works only for the first session that follows it.

        Args:
            token: the secret part of the link.
            session: a name for the session; it need not be secret.
        """
        ...

    def decide(self, question_id: str, digest: str, answer: Answer, *, by: str) -> DecideOutcome:
        """Record a person's answer, if the question still waits and is the one that they saw.

        Args:
            question_id: the question.
            digest: the digest of the question that they saw.
            answer: what they said.
            by: where they said it, e.g. `the approval page`.
        """
        ...

    def redeem(self, code: str) -> bool:
        """Use up a pairing code; false if there is no such code, or it is too old. Compares in constant time."""
        ...

    def version(self) -> str:
        """Return a text that changes whenever the board does. Cheap enough to call several times a second."""
        ...
