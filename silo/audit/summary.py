"""Figures of the audit log by task: calls, refusals, and questions to a person. Pure; `silo.audit.log` reads the log.

A task is one session of one client (`Caller.session`): one run of an MCP server, one open `Runtime`, or one command.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from silo.audit.log import AuditRecord
from silo.errors import ApprovalPending, ApprovalRequired, ApprovalTimeout


@dataclass(frozen=True)
class Task:
    """The figures of one task.

    Attributes:
        first, last: times of its first and last record, as in the log.
        calls: how many were begun or refused.
        questions: how many questions a person was asked for them; people who get many for one task agree to anything.
        approved: calls that ran because a person had agreed.
        denied: calls that a rule or a person refused.
        unanswered: calls for which nobody answered, or nobody could be asked.
        failed: other calls that failed.
    """

    session: str
    kind: str
    client: str
    first: str
    last: str
    calls: int = 0
    questions: int = 0
    approved: int = 0
    denied: int = 0
    unanswered: int = 0
    failed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


_UNANSWERED = frozenset({ApprovalRequired.code, ApprovalTimeout.code, ApprovalPending.code})


def summarize(records: Iterable[AuditRecord]) -> tuple[Task, ...]:
    """Return one `Task` for each session, in the order of their first calls; records without a session are left out."""
    tasks: dict[str, dict[str, Any]] = {}
    for record in records:
        caller = record.body.get("caller")
        if record.event not in {"end", "refused"} or not isinstance(caller, dict) or not caller.get("session"):
            continue
        session = str(caller["session"])
        task = tasks.setdefault(
            session,
            {
                "session": session,
                "kind": str(caller.get("kind", "")),
                "client": str(caller.get("client", "")),
                "first": record.time,
                **dict.fromkeys(_COUNTED, 0),
            },
        )
        task["client"] = task["client"] or str(caller.get("client", ""))
        task["last"] = record.time
        task["calls"] += 1
        questions = record.body.get("questions", 0)
        task["questions"] += questions if isinstance(questions, int) else 0
        outcome = record.body.get("outcome")
        if outcome == "denied":
            task["denied"] += 1
        elif outcome in _UNANSWERED:
            task["unanswered"] += 1
        elif outcome != "ok":
            task["failed"] += 1
        decision = record.body.get("decision")
        has_run = record.event == "end" and outcome not in _UNANSWERED
        if has_run and isinstance(decision, dict) and str(decision.get("reason")).startswith("approved:"):
            task["approved"] += 1
    return tuple(Task(**task) for task in tasks.values())


_COUNTED = ("calls", "questions", "approved", "denied", "unanswered", "failed")
