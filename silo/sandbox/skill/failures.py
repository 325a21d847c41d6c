"""The failures that a guest may report, and the error for each. One table, for calls and for descriptions."""

from __future__ import annotations

from collections.abc import Mapping

from silo.errors import (
    ArgumentsRefused,
    ResultInvalid,
    ResultTooLarge,
    SecretUndeclared,
    SkillExited,
    SkillFailed,
    SkillImportError,
    SkillMetadataInvalid,
    SkillRaised,
    SkillSyntaxError,
)
from silo.remedies import INSPECT_TOOL, Remedy

FAILURES: Mapping[str, tuple[type[SkillFailed], str | Remedy]] = {
    "skill-syntax-error": (SkillSyntaxError, "fix the script and install it again"),
    "skill-import-error": (
        SkillImportError,
        "fix the script, or add what it imports to `dependencies` in its header, and install it again",
    ),
    "skill-metadata-invalid": (SkillMetadataInvalid, "fix the script and install it again"),
    "skill-exception": (SkillRaised, "the traceback shows where; the arguments may be at fault"),
    "skill-exited": (SkillExited, "return a value from the tool instead of exiting"),
    "result-invalid": (ResultInvalid, "return JSON values, `AgentResponse` or `File` from the tool"),
    "result-too-large": (ResultTooLarge, "return less, or return a file"),
    "secret-undeclared": (
        SecretUndeclared,
        "declare it under [tool.silo.secrets] in the skill's header and install it again",
    ),
    "arguments-invalid": (ArgumentsRefused, INSPECT_TOOL),
    "tool-unknown": (SkillMetadataInvalid, "install the skill again"),
}
"""The error and its hint for each of `silo.wire.messages.FAILURE_CODES`.

A guest that does not know the tool (`tool-unknown`) differs from the record of its installation, so its metadata is
invalid.
"""
