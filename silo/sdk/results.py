"""`AgentResponse`, which a tool may return instead of plain values. `silo.sdk.encode` turns any result into JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from silo.sdk.files import File


@dataclass(frozen=True)
class AgentResponse:
    """A result whose text for the model differs from its data, or that reports a failure without an exception.

    Attributes:
        llm_text: what the model reads. If empty, it reads the error message, or the data as JSON.
        raw_data: any value that is JSON, or that silo can turn into JSON (dataclasses, dates, pydantic models). None
            means no data.
        status: `error` marks the result as a failure that the model may act on.
        error_message: what failed; shown after `llm_text`.
        files: the files that the tool made.
    """

    llm_text: str = ""
    raw_data: object = None
    status: Literal["success", "error"] = "success"
    error_message: str | None = None
    files: Sequence[File] = ()

    def __post_init__(self) -> None:
        text: object = self.llm_text
        if not isinstance(text, str):
            raise TypeError(f"AgentResponse.llm_text is a text, not {type(text).__name__}; give data as raw_data=")
        if self.status not in ("success", "error"):
            raise ValueError(f"AgentResponse.status is 'success' or 'error', not {self.status!r}")
        if isinstance(self.files, File):
            raise TypeError("AgentResponse.files is a list of File; write files=[file]")
        if self.error_message is not None and self.status != "error":
            raise ValueError('AgentResponse has an error_message but status="success"; say status="error"')
