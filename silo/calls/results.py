"""Turn a guest's reply into a `Result` without secrets. Pure.

`silo.schema.arguments` checks which results are valid, `silo.wire` what a guest may send at all. A call that failed has
no reply: `silo.sandbox.skill` raises its error.
"""

from __future__ import annotations

from collections.abc import Mapping

from silo.model import Isolation, Logs, Result
from silo.sandbox.skill.base import Captured, GuestReply
from silo.secrets.redaction import Redactor


def to_result(reply: GuestReply, redactor: Redactor, *, isolation: Isolation, timing: Mapping[str, float]) -> Result:
    """Return the result of a call that finished.

    Args:
        reply: what the guest sent.
        redactor: knows the secrets of this call.
        isolation: the boundary that the guest had.
        timing: seconds by phase, the whole call in `total`.
    """
    outcome = reply.outcome
    return Result(
        text=redactor.text(outcome.text),
        data=redactor.data(outcome.data) if outcome.has_data else None,
        has_data=outcome.has_data,
        files=tuple(redactor.file(file) for file in reply.files),
        is_error=outcome.is_error,
        logs=to_logs(reply, redactor),
        isolation=isolation,
        guest={name: redactor.text(fact) for name, fact in reply.facts.items()},
        timing=timing,
        truncated=reply.stdout.is_truncated or reply.stderr.is_truncated,
    )


def to_logs(reply: GuestReply, redactor: Redactor) -> Logs:
    """Return what the skill printed, redacted before decoding, because a secret's bytes may not be valid text."""
    return Logs(
        stdout=_printed(reply.stdout, redactor),
        stderr=_printed(reply.stderr, redactor),
        truncated=reply.stdout.is_truncated or reply.stderr.is_truncated,
    )


def _printed(captured: Captured, redactor: Redactor) -> str:
    data = redactor.cut_off(captured.data) if captured.is_truncated else redactor.raw(captured.data)
    return data.decode("utf-8", "replace")
