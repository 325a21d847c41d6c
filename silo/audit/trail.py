"""The records of one call, and when they are written. `silo.audit.log` has the file and its chain.

A call leaves two records: `call` right before anything is unlocked or started, and `end` when it is over. A call that
is refused before leaves a single `refused`. A call in which a decoy appeared leaves an `alert` as well. If the first
record can't be written, the call does not run; if the last can't, the caller does not get its result.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from anyio import CancelScope, get_cancelled_exc_class, to_thread

from silo.audit.fitting import MARK
from silo.audit.log import AuditLog
from silo.errors import CanaryTripped, SiloError
from silo.model import Call, Caller, Decision, Isolation, Skill, Tool
from silo.schema.canonical import HashedArguments

MAX_NAMES = 64
MAX_CHARS = 200
"""Names of arguments and clients come from an agent; they are cut so that a record stays one short line. If they are
still too long together, `silo.audit.fitting` cuts further."""


class Trail:
    """Collects the facts of a call while it runs."""

    def __init__(self, log: AuditLog, call: Call) -> None:
        self._log = log
        self._body: dict[str, Any] = {
            "call": call.id,
            "caller": caller_record(call.caller),
            "tool": _cut(call.tool),
            "arguments": _arguments(HashedArguments(call.arguments)),
        }
        self._has_begun = False
        self._questions = 0
        self._has_alert = False

    def found(self, skill: Skill, tool: Tool) -> None:
        """Note the tool, and the version of its skill."""
        self._body |= {"tool": tool.id, "skill_digest": skill.digest, "secrets": list(tool.secrets)}

    def checked(self, arguments: HashedArguments) -> None:
        """Note the arguments as the tool gets them, in place of those that came in. Blocks: it hashes their files."""
        self._body["arguments"] = _arguments(arguments)

    def decided(self, decision: Decision) -> None:
        """Note a decision: the policy's, then the person's."""
        said = {"verdict": decision.verdict, "reason": _cut(decision.reason)}
        if decision.rule:
            said["rule"] = decision.rule
        if decision.question:
            said["question"] = decision.question
        self._body["decision"] = said

    def asked(self) -> None:
        """Note that a person was asked a question about the call."""
        self._questions += 1

    def tripped(self) -> None:
        """Note that a decoy turned up in it."""
        self._has_alert = True

    async def begin(self, isolation: Isolation) -> None:
        """Write the record that must exist before anything is unlocked and a guest starts; only the first time.

        Raises:
            AuditBroken: it could not be written.
        """
        if self._has_begun:
            return
        self._body["isolation"] = isolation.value
        await to_thread.run_sync(self._log.append, "call", dict(self._body))
        self._has_begun = True

    async def close(self, outcome: str, duration_ms: int) -> None:
        """Write the last record; also when the call is being cancelled.

        Raises:
            AuditBroken: it could not be written.
        """
        body = {**self._body, "outcome": outcome, "duration_ms": duration_ms}
        if self._questions:
            body["questions"] = self._questions
        with CancelScope(shield=True):
            if self._has_alert:
                await to_thread.run_sync(
                    self._log.append, "alert", {"call": body["call"], "tool": body["tool"], "alert": outcome}
                )
            await to_thread.run_sync(self._log.append, "end" if self._has_begun else "refused", body)


def caller_record(caller: Caller) -> dict[str, str]:
    """Return the caller as records have it."""
    said = {"kind": caller.kind, "client": _cut(caller.client)}
    return {**said, "session": caller.session} if caller.session else said


@asynccontextmanager
async def trail(log: AuditLog, call: Call, *, clock: Callable[[], float] = time.monotonic) -> AsyncIterator[Trail]:
    """Record a call, however it ends; exceptions of the body propagate unchanged."""
    started = clock()
    notes = Trail(log, call)
    outcome = "ok"
    try:
        yield notes
    except SiloError as error:
        outcome = error.code
        if isinstance(error, CanaryTripped):
            notes.tripped()
        raise
    except (get_cancelled_exc_class(), KeyboardInterrupt):
        outcome = "interrupted"
        raise
    except BaseException:
        outcome = "internal-error"
        raise
    finally:
        await notes.close(outcome, round((clock() - started) * 1000))


def _arguments(arguments: HashedArguments) -> dict[str, Any]:
    """Return names and a hash; the hash is null for arguments that aren't JSON, which will be refused."""
    digest: str | None
    try:
        digest = arguments.sha256
    except (ValueError, TypeError, RecursionError, RuntimeError):  # the last if a program changes them meanwhile
        digest = None
    names = sorted(_cut(name) if isinstance(name, str) else f"<{type(name).__name__}>" for name in arguments.arguments)
    said: dict[str, Any] = {"names": names[:MAX_NAMES], "sha256": digest}
    return said if len(names) <= MAX_NAMES else {**said, "more_names": len(names) - MAX_NAMES}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARS else text[:MAX_CHARS] + MARK
