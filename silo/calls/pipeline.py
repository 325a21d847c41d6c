"""The path of a call from the agent to its result. Only this module knows the order of the steps.

The order matters: arguments are checked before anybody is asked, a person agrees before a secret is unlocked, the
record is written before a guest starts, and the reply is redacted before anybody sees it. Each step's work is in its
own module. `silo.calls.explain` takes the first steps to predict what would happen to a call.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace

from anyio import to_thread

from silo.approvals.consent import Approvals, Proposal, denied
from silo.audit.log import AuditLog
from silo.audit.trail import trail
from silo.calls.check import Checked, check
from silo.calls.files import InputRules
from silo.calls.results import to_result
from silo.errors import CallDenied, CanaryTripped, ResultInvalid, SandboxTimeout, SecretMissing, SiloError
from silo.model import Call, Decision, Isolation, ProgressReport, Result, Skill, Tool
from silo.policy.evaluate import Explanation, explain
from silo.policy.rules import Rule
from silo.policy.visible import refusal
from silo.providers.skills import Skills
from silo.remedies import CallAgain
from silo.runners.base import Placement, Runner
from silo.sandbox.base import Limits
from silo.sandbox.skill.base import GuestReply, GuestRequest
from silo.schema.arguments import Checkers, check_result
from silo.schema.canonical import HashedArguments
from silo.secrets.lease import Lease, Secrets
from silo.secrets.redaction import Redactor
from silo.wire.messages import Progress

OnProgress = Callable[[ProgressReport], None]

MAX_ROUNDS = 100
"""How often a call asks the person again: once for missing secrets, and once for each identical call that used up the
same yes first. A person answers each time, so only many identical calls at once come near the limit."""

MIN_REDACT_S = 2.0
"""Removing secrets counts towards the time of the call. A call that answers in its last moment gets this long; a result
as large as the limits allow takes less."""

MAX_REDACT_ERROR_S = 5.0
"""How long the texts of an error may take."""


@dataclass(frozen=True)
class CallPipeline:
    """Takes calls through all steps; `silo.compose.parts` builds it.

    Attributes:
        runner: decides where a call runs, and runs it there.
        limits: what a guest may send back, and so how large a result may be.
        slots: limits how many calls hold secrets and a guest at once. A call that waits for a person takes no slot.
    """

    skills: Skills
    rules: InputRules
    approvals: Approvals
    secrets: Secrets
    runner: Runner
    audit: AuditLog
    policy: Sequence[Rule] = ()
    limits: Limits = field(default_factory=Limits)
    slots: AbstractAsyncContextManager[object] = field(default_factory=nullcontext)
    checkers: Checkers = field(default_factory=Checkers)
    clock: Callable[[], float] = time.monotonic

    async def run(self, call: Call, on_progress: OnProgress = lambda report: None) -> Result:
        """Take one call to its result.

        Raises:
            SiloError: one subclass for each way a call can fail; no text of it holds a secret.
        """
        watch = _Watch(self.clock, on_progress)
        async with trail(self.audit, call, clock=self.clock) as record:
            skill, tool = await self.resolve(call)  # SkillUnknown, SkillChanged, ToolUnknown
            record.found(skill, tool)
            if (no := self.forbidden(call, skill, tool)) is not None:
                record.decided(no)
                raise denied(tool, no)  # first, because the error about arguments would describe the tool
            checked = await self.check(call, skill, tool)  # ArgumentsInvalid, FileRefused
            # From here on there is one value: it is recorded, decided on, shown, approved and sent.
            arguments = HashedArguments(checked.call.arguments)
            await to_thread.run_sync(record.checked, arguments)
            decision = (await self.decide(checked.call, skill, tool)).decision
            record.decided(decision)
            place = await self.place(call, skill)  # SandboxUnavailable
            watch.lap("check")
            proposal = Proposal(checked.call, arguments, skill, tool, place.isolation, watch.tell, record.asked)
            supplied: dict[str, str] = {}
            for _ in range(MAX_ROUNDS):
                grant = await self.approvals.obtain(proposal, decision)  # CallDenied; no slot is held meanwhile
                record.decided(grant.decision)
                watch.lap("approve")
                await record.begin(place.isolation)  # AuditBroken
                try:
                    async with self.slots, self.secrets.lease(skill.namespace, tool.secrets, supplied) as lease:
                        watch.lap("unlock")
                        # Last, when everything else is ready: a missing secret must not cost the yes.
                        if not await self.approvals.use(grant):
                            continue  # another call used it up first, so a person is asked again
                        self.approvals.forget(proposal)
                        redactor = await to_thread.run_sync(Redactor, lease.values, lease.canaries)
                        async with redacting(redactor):
                            began = time.monotonic()
                            reply = await self._run(checked, place, lease, redactor, watch)
                            watch.add(reply.timing)
                            timed = redactor.until(max(began + tool.timeout_s, time.monotonic() + MIN_REDACT_S))
                            result = await to_thread.run_sync(self._redact, checked, reply, place.isolation, timed)
                        watch.lap("redact")
                        return replace(result, timing=watch.timing())
                except SecretMissing as missing:  # VaultLocked and the like end the call
                    supplied |= await self.approvals.supply(proposal, missing, can_keep=self.secrets.can_keep)
            raise _overtaken(tool)

    # --- the steps, in their order ------------------------------------------------------------------------------------

    async def resolve(self, call: Call) -> tuple[Skill, Tool]:
        """Return the tool that a call names, in either spelling, and its skill.

        Raises:
            SkillUnknown, ToolUnknown: nothing has that name; the remedy has the nearest names that the caller may know.
            SkillChanged: the files of the skill are not what was agreed to.
        """
        return await to_thread.run_sync(self.skills.resolve, call.tool, call.caller)

    def forbidden(self, call: Call, skill: Skill, tool: Tool) -> Decision | None:
        """Return the decision on a tool that this caller may not call whatever its arguments; None if they matter."""
        return refusal(tool, skill.header, call.caller, self.policy)

    async def check(self, call: Call, skill: Skill, tool: Tool) -> Checked:
        """Check the arguments, and read the files among them.

        Raises:
            ArgumentsInvalid, FileRefused: as `silo.calls.check.check`.
        """
        return await to_thread.run_sync(check, call, skill, tool, self.checkers, self.rules)

    async def decide(self, call: Call, skill: Skill, tool: Tool) -> Explanation:
        """Return the policy's decision on a call with its files, and what each rule that names the tool says."""
        # In a thread: rules look at every part of the arguments, which an agent chose and which may have 1 MiB.
        return await to_thread.run_sync(explain, tool, skill.header, call.arguments, call.caller, self.policy)

    async def place(self, call: Call, skill: Skill) -> Placement:
        """Decide where the call runs.

        Raises:
            SandboxUnavailable: no backend that is strong enough works here.
        """
        return await self.runner.place(floor=skill.header.min_isolation, named=call.backend)

    async def _run(
        self, checked: Checked, place: Placement, lease: Lease, redactor: Redactor, watch: _Watch
    ) -> GuestReply:
        """Run the call in a fresh guest, which has ended when this returns. The reply may still hold secrets."""

        def relay(progress: Progress) -> None:
            message = None if progress.message is None else redactor.text(progress.message)
            watch.progress(ProgressReport(progress.progress, progress.total, message))

        request = replace(checked.request, secrets=dict(lease.values))
        await to_thread.run_sync(_refuse_decoys, request, redactor)  # CanaryTripped
        return await self.runner.run(
            place,
            checked.skill,
            request,
            timeout_s=checked.tool.timeout_s,
            on_progress=relay,
            on_step=watch.tell,
        )

    def _redact(self, checked: Checked, reply: GuestReply, isolation: Isolation, redactor: Redactor) -> Result:
        """Return the guest's reply as a result that fits the tool's output schema and holds no secret. Blocks."""
        skill, tool = checked.skill, checked.tool
        checker = self.checkers.of(skill, tool)[1]
        if checker is not None and not reply.outcome.is_error:
            # A text without data is a value too: the error shows it if the tool promised another type.
            returned = reply.outcome.data if reply.outcome.has_data else reply.outcome.text or None
            try:
                check_result(tool, checker, returned)
            except ResultInvalid as error:
                # The message quotes the result and cuts it, and redaction can't find half a secret afterwards. So the
                # message is made again from the redacted result.
                check_result(tool, checker, redactor.data(returned))
                raise ResultInvalid(f"the result of {tool.id} is not what it promises", hint=error.remedy) from None
        return to_result(reply, redactor, limits=self.limits, isolation=isolation, timing={})


@asynccontextmanager
async def redacting(redactor: Redactor) -> AsyncIterator[None]:
    """Redact the errors that leave the block, in a worker thread: an error can quote megabytes.

    Raises:
        SiloError: the error without secrets, or what came in between (`CanaryTripped`, `SandboxTimeout`).
        RuntimeError: an unexpected error whose text quotes a secret, with its traceback as redacted text. The log shows
            the texts of unexpected errors. Others stay as they are.
    """
    try:
        yield
    except SiloError as error:
        if not redactor:
            raise
        # `from None`: the original error and its cause may quote what the guest sent.
        try:
            cleaned = await to_thread.run_sync(redactor.until(time.monotonic() + MAX_REDACT_ERROR_S).error, error)
        except (CanaryTripped, SandboxTimeout) as instead:
            raise instead from None
        raise cleaned from None
    except Exception as error:
        shown = "".join(traceback.format_exception(error))
        cleaned_text = await to_thread.run_sync(redactor.text, shown)
        if cleaned_text == shown:
            raise
        raise RuntimeError(f"an unexpected error, which quoted a secret:\n{cleaned_text}") from None


def _refuse_decoys(request: GuestRequest, redactor: Redactor) -> None:
    """Let no decoy into a guest: a caller that passes one on got it from the vault."""
    if redactor.has_canaries:
        document, files = request.document()
        redactor.data(document["arguments"])
        for file in files:
            redactor.file(file)


class _Watch:
    """Tells the caller about a call: its progress while it runs, and then the seconds by phase."""

    def __init__(self, clock: Callable[[], float], progress: OnProgress) -> None:
        self.progress = progress
        self._clock = clock
        self._started = self._last = clock()
        self._laps: dict[str, float] = {}

    def tell(self, message: str) -> None:
        """Report in a sentence what is being done."""
        self.progress(ProgressReport(0.0, None, message))

    def lap(self, phase: str) -> None:
        """End a phase now."""
        now = self._clock()
        self._laps[phase] = now - self._last
        self._last = now

    def add(self, phases: Mapping[str, float]) -> None:
        """Add phases that the runner measured; the next one begins now."""
        self._last = self._clock()
        self._laps |= phases

    def timing(self) -> dict[str, float]:
        """Return all phases in their order."""
        return {**self._laps, "total": self._last - self._started}


def _overtaken(tool: Tool) -> CallDenied:
    return CallDenied(
        f"{tool.id} was agreed to {MAX_ROUNDS} times, and each time another call like it was faster",
        hint=CallAgain("when fewer calls like it run at once"),
    )
