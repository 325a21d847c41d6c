"""Turn what came back from a guest into a `Result` or an error, with no secret left in either. Pure.

Which results are valid is checked in `silo.schema.arguments`; what a guest may send at all is `silo.wire`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

from silo.errors import (
    ArgumentsInvalid,
    ResultInvalid,
    ResultTooLarge,
    SecretUndeclared,
    SiloError,
    SkillExited,
    SkillFailed,
    SkillImportError,
    SkillMetadataInvalid,
    SkillRaised,
    SkillSyntaxError,
    ToolUnknown,
)
from silo.model import Isolation, Logs, Result, Tool
from silo.remedies import INSPECT_TOOL, Remedy
from silo.sandbox.base import Captured, GuestReply
from silo.secrets.redaction import Redactor
from silo.wire.messages import Failed, Finished


def to_result(reply: GuestReply, redactor: Redactor, *, isolation: Isolation, timing: Mapping[str, float]) -> Result:
    """Return the result of a call that finished.

    Args:
        reply: what the guest sent; its outcome is a `Finished`.
        redactor: knows the secrets of this call.
        isolation: the boundary that the guest had.
        timing: seconds by phase, the whole call in `total`.
    """
    outcome = reply.outcome
    assert isinstance(outcome, Finished)
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
    """Return what the skill printed, redacted before it is decoded: a secret need not be text for its bytes to show."""
    return Logs(
        stdout=_printed(reply.stdout, redactor),
        stderr=_printed(reply.stderr, redactor),
        truncated=reply.stdout.is_truncated or reply.stderr.is_truncated,
    )


def to_error(tool: Tool, reply: GuestReply, redactor: Redactor) -> SiloError:
    """Return the error for a call that the guest says failed; an error of the skill carries what it printed."""
    failed = reply.outcome
    assert isinstance(failed, Failed)
    message = redactor.text(failed.message)[:MAX_MESSAGE_CHARS]
    kind, hint = _ERRORS[failed.code]
    if not issubclass(kind, SkillFailed):
        return kind(f"{tool.id}: {message}", hint=hint)
    logs = to_logs(reply, redactor)
    traceback = redactor.text(failed.traceback)
    return kind(f"{tool.id}: {message}", hint=hint, stdout=logs.stdout, stderr=logs.stderr, traceback=traceback)


def failure_codes() -> Mapping[str, type[SiloError]]:
    """Return the error for each code that a guest may report (`silo.wire.messages.FAILURE_CODES`)."""
    return {code: kind for code, (kind, _) in _ERRORS.items()}


MAX_MESSAGE_CHARS = 2000
"""An exception's text may quote a whole document; what is cut off stands in the traceback."""

_ERRORS: Mapping[str, tuple[type[SiloError], Remedy | str]] = {
    "skill-syntax-error": (SkillSyntaxError, "mend the script, then `silo install` it again"),
    "skill-import-error": (SkillImportError, "check the dependencies in its header, then `silo install` it again"),
    "skill-exception": (
        SkillRaised,
        "the traceback says where; other arguments may do, else report it to the skill's author",
    ),
    "skill-exited": (SkillExited, "a tool answers by returning; report it to the skill's author"),
    "result-invalid": (ResultInvalid, "the tool must return JSON values or silo.File; report it to the skill's author"),
    "result-too-large": (ResultTooLarge, "ask for less at once, e.g. fewer rows or pages"),
    "secret-undeclared": (
        SecretUndeclared,
        "its author has to declare the secret under [tool.silo.secrets] in the header",
    ),
    "arguments-invalid": (ArgumentsInvalid, INSPECT_TOOL),
    "tool-unknown": (ToolUnknown, "`silo install` the skill again: its tools differ from what was recorded"),
    "skill-metadata-invalid": (SkillMetadataInvalid, "mend the script, then `silo install` it again"),
}


def _printed(captured: Captured, redactor: Redactor) -> str:
    data = redactor.cut_off(captured.data) if captured.is_truncated else redactor.raw(captured.data)
    return data.decode("utf-8", "replace")
