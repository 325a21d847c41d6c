"""Results and failures in MCP's words, for a model that has to act on them. Pure; nothing here calls anything.

Three readers (STYLE §6): the person's hint travels along because the model can pass it on; the cause stays in the log
of the server. Text of an unexpected exception is in neither: `internal_error` has no parameter for it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from mcp import types

from silo.errors import (
    ApprovalPending,
    CallDenied,
    SiloError,
    SkillFailed,
)
from silo.model import File, Result, Tool
from silo.remedies import AnswerQuestion, CallAgain, Commands, DoNotCallAgain
from silo.server.protocol.tools import SEARCH, compact_json, one_line, wrap_data
from silo.server.protocol.untrusted_text import arguments_line
from silo.sizes import KIB, MIB

META_ERROR = "dev.silo/error"
META_ISOLATION = "dev.silo/isolation"
META_TIMING = "dev.silo/timing"
META_GUEST = "dev.silo/guest"
META_LOGS = "dev.silo/logs"
META_APPROVAL = "dev.silo/approval"

MAX_FILE_BYTES = 8 * MIB
"""One file in a result. Clients keep it in the conversation: base64 of this is already far more than a model reads."""
MAX_FILES_BYTES = 16 * MIB
SCHEMA_CHARS = 4 * KIB
"""The largest schema that is shown with an error. Of a larger one, only names and types are shown."""

LOG_CHARS = 4 * KIB
"""How much of the end of stdout, and of stderr, is shown with a result; the reason for a failure is at the end."""

# Types that model APIs take as images; others (TIFF, SVG) make some clients refuse the whole message, so they go as
# resources.
_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_AUDIO_TYPES = frozenset(
    {"audio/mpeg", "audio/wav", "audio/x-wav", "audio/ogg", "audio/flac", "audio/mp4", "audio/webm"}
)
_TEXT_TYPES = frozenset(
    {
        "application/json",
        "application/jsonl",
        "application/x-ndjson",
        "application/xml",
        "application/yaml",
        "image/svg+xml",
    }
)


def call_result(result: Result, tool: Tool | None) -> types.CallToolResult:
    """Return the result of a call: text, structured data, files, and facts about the run under `_meta`."""
    if tool is not None and tool.output_schema is not None and not result.has_data and not result.is_error:
        # Clients raise on a result without the structured content that `outputSchema` promised, and the model sees
        # nothing.
        return _error_result(
            "result-invalid",
            f"the tool {tool.id!r} returned no data, though its output schema promises some",
            "tell the author of the skill; its text was: " + (_tail(result.text) or "empty"),
            _facts(result),
        )
    content: list[types.ContentBlock] = []
    if text := result.text or (compact_json(result.data) if result.has_data else ""):
        content.append(types.TextContent(type="text", text=printable(text)))
    content += _file_blocks(result.files)
    if result.truncated:
        content.append(types.TextContent(type="text", text="(The output was longer; silo cut it.)"))
    if not content:
        content.append(types.TextContent(type="text", text="The tool finished and returned nothing."))
    return types.CallToolResult(
        content=content,
        structured_content=wrap_data(tool, result.data) if result.has_data else None,
        is_error=result.is_error,
        _meta=_facts(result),
    )


def error_result(error: SiloError, tool: Tool | None = None) -> types.CallToolResult:
    """Return a failure that silo expected: code, what happened, what to do next, and the end of what the skill printed.

    Args:
        error: the failure.
        tool: the tool, if its arguments were wrong; the answer then shows what it takes.
    """
    details = []
    meta: dict[str, Any] = {}
    if isinstance(error, SkillFailed):
        if error.traceback:
            details.append(f"--- traceback, from the skill ---\n{_tail(error.traceback)}")
        if error.stderr:
            details.append(f"--- end of stderr, from the skill ---\n{_tail(error.stderr)}")
        if error.stdout:
            details.append(f"--- end of stdout, from the skill ---\n{_tail(error.stdout)}")
        meta[META_LOGS] = {"stdout": _tail(error.stdout), "stderr": _tail(error.stderr)}
    if tool is not None:
        schema = compact_json(tool.input_schema)
        shown = schema if len(schema) <= SCHEMA_CHARS else one_line(arguments_line(tool), SCHEMA_CHARS)
        details.append(f"--- what {tool.id} takes ---\n{printable(shown)}")
    return _error_result(error.code, error.message, hint_for_model(error), meta, details)


def pending_result(error: ApprovalPending, name: str, prompt: str = "") -> types.CallToolResult:
    """Return that a call waits for a person: what is asked, where, and when to call again.

    Args:
        error: the question.
        name: the name under which the client called, and has to call again.
        prompt: what the user did with the client's prompt instead of opening the link: `decline` or `cancel`. It
            does not answer the question, but the user should not be pressed to answer.
    """
    again = f"call {name} again with the same arguments"
    if prompt:
        message = f"the user did not open the link ({prompt}), so nobody has agreed: {error.title}"
        hint = (
            f"the question still stands at {error.link}, where only the user can answer it; {again} only if they ask "
            "for it"
        )
    else:
        message = f"nobody has answered yet: {error.title}"
        hint = (
            f"{_where_to_answer(error)}. Nothing has run. When the user says that they have answered, {again}; not "
            "before, and not with others"
        )
    approval = {"state": "pending", "question": error.question, "url": error.link}
    return _error_result(error.code, message, hint, {META_APPROVAL: approval | ({"prompt": prompt} if prompt else {})})


def internal_error(incident: str) -> types.CallToolResult:
    """Return a failure that silo did not expect; `incident` finds it in the log of the server."""
    return _error_result(
        "internal-error",
        f"silo failed unexpectedly (incident {incident})",
        f"the user finds the cause under {incident} in the log that the client keeps of this server",
        {"dev.silo/incident": incident},
    )


def hint_for_model(error: SiloError) -> str:
    """Return what to do next in words for a model, which has tools instead of a command line."""
    match error.remedy:
        case Commands(finds="tools"):
            return f'find one: call {SEARCH} with {{"query": "what the tool should do"}}'
        case Commands(finds="parameters"):
            return f"{SEARCH} with the tool's id as the query shows it whole, schemas included"
        case CallAgain() | DoNotCallAgain() | AnswerQuestion():
            return error.hint
    if isinstance(error, CallDenied):
        return f"{error.hint}; calling again, with these or other arguments, changes nothing"
    return error.hint


def _where_to_answer(error: ApprovalPending) -> str:
    """Return where a question is answered. The caller adds when to call again, under the name that the client used."""
    if isinstance(error.remedy, AnswerQuestion):
        return f"{error.remedy.place}; {error.remedy.pairing}"
    return f"ask the user to open {error.link} and to answer there" if error.link else error.hint


def printable(text: str) -> str:
    """Return `text` as it can be written in UTF-8; lone surrogates (from names of files, say) become escapes."""
    return text.encode(errors="backslashreplace").decode()


def _error_result(
    code: str, message: str, hint: str, meta: Mapping[str, Any], details: list[str] | None = None
) -> types.CallToolResult:
    message, hint = printable(message), printable(hint)
    text = "\n".join([f"error [{code}]: {message}", f"hint: {hint}", *(details or [])])
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)],
        is_error=True,
        _meta={META_ERROR: {"code": code, "message": message, "hint": hint}, **meta},
    )


def _facts(result: Result) -> dict[str, Any]:
    facts: dict[str, Any] = {
        META_ISOLATION: result.isolation.value,
        META_TIMING: {phase: round(seconds, 6) for phase, seconds in result.timing.items()},
        META_GUEST: dict(result.guest),
    }
    if result.logs.stdout or result.logs.stderr:
        facts[META_LOGS] = {
            "stdout": _tail(result.logs.stdout),
            "stderr": _tail(result.logs.stderr),
            "truncated": result.logs.truncated or max(len(result.logs.stdout), len(result.logs.stderr)) > LOG_CHARS,
        }
    return facts


def _tail(text: str) -> str:
    text = printable(text)
    return text if len(text) <= LOG_CHARS else "…" + text[1 - LOG_CHARS :]


def _file_blocks(files: tuple[File, ...]) -> list[types.ContentBlock]:
    blocks: list[types.ContentBlock] = []
    spent = 0
    for number, file in enumerate(files, start=1):
        if file.size > MAX_FILE_BYTES or spent + file.size > MAX_FILES_BYTES:
            blocks.append(
                types.TextContent(
                    type="text",
                    text=f"The file {file.name or number!r} ({file.media_type}, {file.size:,} bytes) is too large to "
                    "send to a client. `silo run` on the command line can write it to disk.",
                )
            )
            continue
        spent += file.size
        blocks.append(_file_block(file, number))
    return blocks


def _file_block(file: File, number: int) -> types.ContentBlock:
    media_type = file.media_type.lower()
    if media_type in _IMAGE_TYPES:
        return types.ImageContent(type="image", data=_base64(file.data), mime_type=media_type)
    if media_type in _AUDIO_TYPES:
        return types.AudioContent(type="audio", data=_base64(file.data), mime_type=media_type)
    # A label, not an address: the file lives in this result only. The number keeps two files of one name apart.
    uri = f"silo-result:///{number}/{quote(file.name or 'file', safe='')}"
    if media_type.startswith("text/") or media_type in _TEXT_TYPES:
        try:
            text = file.data.decode()
        except UnicodeDecodeError:
            pass
        else:
            return types.EmbeddedResource(
                type="resource", resource=types.TextResourceContents(uri=uri, mime_type=file.media_type, text=text)
            )
    return types.EmbeddedResource(
        type="resource",
        resource=types.BlobResourceContents(uri=uri, mime_type=file.media_type, blob=_base64(file.data)),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
