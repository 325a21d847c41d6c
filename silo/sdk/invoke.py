"""Run one tool of a skill, from the document on its STDIN to an `Outcome`; rehearse that; run the warmups.

This module has the order of a call's steps inside a guest. `silo.guest` reads the document and sends the result;
`silo.sdk.author` runs a tool for its author through the same `run_tool`.

Every guest loads this module, so slow modules are imported where they are used: `asyncio` (30 ms, which a skill without
async tools never pays).
"""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, BinaryIO, Final, TypeVar

from silo.sdk.coerce import CoercionError, coerce_arguments
from silo.sdk.context import Emit, open_call
from silo.sdk.encode import Outcome, outcome_of
from silo.sdk.errors import InvokeFailed
from silo.sdk.files import File
from silo.sdk.skill import Skill, ToolDefinition
from silo.sdk.tracebacks import failure_of

__all__ = ["InvokeFailed", "Outcome", "invoke", "rehearse", "run_tool", "warm"]

T = TypeVar("T")


@dataclass(frozen=True)
class _Document:
    arguments: dict[str, Any]
    secrets: dict[str, str]

    def __repr__(self) -> str:
        return "_Document(...)"


def invoke(skill: Skill, tool: str, stdin: BinaryIO, files: Sequence[File], emit: Emit) -> Outcome:
    """Serve one call: read its document, run the tool, and return its result. Nothing of the call is kept.

    Args:
        skill: the imported skill.
        tool: the name of the tool, without the skill's.
        stdin: holds the JSON object `{"arguments": {...}, "secrets": {...}, "files": [...]}`; read to its end.
        files: the files that belong at the places in the document's `files`, in their order.
        emit: receives progress, from any thread of the tool, until this function returns.

    Raises:
        InvokeFailed: the call has no result; see its `code`.
    """
    document = _read(stdin, files)
    try:
        definition = skill.tools[tool]
    except KeyError:
        known = ", ".join(sorted(skill.tools))
        raise InvokeFailed(
            "tool-unknown", f"the skill {skill.namespace!r} has no tool {tool!r}; it has {known}"
        ) from None
    return run_tool(definition, document.arguments, document.secrets, emit)


def run_tool(
    tool: ToolDefinition,
    arguments: Mapping[str, Any],
    secrets: Mapping[str, str],
    emit: Emit | None,
) -> Outcome:
    """Run a tool with JSON arguments and `File`s among them, like `invoke`, for a caller that has no document."""

    def run() -> Outcome:
        try:
            given = coerce_arguments(tool.signature, arguments)
        except CoercionError as error:
            raise InvokeFailed("arguments-invalid", str(error)) from None
        with open_call(secrets=secrets, emit=emit):
            return outcome_of(_finish(tool.function(**given)))

    return _reported(run, "skill-exception", secrets)


def warm(skill: Skill) -> None:
    """Run the skill's warmups in the order of the script, without secrets.

    Raises:
        InvokeFailed: `skill-import-error`: one of them raised; `skill-exited`: it ended the process.
    """
    for warmup in skill.warmups:
        _reported(partial(_call, warmup), "skill-import-error")


def rehearse(skill: Skill) -> None:
    """Run the path of a call once, with a tool of silo's own, and then the warmups: the real call then runs warm code.

    It sees no secret and leaves no trace.

    Raises:
        InvokeFailed: a warmup failed.
    """
    rehearsal = Skill("rehearsal")
    rehearsal.tool(name="sync")(_rehearse)
    if any(tool.is_async for tool in skill.tools.values()):
        rehearsal.tool(name="async")(_rehearse_async)
    for name in rehearsal.tools:
        invoke(rehearsal, name, io.BytesIO(_REHEARSAL), (), _discard)
    warm(skill)


def _read(stdin: BinaryIO, files: Sequence[File]) -> _Document:
    """Read the document. The host wrote it and has checked the agent's part, so it is parsed leniently."""
    try:
        body = json.loads(stdin.read())
        arguments, secrets = body["arguments"], body.get("secrets", {})
        for (*way, last), file in zip(body.get("files", ()), files, strict=True):
            holder = arguments
            for step in way:
                holder = holder[step]
            holder[last] = file
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        arguments = secrets = None
    if not isinstance(arguments, dict) or not isinstance(secrets, dict):
        # The exception's text is left out, because it would quote the document.
        raise InvokeFailed(
            "arguments-invalid", 'STDIN must hold {"arguments": {...}, "secrets": {...}, "files": [...]} as JSON'
        )
    return _Document(arguments, secrets)


def _call(function: Callable[[], object]) -> object:
    return _finish(function())


def _finish(returned: object) -> object:
    """Wait for a coroutine's result, also if a decorator hides that the tool is a coroutine function."""
    if not inspect.isawaitable(returned):
        return returned
    import asyncio

    return asyncio.run(_await(returned))


async def _await(awaitable: Awaitable[object]) -> object:
    return await awaitable


def _reported(run: Callable[[], T], code: str, secrets: Mapping[str, str] = MappingProxyType({})) -> T:
    """Call, and turn any exception into an `InvokeFailed` without a reference to its frames, which hold secrets."""
    failure: InvokeFailed
    try:
        return run()
    except BaseException as error:  # the skill's code may raise anything; all of it is reported
        failure = failure_of(error, code, secrets)
    raise failure


_REHEARSAL: Final = json.dumps(
    {
        "arguments": {"text": "ä", "number": 1, "ratio": 0.5, "rows": [{"a": [True, None, "x"]}], "choice": None},
        "secrets": {},
    }
).encode()


def _rehearse(text: str, number: int, ratio: float, rows: list[dict[str, Any]], choice: str | None) -> dict[str, Any]:
    return {"text": text, "number": number, "ratio": ratio, "rows": rows, "choice": choice}


async def _rehearse_async(
    text: str, number: int, ratio: float, rows: list[dict[str, Any]], choice: str | None
) -> dict[str, Any]:
    return _rehearse(text, number, ratio, rows, choice)


def _discard(progress: float, total: float | None, message: str | None) -> None:
    """Ignore the progress of a rehearsal."""
