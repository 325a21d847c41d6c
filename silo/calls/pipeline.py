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
from silo.calls.results import to_result
from silo.errors import CanaryTripped, ResultInvalid, SecretMissing, SiloError, SkillUnknown, ToolUnknown
from silo.model import Call, Decision, File, Isolation, ProgressReport, Result, Skill, Tool
from silo.names import split_id, suggestion
from silo.policy.evaluate import decide
from silo.policy.rules import Rule
from silo.policy.visible import refusal
from silo.runners.base import Placement, Runner
from silo.sandbox.skill.base import GuestReply, GuestRequest
from silo.schema.arguments import Checkers, check_arguments, check_json, check_result
from silo.schema.checker import Json
from silo.schema.files import InputRules, find_files, load_files
from silo.secrets.lease import Secrets
from silo.secrets.redaction import Redactor
from silo.wire.messages import Progress

OnProgress = Callable[[ProgressReport], None]


class Skills(Protocol):
    """The installed skills: `silo.catalog.store.SkillStore` is one. Blocking; called in a worker thread."""

    def get(self, namespace: str) -> Skill:
        """Return a skill whose script and lock are what was agreed to.

        Raises:
            SkillUnknown: there is none of that name.
            SkillChanged: its files differ from what was installed.
        """
        ...

    def list(self) -> tuple[Skill, ...]:
        """Return all skills, sorted by namespace, without checking their files."""
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
    runner: Runner
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
            skill, tool = await self._resolve(call.tool)  # SkillUnknown, SkillChanged, ToolUnknown
            record.found(skill, tool)
            if (no := refusal(tool, skill.header, call.caller, self.policy)) is not None:
                record.decided(no)
                raise denied(tool, no)  # before arguments are looked at: what they should be is not for this caller
            call, request = await self._check(call, skill, tool)  # ArgumentsInvalid, FileRefused
            # In a thread: rules look at every part of arguments that an agent chose, up to 1 MiB of them.
            decision = await to_thread.run_sync(decide, tool, skill.header, call.arguments, call.caller, self.policy)
            record.decided(decision)
            place = await self.runner.place(floor=skill.header.min_isolation, named=call.backend)  # SandboxUnavailable
            watch.lap("check")
            return await self._agreed(call, skill, tool, decision, place, request, record, watch, on_progress)

    async def _agreed(
        self,
        call: Call,
        skill: Skill,
        tool: Tool,
        decision: Decision,
        place: Placement,
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

        def tell(message: str) -> None:
            on_progress(ProgressReport(0.0, None, message))

        while True:
            grant = await self.approvals.settle(  # CallDenied
                call, skill, tool, decision, place.isolation, tell, on_question=record.asked
            )
            record.decided(grant.decision)
            watch.lap("approve")
            await record.begin(place.isolation)  # AuditBroken
            try:
                async with self.slots, self.secrets.lease(skill.namespace, names, supplied) as lease:  # VaultLocked
                    watch.lap("unlock")
                    if not await self.approvals.use(grant):
                        continue
                    self.approvals.forget(call, skill, tool)
                    request = replace(request, secrets=dict(lease.values))
                    redactor = Redactor(request.secrets, lease.canaries)
                    return await self._run(skill, tool, place, request, redactor, watch, on_progress)
            except SecretMissing as missing:
                supplied |= await self.approvals.supply(  # SecretMissing
                    call, skill, tool, missing, can_keep=self.secrets.can_keep, tell=tell, on_question=record.asked
                )

    async def _resolve(self, name: str) -> tuple[Skill, Tool]:
        parts = split_id(name)
        if parts is None:
            installed = await to_thread.run_sync(self.skills.list)
            ids = [tool.id for skill in installed for tool in skill.tools]
            raise _unknown(name, ids)
        try:
            skill = await to_thread.run_sync(self.skills.get, parts[0])
        except SkillUnknown as error:
            installed = await to_thread.run_sync(self.skills.list)
            ids = [tool.id for skill in installed for tool in skill.tools]
            raise SkillUnknown(error.message, hint=suggestion(name, ids, otherwise=error.hint)) from error
        for tool in skill.tools:
            if tool.name == parts[1]:
                return skill, tool
        raise _unknown(name, [tool.id for tool in skill.tools])

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
        place: Placement,
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
            reply = await self.runner.run(
                place, skill, request, timeout_s=tool.timeout_s, on_progress=relay, on_step=tell
            )
            watch.add(reply.timing)
            return await to_thread.run_sync(self._finish, skill, tool, reply, redactor, place.isolation, watch)
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
        return replace(result, timing=watch.timing())


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

    def add(self, phases: Mapping[str, float]) -> None:
        """Take over phases that somebody else measured; the next one begins now."""
        self._last = self._clock()
        self._laps |= phases

    def timing(self) -> dict[str, float]:
        """Return all phases in their order."""
        return {**self._laps, "total": self._last - self._started}


def put_back(value: Json, files: tuple[File, ...]) -> Json:
    """Return arguments with each file in its place again, so that a person sees what is passed."""
    if isinstance(value, dict):
        if value.keys() == {"$file"} and isinstance(index := value["$file"], int) and index < len(files):
            return files[index]
        return {key: put_back(item, files) for key, item in value.items()}
    if isinstance(value, list):
        return [put_back(item, files) for item in value]
    return value


def _unknown(name: str, ids: list[str]) -> ToolUnknown:
    return ToolUnknown(
        f"there is no tool {name[:120]!r}",
        hint=suggestion(name, ids, otherwise="`silo list` shows the installed skills and their tools"),
    )
