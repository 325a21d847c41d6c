"""The board as the page sees it: each decision made there is recorded. `store` defines what a decision means."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from silo_interaction import Answer, DecideOutcome, PostedQuestion

from silo.approvals.store import Decisions
from silo.errors import UsageError

Record = Callable[..., None]
"""Adds an event with facts to the audit log: `record("approval", verdict="approved", ...)`."""


class RecordedBoard:
    """A `silo_interaction.Board` that records.

    If the record of a decision can't be written, the decision still counts; the page says that recording failed. The
    call that uses it does not run without a record of its own.
    """

    def __init__(self, decisions: Decisions, record: Record) -> None:
        self._decisions = decisions
        self._record = record

    def waiting(self) -> Sequence[PostedQuestion]:
        """As `Board.waiting`."""
        return self._decisions.waiting()

    def get(self, question_id: str) -> PostedQuestion | None:
        """As `Board.get`."""
        return self._decisions.get(question_id)

    def follow(self, token: str, session: str) -> PostedQuestion | None:
        """As `Board.follow`."""
        return self._decisions.follow(token, session)

    def decide(self, question_id: str, digest: str, answer: Answer, *, by: str) -> DecideOutcome:
        """As `Board.decide`."""
        outcome = self._decisions.decide(question_id, digest, answer, by=by)
        if outcome == "decided":
            try:
                tool = self._decisions.find(question_id).subject
            except UsageError:  # the question was deleted meanwhile, a week after it was decided
                tool = ""
            verdict = "approved" if answer.approved else "denied"
            self._record(
                "approval",
                verdict=verdict,
                question=question_id,
                tool=tool,
                by=by,
                reason=answer.reason[:200],
                grace=answer.grace,
            )
        return outcome

    def redeem(self, code: str) -> bool:
        """As `Board.redeem`."""
        is_right = self._decisions.redeem(code)
        if is_right:
            self._record("approval", verdict="paired", question=None, tool=None, by="the approval page")
        return is_right

    def version(self) -> str:
        """As `Board.version`."""
        return self._decisions.version()
