"""Turn an exception of a skill into what its author needs to read: one line, and the traceback from the skill's first frame on."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Final

from silo.sdk.errors import InvokeFailed, SecretUnavailable

MAX_MESSAGE_CHARS: Final = 1000
MAX_TRACEBACK_CHARS: Final = 16_000
"""Enough for a hundred frames; of a longer one the end is kept, where the cause is."""


def failure_of(error: BaseException, code: str) -> InvokeFailed:
    """Return the failure that stands for an exception, without a reference to it: its frames may hold secrets.

    Args:
        error: what the skill raised.
        code: of `FAILURE_CODES`, for an exception that is none of the special cases.

    Returns:
        `skill-exited` for SystemExit and KeyboardInterrupt, `secret-undeclared` for `SecretUnavailable` (during a call), an
        `InvokeFailed` as it is, and `code` for all else.
    """
    if isinstance(error, InvokeFailed):
        return InvokeFailed(error.code, error.message, error.traceback)
    if isinstance(error, SystemExit):
        return InvokeFailed("skill-exited", f"the skill ended its process: {_one_line(error)}", _trimmed(error))
    if isinstance(error, KeyboardInterrupt):
        return InvokeFailed("skill-exited", "the skill was interrupted", _trimmed(error))
    cause = _sole(error)
    if isinstance(cause, SecretUnavailable) and code == "skill-exception":
        return InvokeFailed("secret-undeclared", _clean(str(cause))[:MAX_MESSAGE_CHARS], _trimmed(error))
    return InvokeFailed(code, _one_line(error), _trimmed(error))


def _sole(error: BaseException) -> BaseException:
    """What a task group wrapped, if that is a single exception."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _one_line(error: BaseException) -> str:
    """`ValueError: text`, also where the exception's own `__str__` fails (the traceback module sees to that)."""
    text = "".join(traceback.TracebackException(type(error), error, None).format_exception_only())
    return _clean(" ".join(text.split()))[:MAX_MESSAGE_CHARS]


def _trimmed(error: BaseException) -> str:
    report = traceback.TracebackException.from_exception(error, compact=True)
    _trim(report, 8)
    text = _clean("".join(report.format()))
    return text if len(text) <= MAX_TRACEBACK_CHARS else "…" + text[-MAX_TRACEBACK_CHARS:]


def _trim(report: traceback.TracebackException, depth: int) -> None:
    """Drop the frames above the skill's: of this package, and of asyncio where it runs the tool; in causes as well."""
    ours = os.path.dirname(__file__) + os.sep  # noqa: PTH120 - pathlib is not needed for anything else here
    asyncio = getattr(sys.modules.get("asyncio"), "__file__", None)
    above = (ours, os.path.dirname(asyncio) + os.sep) if asyncio else (ours,)  # noqa: PTH120
    frames = list(report.stack)
    while frames and frames[0].filename.startswith(above):
        del frames[0]
    report.stack = traceback.StackSummary.from_list(frames)
    for other in (report.__cause__, report.__context__, *(report.exceptions or ())):
        if other is not None and depth:
            _trim(other, depth - 1)


def _clean(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
