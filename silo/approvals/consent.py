"""Ask a person where the decision says so, and turn the answer into yes or an error.

`silo.approvals.questions` says what is asked. Nothing but an explicit yes lets a call go on: no answer, no channel and
no page each mean no. What counts is the answer in the store of decisions (`silo.approvals.store`), not what a channel
returns: a terminal, the page and `silo approvals` of another process all put it there, and there it is used up.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio
from anyio import to_thread
from silo_interaction import Answer, Channel, InteractionError, NoAnswer, NobodyToAsk, PostedQuestion, Question

from silo.approvals.announcer import Announcer, Desktop, Page
from silo.approvals.questions import (
    call_key,
    call_question,
    counted_as,
    principal,
    profile,
    refusal_key,
    secret_key,
    secret_question,
    secret_refusal_key,
)
from silo.approvals.store import Decisions
from silo.errors import (
    ApprovalPending,
    ApprovalRequired,
    ApprovalTimeout,
    CallDenied,
    Interrupted,
    SecretMissing,
    SiloError,
)
from silo.model import Call, Caller, Decision, Isolation, Skill, Tool
from silo.remedies import AnswerQuestion, CallAgain, DoNotCallAgain, command
from silo.schema.canonical import HashedArguments, sha256_hex

CHANNELS = ("terminal", "client", "browser", "notification")

_LOOK_S = 0.1
"""How often waiting calls, all together, look for a decision: a person does not notice a tenth of a second."""


Tell = Callable[[str], None]
Keep = Callable[[str, str, str], None]
"""Stores a secret: skill, name, value. Blocks."""


@dataclass(frozen=True)
class Proposal:
    """A call that a person may have to agree to.

    Attributes:
        call: its arguments are checked, with files in their places.
        arguments: the same arguments in the form that is compared with other calls'.
        isolation: the boundary behind which it would run.
        tell: called with a sentence that says where the question waits.
        on_question: called for each question that is put to a person.
    """

    call: Call
    arguments: HashedArguments
    skill: Skill
    tool: Tool
    isolation: Isolation
    tell: Tell = lambda message: None
    on_question: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Grant:
    """The decision that lets a call go on, and the approval behind it, which is used up just before the call runs.

    Attributes:
        key: of the approval; empty if no person had to agree.
    """

    decision: Decision
    key: str = ""


@dataclass
class _TypedSecret:
    """A secret that was typed in, until a call has used it."""

    value: str = field(repr=False)
    until: float


_CONFIRMED = Decision("allow", "a person agreed")


class Approvals:
    """Where a person can be asked, and what they said."""

    def __init__(
        self,
        decisions: Decisions,
        *,
        terminal: Channel | None = None,
        page: Page | None = None,
        desktop: Desktop | None = None,
        channels: Sequence[str] = CHANNELS,
        timeout_s: float = 300.0,
        headless: bool = False,
        keep: Keep | None = None,
        show_code: Callable[[str], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open and start nothing until a question has to be asked.

        Args:
            decisions: the store; opened when first used.
            terminal: asks where this process runs; None if nobody is there.
            page: the approval page, or None.
            desktop: the user's desktop, or None.
            channels: which of `CHANNELS` are tried, in this order.
            timeout_s: how long a question stands.
            headless: never ask anybody.
            keep: stores a secret that a person typed in and wants kept; None: secrets can't be kept.
            show_code: shows a pairing code only to the person; None: this process can't do that.
            now: seconds since the epoch.
        """
        self._decisions = decisions
        self._terminal = terminal
        self._page = page
        self._desktop = desktop
        self._channels = tuple(channels)
        self._timeout_s = timeout_s
        self._headless = headless
        self._keep = keep
        notifies = "notification" in self._channels
        self._announcer = (
            Announcer(decisions, page, desktop, notifies=notifies, show_code=show_code) if page is not None else None
        )
        self._now = now
        self._given: dict[str, _TypedSecret] = {}
        self._changes = _StoreChanges(decisions)

    async def obtain(self, proposal: Proposal, decision: Decision) -> Grant:
        """Return the grant that lets the call go on: at once for `allow`, after a person's yes for `ask`.

        Raises:
            CallDenied: a rule or a person said no.
            ApprovalRequired: there is nobody to ask; its message holds `SILO_APPROVAL_REQUIRED`.
            ApprovalTimeout: no answer in time.
            ApprovalPending: the call's own patience is over, and the question stands.
            Interrupted: the person pressed Ctrl-C, which is a no as well.
        """
        call, arguments, skill, tool = proposal.call, proposal.arguments, proposal.skill, proposal.tool
        isolation = proposal.isolation
        if decision.verdict == "allow":
            return Grant(decision)
        if decision.verdict == "deny":
            raise denied(tool, decision)
        if self._headless:
            raise _nobody(tool)
        # In a thread: it hashes the call's files.
        key = await to_thread.run_sync(call_key, call, arguments, skill, tool, isolation)
        standing = await to_thread.run_sync(self._decisions.standing, key)
        if standing is not None:
            return Grant(Decision("allow", f"approved: {standing.reason}", decision.rule, standing.id), key)
        before = await to_thread.run_sync(self._decisions.last_agreed, tool.id, principal(call.caller))
        facts = profile(arguments, skill, tool, isolation)
        question = call_question(call, arguments, skill, tool, isolation, why=decision.reason, before=before, now=facts)
        refusal = await to_thread.run_sync(refusal_key, call, arguments, skill, tool)
        posted = await self._ask(key, question, proposal, facts, refusal)
        if posted.state != "approved":
            raise _no(tool, posted)
        return Grant(Decision("allow", f"approved: {posted.reason}", decision.rule, posted.id), key)

    async def use(self, grant: Grant) -> bool:
        """Use the approval up; false if another call was faster, or its time is over. Durable before this returns."""
        return not grant.key or await to_thread.run_sync(self._decisions.use, grant.key) is not None

    async def supply(
        self, proposal: Proposal, missing: SecretMissing, *, can_keep: Callable[[str, str], bool]
    ) -> dict[str, str]:
        """Ask a person for the missing secrets, one after the other, and return them by name.

        A secret counts until a call has used it (`forget`), and at most as long as a question stands. A secret that the
        person wants kept is stored before this returns.

        Args:
            proposal: the call that needs them.
            missing: names them.
            can_keep: whether a secret of a skill can be kept in the vault, by skill and name.

        Raises:
            SecretMissing: `missing` itself if nobody can be asked; another one if the person does not give a secret.
            ApprovalPending, Interrupted: as `obtain`.
        """
        if self._headless or not missing.names:
            raise missing
        call, arguments, skill, tool = proposal.call, proposal.arguments, proposal.skill, proposal.tool
        supplied = {}
        for name in missing.names:
            key = await to_thread.run_sync(_secret_key, proposal, name)
            value = self._remembered(key)
            if value is None:
                keeps = self._keep is not None and can_keep(skill.namespace, name)
                keeper = f"the vault, for the skill {skill.namespace}" if keeps else ""
                question = secret_question(call, arguments, skill, tool, proposal.isolation, name, keeper=keeper)
                value = await self._ask_secret(key, question, proposal, missing)
            supplied[name] = value
        return supplied

    async def confirm(
        self, question: Question, *, subject: str, caller: Caller, again: str, tell: Tell = lambda message: None
    ) -> str:
        """Ask a person about something that is no call, and return the id of the question they said yes to.

        A yes counts for this one question only: it is used up before this returns.

        Args:
            subject: what it is about, in two or three words, for lists and records.
            caller: on whose behalf.
            again: what the person does to be asked again, a command in backquotes.
            tell: called with a sentence that says where the question waits.

        Raises:
            CallDenied: the person said no, or the question was withdrawn.
            ApprovalRequired: there is nobody to ask.
            ApprovalTimeout: no answer in time.
            Interrupted: the person pressed Ctrl-C.
        """
        nobody = ApprovalRequired(
            f"SILO_APPROVAL_REQUIRED: a person must agree first, and there is nobody to ask here: {question.title}",
            hint=f"run {again} on a terminal, or answer on the approval page",
        )
        if self._headless:
            raise nobody
        key = sha256_hex(["confirm", subject, secrets.token_hex(16)])  # no other question has it

        def post() -> tuple[PostedQuestion, str, bool]:
            return self._decisions.post(
                key,
                question,
                subject=subject,
                principal=principal(caller),
                stands_s=self._timeout_s,
                profile={},
                asker=counted_as(caller),
                is_person=bool(caller.terminal),
            )

        posted, token, is_new = await to_thread.run_sync(post)
        try:
            link, decided = await self._reach(posted, token, Call("", subject, {}, caller), is_new=is_new)
            if decided is None:
                if link is None:
                    raise nobody
                tell(f"waiting for a person at {link}")
                decided = await self._wait(posted, None)
            if decided is not None and decided.state == "approved" and await self.use(Grant(_CONFIRMED, key)):
                return posted.id
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self._decisions.withdraw, posted.id, "the command was ended")
                if self._announcer is not None:
                    await to_thread.run_sync(self._announcer.settle)
        if decided is not None and decided.state in {"expired", "waiting"}:  # the terminal waits for less long
            raise ApprovalTimeout(f"nobody answered in time: {question.title}", hint=f"run {again} to be asked again")
        reason = "nobody decided" if decided is None else decided.reason
        raise CallDenied(f"not done: {question.title}: {reason}", hint=f"nothing was changed; {again} asks again")

    def forget(self, proposal: Proposal) -> None:
        """Forget what was typed in for a call, once the call has it."""
        for name in proposal.tool.secrets:
            self._given.pop(_secret_key(proposal, name), None)

    def sealing_key(self) -> bytes:
        """As `Decisions.sealing_key`."""
        return self._decisions.sealing_key()

    async def close(self) -> None:
        """End the page; questions that still wait count as denied, because silo stops."""
        self._given.clear()
        with anyio.CancelScope(shield=True):
            if self._page is not None:
                await to_thread.run_sync(self._page.stop)
            if self._announcer is not None:
                await to_thread.run_sync(self._announcer.close)
            elif self._desktop is not None:
                await to_thread.run_sync(self._desktop.close)
            await to_thread.run_sync(self._decisions.close)

    # --- asking -------------------------------------------------------------------------------------------------------

    async def _ask_secret(self, key: str, question: Question, proposal: Proposal, missing: SecretMissing) -> str:
        assert question.wanted is not None
        name = question.wanted.name
        answer = await to_thread.run_sync(self._decisions.take_secret, key)
        if answer is None:
            try:
                refusal = secret_refusal_key(proposal.call, proposal.skill, proposal.tool, name)
                posted = await self._ask(key, question, proposal, {}, refusal)
            except ApprovalRequired:
                raise missing from None
            answer = await to_thread.run_sync(self._decisions.take_secret, key)
            if answer is None or answer.value is None:
                raise SecretMissing(
                    f"{name!r} is not in the vault, and was not given: {posted.reason or 'nobody answered in time'}",
                    hint=missing.remedy,
                    names=(name,),
                )
        assert answer.value is not None
        # Kept for the call first: if the vault can't store it, the same call made again doesn't ask once more.
        self._given[key] = _TypedSecret(answer.value, self._now() + self._timeout_s)
        if answer.keep and self._keep is not None and question.wanted.keeper:
            await to_thread.run_sync(self._keep, proposal.skill.namespace, name, answer.value)
        return answer.value

    def _remembered(self, key: str) -> str | None:
        now = self._now()
        for old in [old for old, given in self._given.items() if given.until <= now]:
            del self._given[old]
        found = self._given.get(key)
        return found.value if found is not None else None

    async def _ask(
        self, key: str, question: Question, proposal: Proposal, facts: Mapping[str, str], refusal: str
    ) -> PostedQuestion:
        """Put a question up, bring it to a person, and wait; returns the decided question."""
        call, tool = proposal.call, proposal.tool
        # An agent that calls again at once is refused again, so that nobody is asked twice. A person who runs it again
        # wants to be asked.
        if refusal:
            refused = await to_thread.run_sync(self._decisions.refusal, refusal)
            if refused is not None:
                return refused

        def post() -> tuple[PostedQuestion, str, bool]:
            return self._decisions.post(
                key,
                question,
                subject=tool.id,
                principal=principal(call.caller),
                stands_s=self._timeout_s,
                profile=facts,
                asker=counted_as(call.caller),
                is_person=bool(call.caller.terminal),
                refusal=refusal,
            )

        posted, token, is_new = await to_thread.run_sync(post)
        try:
            link, direct = await self._reach(posted, token, call, is_new=is_new)
            if direct is None and link is None:
                raise _nobody(tool)
            if is_new:
                proposal.on_question()
            if direct is not None:
                return direct
            proposal.tell(f"waiting for a person at {link}")
            decided = await self._wait(posted, call.patience_s)
        except BaseException as error:
            # If the caller may call again, the question stays, so that it finds the answer. Otherwise it is withdrawn.
            if call.patience_s is None or isinstance(error, ApprovalRequired | Interrupted):
                with anyio.CancelScope(shield=True):
                    reason = "there was nobody to ask" if isinstance(error, ApprovalRequired) else "the call was ended"
                    await to_thread.run_sync(self._decisions.withdraw, posted.id, reason)
            raise
        finally:
            if self._announcer is not None:
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(self._announcer.settle)
        if decided is None:
            assert link is not None
            raise _pending(tool, posted, link)
        return decided

    async def _reach(
        self, posted: PostedQuestion, token: str, call: Call, *, is_new: bool
    ) -> tuple[str | None, PostedQuestion | None]:
        """Bring a question to a person by the first channel that reaches one.

        Returns:
            Where it waits, or None if nobody can be reached; and the decided question, if the channel waited for it.
        """
        for channel in self._channels:
            if channel == "terminal" and self._terminal is not None:
                decided = await self._at_terminal(self._terminal, posted)
                if decided is not None:
                    return None, decided
            elif channel == "client" and call.shows_links and self._page is not None:
                return await self._linked(posted, token, opens=False, is_new=is_new), None
            elif channel == "browser" and self._page is not None:
                screen = self._desktop is not None and await to_thread.run_sync(self._desktop.can_open)
                if screen or self._page.has_session or call.patience_s is not None:
                    return await self._linked(posted, token, opens=screen, is_new=is_new), None
        return None, None

    async def _linked(self, posted: PostedQuestion, token: str, *, opens: bool, is_new: bool) -> str:
        """Serve the page, and tell the person about it, once for each question."""
        announcer = self._announcer
        assert announcer is not None

        def show() -> str:
            return announcer.announce(posted, token, opens=opens) if is_new else announcer.link(token)

        return await to_thread.run_sync(show)

    async def _at_terminal(self, terminal: Channel, posted: PostedQuestion) -> PostedQuestion | None:
        """Ask at the terminal until somebody answers, there or elsewhere; None if nobody is there."""
        question = posted.question
        left = max(0.0, posted.expires_at - self._now())
        failure: SiloError | None = None
        reached = True

        async def ask() -> None:
            nonlocal failure, reached
            try:
                answer = await terminal.ask(question, timeout_s=left)
            except NobodyToAsk:
                reached = False
            except NoAnswer:
                pass  # the store says so as well
            except InteractionError as error:
                failure = from_interaction_error(error, question.title)
            else:
                await self._take(posted, answer)
                if answer.interrupted:
                    failure = Interrupted(
                        f"interrupted when asked: {question.title}",
                        hint="it was not done; run it again to be asked again",
                    )
            tasks.cancel_scope.cancel()

        async def watch() -> None:
            await self._wait(posted, None)
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(watch)
        if failure is not None:
            raise failure
        if not reached:
            return None
        found = await to_thread.run_sync(self._decisions.get, posted.id)
        return found if found is not None else posted

    async def _take(self, posted: PostedQuestion, answer: Answer) -> None:
        def put() -> None:
            self._decisions.decide(posted.id, posted.digest, answer, by="the terminal")

        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(put)

    async def _wait(self, posted: PostedQuestion, patience_s: float | None) -> PostedQuestion | None:
        """Wait until a question is decided, or its time is over; None if patience is over first."""
        with anyio.move_on_after(patience_s):
            while True:
                seen = self._changes.mark()
                found = await to_thread.run_sync(self._decisions.get, posted.id)
                if found is None or found.state != "waiting":
                    return found if found is not None else posted
                await self._changes.since(seen, at_most_s=max(0.0, found.expires_at - self._now()) + _LOOK_S)
        return None


class _StoreChanges:
    """Tells waiting calls that the store changed. One call polls for all; when it leaves, another takes over."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._version = ""
        self._count = 0
        self._changed = anyio.Event()
        self._has_looker = False

    def mark(self) -> int:
        """Return a mark for now, to be taken before the store is read."""
        return self._count

    async def since(self, mark: int, *, at_most_s: float) -> None:
        """Return once something may have changed since the mark was taken."""
        with anyio.move_on_after(at_most_s):
            while self._count == mark:
                if self._has_looker:
                    await self._changed.wait()
                else:
                    await self._look()

    async def _look(self) -> None:
        self._has_looker = True
        try:
            while True:
                version = await to_thread.run_sync(self._decisions.version)
                if version != self._version:
                    self._version = version
                    self._count += 1
                    return
                await anyio.sleep(_LOOK_S)
        finally:
            self._has_looker = False
            self._changed.set()  # wakes the others: the store changed, or one of them must take over
            self._changed = anyio.Event()


def from_interaction_error(error: InteractionError, what: str) -> SiloError:
    """Return silo's error for one of `silo_interaction`'s; each of them means no."""
    mapping = interaction_errors()
    ours = next((mapping[kind] for kind in type(error).__mro__ if kind in mapping), CallDenied)
    message = f"nobody answered whether to {what}: {error.message}"
    return ours(f"SILO_APPROVAL_REQUIRED: {message}" if ours is ApprovalRequired else message, hint=error.hint)


def interaction_errors() -> Mapping[type[Exception], type[SiloError]]:
    """Return silo's error class for each of `silo_interaction`'s."""
    return {NobodyToAsk: ApprovalRequired, NoAnswer: ApprovalTimeout}


def _secret_key(proposal: Proposal, name: str) -> str:
    return secret_key(proposal.call, proposal.arguments, proposal.skill, proposal.tool, proposal.isolation, name)


def _no(tool: Tool, posted: PostedQuestion) -> SiloError:
    """Return the error for a question that was not approved."""
    if posted.state == "denied":
        return CallDenied(
            f"a person refused {tool.id}: {posted.reason}", hint=DoNotCallAgain(unless="the user asks for it")
        )
    if posted.state == "withdrawn":
        return CallDenied(
            f"nobody decided whether {tool.id} may run: {posted.reason}", hint=CallAgain("to ask once more")
        )
    return ApprovalTimeout(
        f"nobody answered in time whether {tool.id} may run", hint=CallAgain("when the user is there to answer")
    )


def denied(tool: Tool, decision: Decision) -> CallDenied:
    """Return the refusal of a call that a rule denies."""
    return CallDenied(f"{tool.id} may not run: {decision.reason}", hint="ask whoever wrote the rules of this machine")


def _nobody(tool: Tool) -> ApprovalRequired:
    return ApprovalRequired(
        f"SILO_APPROVAL_REQUIRED: {tool.id} asks a person first, and there is nobody to ask here",
        hint=command(f"silo run {tool.id} ...", "let the user run it on a terminal: {}"),
    )


def _pending(tool: Tool, posted: PostedQuestion, link: str) -> ApprovalPending:
    return ApprovalPending(
        f"{tool.id} waits for a person: {posted.question.title}",
        hint=AnswerQuestion(link, tool.id),
        question=posted.id,
        link=link,
        title=posted.question.title,
    )
