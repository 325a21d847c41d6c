"""Turn a guest's reply into a `Result` without secrets. Pure.

`silo.schema.arguments` checks which results are valid, `silo.wire` what a guest may send at all. A call that failed has
no reply: `silo.sandbox.skill` raises its error.
"""

from __future__ import annotations

from collections.abc import Mapping

from silo.model import Isolation, Logs, Result
from silo.sandbox.base import Limits
from silo.sandbox.skill.base import Captured, GuestReply
from silo.secrets.redaction import Redactor


def to_result(
    reply: GuestReply,
    redactor: Redactor,
    *,
    limits: Limits,
    isolation: Isolation,
    timing: Mapping[str, float],
) -> Result:
    """Return the result of a call that finished.

    Args:
        reply: what the guest sent.
        redactor: knows the secrets of this call.
        limits: those within which the guest sent it; removing secrets doesn't make it larger than they allow.
        isolation: the boundary that the guest had.
        timing: seconds by phase, the whole call in `total`.
    """
    outcome = reply.outcome
    room = (limits.files_bytes - sum(file.size for file in reply.files)) // max(1, len(reply.files))
    return Result(
        text=redactor.text(outcome.text, limit=limits.result_bytes),
        data=redactor.data(outcome.data, limit=limits.result_bytes) if outcome.has_data else None,
        has_data=outcome.has_data,
        files=tuple(redactor.file(file, limit=file.size + room) for file in reply.files),
        is_error=outcome.is_error,
        logs=to_logs(reply, redactor, limits),
        isolation=isolation,
        guest={name: redactor.text(fact) for name, fact in reply.facts.items()},
        timing=timing,
        truncated=reply.stdout.is_truncated or reply.stderr.is_truncated,
    )


def to_logs(reply: GuestReply, redactor: Redactor, limits: Limits) -> Logs:
    """Return what the skill printed, redacted before decoding, because a secret's bytes may not be valid text."""
    return Logs(
        stdout=_printed(reply.stdout, redactor, limits.log_bytes),
        stderr=_printed(reply.stderr, redactor, limits.log_bytes),
        truncated=reply.stdout.is_truncated or reply.stderr.is_truncated,
    )


def _printed(captured: Captured, redactor: Redactor, limit: int) -> str:
    clean = redactor.cut_off if captured.is_truncated else redactor.raw
    return clean(captured.data, limit=limit).decode("utf-8", "replace")
