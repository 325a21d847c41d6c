"""Turn an exception of a skill into one line and the traceback from the skill's first frame on, for its author."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from silo.sdk.cuts import shortened
from silo.sdk.errors import InvokeFailed, SecretUnavailable

MAX_MESSAGE_CHARS: Final = 1000
MAX_TRACEBACK_CHARS: Final = 16_000
"""Enough for a hundred frames. Of a longer one the end is kept, which has the cause."""


def failure_of(error: BaseException, code: str, secrets: Mapping[str, str] = MappingProxyType({})) -> InvokeFailed:
    """Return the failure for an exception, without a reference to it, because its frames may hold secrets.

    Args:
        error: the exception that the skill raised.
        code: one of `FAILURE_CODES`, for any exception but the special cases below.
        secrets: those of the call by name; no part of one is left where a text is cut.

    Returns:
        `skill-exited` for SystemExit and KeyboardInterrupt, `secret-undeclared` for `SecretUnavailable` (during a
        call), a copy of an `InvokeFailed`, and `code` for every other exception.
    """
    if isinstance(error, InvokeFailed):
        code, message, report = error.code, error.message, error.traceback
    elif isinstance(error, SystemExit):
        code, message, report = "skill-exited", f"the skill ended its process: {_worded(error)}", _trimmed(error)
    elif isinstance(error, KeyboardInterrupt):
        code, message, report = "skill-exited", "the skill was interrupted", _trimmed(error)
    elif isinstance(cause := _sole(error), SecretUnavailable) and code == "skill-exception":
        code, message, report = "secret-undeclared", str(cause), _trimmed(error)
    else:
        message, report = _worded(error), _trimmed(error)
    line = " ".join(_clean(message).split())
    return InvokeFailed(
        code,
        shortened(line, MAX_MESSAGE_CHARS, secrets),
        shortened(_clean(report), MAX_TRACEBACK_CHARS, secrets, from_end=True, mark="…"),
    )


def _sole(error: BaseException) -> BaseException:
    """Return the exception that a task group wrapped, if it is a single one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _worded(error: BaseException) -> str:
    """Return `ValueError: text`; the traceback module handles an exception whose `__str__` fails."""
    return "".join(traceback.TracebackException(type(error), error, None).format_exception_only())


def _trimmed(error: BaseException) -> str:
    report = traceback.TracebackException.from_exception(error, compact=True)
    _trim(report, 8)
    return "".join(report.format())


def _trim(report: traceback.TracebackException, depth: int) -> None:
    """Drop the frames above the skill's, those of this package and of asyncio, in causes as well."""
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
