"""The path of a call from the agent to its result; the only place that knows the order of the steps.

The order carries meaning: arguments are checked before anybody is asked, a person agrees before a secret is unlocked, the record is
written before a guest starts, and what comes back is redacted before anybody sees it. Each step is a module of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from anyio import to_thread

from silo.approvals.consent import Approvals, denied
from silo.audit.log import AuditLog
from silo.audit.trail import Trail, trail
from silo.calls.files import InputRules, load_files
from silo.calls.results import to_error, to_result
from silo.errors import CanaryTripped, ResultInvalid, SecretMissing, SiloError
from silo.model import Call, Decision, Isolation, ProgressReport, Result, Skill, Tool
from silo.policy.evaluate import decide
from silo.policy.rules import Rule
from silo.policy.visible import refusal
from silo.providers.skills import Skills
from silo.sandbox.base import Backend, GuestReply, GuestRequest, Sandbox, Unit
from silo.schema.arguments import Checkers, check_arguments, check_json, check_result
from silo.schema.canonical import Fingerprint
from silo.schema.files import find_files, put_back
from silo.secrets.lease import Secrets
from silo.secrets.redaction import Redactor
from silo.wire.messages import Failed, Progress

OnProgress = Callable[[ProgressReport], None]


class BackendChoice(Protocol):
    """Picks a backend that works here: `silo.runners.choose.Sandboxes` is one."""

    async def pick(self, *, floor: Isolation | None, named: Isolation | None) -> Backend:
        """Return the backend for a skill with the given floor, or the one that was named.

        Raises:
            SandboxUnavailable: none that is strong enough works here.
        """
        ...


class Units(Protocol):
    """Knows what a backend is to run for a skill."""

    async def of(self, skill: Skill) -> Unit:
        """Return the unit that was built when the skill was installed, rebuilding what is missing of it."""
        ...


@dataclass(frozen=True)
class CallPipeline:
    """Everything that a call passes, in one place; built by `silo.runtime`.

    Attributes:
        slots: entered while a call holds secrets and a guest, so that only so many do at once. A call that waits for a person
            takes no slot.
    """

    skills: Skills
    rules: InputRules
    approvals: Approvals
    secrets: Secrets
    backends: BackendChoice
    units: Units
    audit: AuditLog
    policy: Sequence[Rule] = ()
    slots: AbstractAsyncContextManager[object] = field(default_factory=nullcontext)
    checkers: Checkers = field(default_factory=Checkers)
    clock: Callable[[], float] = time.monotonic

    async def run(self, call: Call, on_progress: OnProgress = lambda report: None) -> Result:
        """Take one call to its result.

        Raises:
            SiloError: one subclass for each way in which a call can fail; no text of it holds a secret.
        """
        watch = _Stopwatch(self.clock)
        async with trail(self.audit, call, clock=self.clock) as record:
            # SkillUnknown, SkillChanged, ToolUnknown
            skill, tool = await to_thread.run_sync(self.skills.resolve, call.tool, call.caller)
            record.found(skill, tool)
            if (no := refusal(tool, skill.header, call.caller, self.policy)) is not None:
                record.decided(no)
                raise denied(tool, no)  # before arguments are looked at: what they should be is not for this caller
            call, request = await self._check(call, skill, tool)  # ArgumentsInvalid, FileRefused
            # In a thread: rules look at every part of arguments that an agent chose, up to 1 MiB of them.
            decision = await to_thread.run_sync(decide, tool, skill.header, call.arguments, call.caller, self.policy)
            record.decided(decision)
            backend = await self.backends.pick(
                floor=skill.header.min_isolation, named=call.backend
            )  # SandboxUnavailable
            watch.lap("check")
            return await self._agreed(call, skill, tool, decision, backend, request, record, watch, on_progress)

    async def _agreed(
        self,
        call: Call,
        skill: Skill,
        tool: Tool,
        decision: Decision,
        backend: Backend,
        request: GuestRequest,
        record: Trail,
        watch: _Stopwatch,
        on_progress: OnProgress,
    ) -> Result:
        """Get a person's yes, then the secrets, then run the call.

        A yes is used up last, when all else is there: one that was given once is not lost because a secret is still missing. Where
        another call was faster with it, this one asks anew. No slot is held while a person is waited for.
        """
        names = tool.secrets
        supplied: dict[str, str] = {}
        # Hashed for the record already, unless files were read since. Compared, so that a person agrees to what runs, whatever a
        # program does meanwhile to the arguments that it passed.
        hashed = record.arguments
        arguments = hashed if hashed.json == call.arguments else Fingerprint(call.arguments)

        def tell(message: str) -> None:
            on_progress(ProgressReport(0.0, None, message))

        while True:
            grant = await self.approvals.settle(  # CallDenied
                call, arguments, skill, tool, decision, backend.isolation, tell, on_question=record.asked
            )
            record.decided(grant.decision)
            watch.lap("approve")
            await record.begin(backend.isolation)  # AuditBroken
            try:
                async with self.slots, self.secrets.lease(skill.namespace, names, supplied) as lease:  # VaultLocked
                    watch.lap("unlock")
                    if not await self.approvals.use(grant):
                        continue
                    self.approvals.forget(call, skill, tool)
                    request = replace(request, secrets=dict(lease.values))
                    redactor = Redactor(request.secrets, lease.canaries)
                    return await self._run(skill, tool, backend, request, redactor, watch, on_progress)
            except SecretMissing as missing:
                supplied |= await self.approvals.supply(  # SecretMissing
                    call, skill, tool, missing, can_keep=self.secrets.can_keep, tell=tell, on_question=record.asked
                )

    async def _check(self, call: Call, skill: Skill, tool: Tool) -> tuple[Call, GuestRequest]:
        """Check the arguments and read the files among them; returns the call with its files in place, and what the guest gets."""

        def work() -> tuple[Call, GuestRequest]:
            check_json(call.arguments, tool.id)
            arguments, places = find_files(tool, call.arguments)
            check_arguments(tool, self.checkers.of(skill, tool)[0], arguments)
            files = load_files(places, self.rules)
            whole: dict[str, Any] = put_back(arguments, files) if files else arguments
            return replace(call, tool=tool.id, arguments=whole), GuestRequest(tool.name, arguments, files=files)

        return await to_thread.run_sync(work)

    async def _run(
        self,
        skill: Skill,
        tool: Tool,
        backend: Backend,
        request: GuestRequest,
        redactor: Redactor,
        watch: _Stopwatch,
        on_progress: OnProgress,
    ) -> Result:
        """Run the call in a fresh guest. Whatever leaves this function, a result or an error, has been redacted."""

        def relay(progress: Progress) -> None:
            message = None if progress.message is None else redactor.text(progress.message)
            on_progress(ProgressReport(progress.progress, progress.total, message))

        def tell(step: str) -> None:
            on_progress(ProgressReport(0.0, None, step))

        try:
            await to_thread.run_sync(_refuse_decoys, request, redactor)  # CanaryTripped
            unit = await self.units.of(skill)
            opened: AbstractAsyncContextManager[Sandbox] = backend.open(unit, on_step=tell)
            async with opened as sandbox:
                watch.lap("open")
                deadline = self.clock() + tool.timeout_s
                reply = await sandbox.run(request, deadline=deadline, on_progress=relay)
                watch.lap("run")
                isolation = sandbox.isolation
            watch.lap("close")
            return await to_thread.run_sync(self._finish, skill, tool, reply, redactor, isolation, watch)
        except SiloError as error:
            if not redactor:
                raise
            # `from None`: the original, and what caused it, may quote what the guest sent.
            try:
                cleaned = redactor.error(error)
            except CanaryTripped as tripped:
                raise tripped from None
            raise cleaned from None

    def _finish(
        self,
        skill: Skill,
        tool: Tool,
        reply: GuestReply,
        redactor: Redactor,
        isolation: Isolation,
        watch: _Stopwatch,
    ) -> Result:
        if isinstance(reply.outcome, Failed):
            raise to_error(tool, reply, redactor)
        checker = self.checkers.of(skill, tool)[1]
        if checker is not None and not reply.outcome.is_error:
            # What a tool returns as text alone is a value too, and the one to name if another was promised.
            returned = reply.outcome.data if reply.outcome.has_data else reply.outcome.text or None
            try:
                check_result(tool, checker, returned)
            except ResultInvalid as error:
                # The message quotes the result and is cut, and half a secret can't be found afterwards: so it is worded once more.
                check_result(tool, checker, redactor.data(returned))
                raise ResultInvalid(f"the result of {tool.id} is not what it promises", hint=error.hint) from None
        result = to_result(reply, redactor, isolation=isolation, timing={})
        watch.lap("redact")
        return replace(result, timing=watch.timing(reply.timing))


def _refuse_decoys(request: GuestRequest, redactor: Redactor) -> None:
    """Let no decoy into a guest: whoever passes one on has it from the vault."""
    if redactor.has_canaries:
        redactor.data(request.arguments)
        for file in request.files:
            redactor.file(file)


class _Stopwatch:
    """Seconds by phase of one call, in the order in which they passed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = self._last = clock()
        self._laps: dict[str, float] = {}

    def lap(self, phase: str) -> None:
        """End a phase now."""
        now = self._clock()
        self._laps[phase] = now - self._last
        self._last = now

    def timing(self, inside: Mapping[str, float]) -> dict[str, float]:
        """Return all phases in their order; what the backend measured inside of `run` is named `run.import` and so on."""
        phases: dict[str, float] = {}
        for phase, seconds in self._laps.items():
            phases[phase] = seconds
            if phase == "run":
                phases |= {f"run.{name}": value for name, value in inside.items()}
        return {**phases, "total": self._last - self._started}
