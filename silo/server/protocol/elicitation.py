"""Calls that wait for a person, for each kind of client: prompts, rounds of requests, and the state that they carry.

Nothing here lets a call run. The engine decides that, and each time checks what a person answered on silo's own page.
What a client sends (an accepted prompt, a filled form, a returned state) only shows whether its user has seen the link.
It decides how long silo waits, and what silo tells the client.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import anyio
from mcp import types
from mcp.server.context import ServerRequestContext
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS, is_version_at_least
from pydantic import ValidationError

from silo.errors import ApprovalPending, SiloError
from silo.model import Result
from silo.server.protocol.results import pending_result, printable

_log = logging.getLogger(__name__)

MAX_ROUNDS = 9
"""How many answers to one call ask for another round: one prompt and eight that only wait. Clients give up after ten
(the Python and TypeScript SDKs), and then their users see an exception."""

STATE_TTL_S = 600.0

MAX_REMEMBERED = 1000
MAX_TITLE_CHARS = 200

_PROMPT = "approval"

Context = ServerRequestContext[None, Any]

Outcome = Result | types.CallToolResult | types.InputRequiredResult

Attempt = Callable[[float, bool], Awaitable[Result]]
"""Makes the call. Its arguments say how many seconds to wait for a person, and whether the client shows links. It
raises what `Engine.call` raises."""

Way = Literal["rounds", "url", "form"]
"""How a client gets a link to show: in an answer that asks for another round (2026-07-28), or in a request from silo
(before), which has a mode for links, or carries the link as the text of a form."""


class StateForeign(ValueError):
    """silo did not give out the state that came with a request, or gave it for another call."""


def request_states(key: bytes | None) -> RequestStateBoundary:
    """Return the middleware that seals outgoing states and opens incoming ones.

    A request with a state that is forged, expired or from another request ends with an error (-32602).

    Args:
        key: 32 bytes; None: a random key.
    """
    return RequestStateBoundary(
        RequestStateSecurity(keys=[os.urandom(32) if key is None else key], ttl=STATE_TTL_S), default_audience="silo"
    )


@dataclass(frozen=True)
class CallRequest:
    """The parts of a `tools/call` that matter here.

    Attributes:
        name: the name that the client called: the tool's own name, or `silo_execute`.
        tool: the id of the tool, whatever the name.
        digest: a hash of the arguments.
        session: the connection that it came over, as `Caller.session`.
        state: the state of an earlier round.
        prompt: what the user did with the prompt of that round, according to the client.
    """

    name: str
    tool: str
    digest: str
    session: str
    state: str | None
    prompt: Literal["accept", "decline", "cancel"] | None

    @classmethod
    def of(cls, params: types.CallToolRequestParams, tool: str, arguments: Mapping[str, Any], session: str) -> Self:
        """Return the request for a call of `tool` with `arguments` over a connection."""
        digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()
        answer = (params.input_responses or {}).get(_PROMPT)
        prompt = answer.action if isinstance(answer, types.ElicitResult) else None
        return cls(params.name, tool, digest, session, params.request_state, prompt)


@dataclass(frozen=True)
class Round:
    """What a client carries from one round to the next. It is bookkeeping: a forged one would not approve anything.

    Attributes:
        question: the id of the question that the call waits for.
        number: how many answers so far asked for another round.
        prompts: whether the last of them showed a link.
        tool: the id of the tool of the call that it belongs to.
        digest: a hash of the arguments of that call.
        session: the connection over which that call came.
    """

    question: str
    number: int
    prompts: bool
    tool: str
    digest: str
    session: str

    def encode(self) -> str:
        """Return the text for `parse`. The middleware seals it."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the round of an encoded text.

        Raises:
            StateForeign: this version of silo did not write it.
        """
        try:
            fields = json.loads(text)
            found = cls(**fields)
        except (ValueError, TypeError) as error:
            raise StateForeign("not a state of ours") from error
        if [type(value) for value in fields.values()] != [str, int, bool, str, str, str]:
            raise StateForeign("not a state of ours")
        return found


class Elicitation:
    """Makes calls that may have to wait for a person. One for each server."""

    def __init__(self, patience_s: float, *, prompt_s: float, uses_client: bool) -> None:
        self._patience_s = patience_s
        self._prompt_s = prompt_s
        self._uses_client = uses_client
        # A dictionary as an ordered set. Each question is prompted once: a user who closed the prompt, or has the page
        # open, should not get it again each time that the model tries.
        self._prompted: dict[str, None] = {}

    async def call(self, ctx: Context, request: CallRequest, attempt: Attempt) -> Outcome:
        """Return the result of a call, or what the client can do until there is one.

        Raises:
            StateForeign: the request carries the state of another call.
            SiloError: what the call raises, except `ApprovalPending`.
        """
        before = None if request.state is None else Round.parse(request.state)
        if before is not None and (before.tool, before.digest) != (request.tool, request.digest):
            raise StateForeign("the state of another call")
        if before is not None and before.session != request.session:
            # A state outlives its connection, because its key does. The question that it names was that connection's,
            # so this call starts over, and a person is asked anew.
            before = None
        way = self._way(ctx)
        if way is None:
            return await self._wait(request, attempt, shows_links=False)
        if way == "rounds" and before is not None:
            return await self._next_round(request, before, attempt)
        try:
            return await attempt(0.0, True)
        except ApprovalPending as error:
            pending = error
        if not self._may_prompt(pending):
            return await self._wait(request, attempt, shows_links=bool(pending.link))
        if way == "rounds":
            return _another_round(request, pending, 1, prompts=True)
        return await self._prompt(ctx, way, request, pending, attempt)

    def _way(self, ctx: Context) -> Way | None:
        declared = ctx.session.client_capabilities
        elicitation = declared.elicitation if declared is not None else None
        if not self._uses_client or elicitation is None:
            return None
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return "rounds" if elicitation.url is not None else None
        if not ctx.session.can_send_request:
            return None
        if elicitation.url is not None and is_version_at_least(ctx.protocol_version, "2025-11-25"):
            return "url"
        # An empty capability means forms: in its first version there was nothing else.
        return "form" if elicitation.form is not None or elicitation.url is None else None

    def _may_prompt(self, pending: ApprovalPending) -> bool:
        return bool(pending.link) and pending.question not in self._prompted

    def _remember(self, question: str) -> None:
        self._prompted[question] = None
        if len(self._prompted) > MAX_REMEMBERED:
            del self._prompted[next(iter(self._prompted))]

    async def _wait(self, request: CallRequest, attempt: Attempt, *, shows_links: bool) -> Outcome:
        """Wait once, for clients that can only be told the link in progress and results."""
        try:
            return await attempt(self._patience_s, shows_links)
        except ApprovalPending as pending:
            return pending_result(pending, request.name)

    async def _next_round(self, request: CallRequest, before: Round, attempt: Attempt) -> Outcome:
        opened = True
        if before.prompts:
            self._remember(before.question)
            opened = request.prompt == "accept"
        try:
            # Also if the user did not open the link: they may have answered elsewhere, and the question may be new.
            return await attempt(self._patience_s if opened else 0.0, True)
        except ApprovalPending as pending:
            if not opened and pending.question == before.question:
                return pending_result(pending, request.name, request.prompt or "cancel")
            if not opened or before.number >= MAX_ROUNDS:
                return pending_result(pending, request.name)
            return _another_round(request, pending, before.number + 1, prompts=self._may_prompt(pending))

    async def _prompt(
        self, ctx: Context, way: Way, request: CallRequest, pending: ApprovalPending, attempt: Attempt
    ) -> Outcome:
        # A call may need a second question, for a missing secret. The bound is there in case of a bug.
        for _ in range(MAX_ROUNDS):
            question = pending.question
            action = await self._elicit(ctx, way, pending)
            if action is None:
                return await self._wait(request, attempt, shows_links=False)
            opened = action == "accept"
            try:
                result = await attempt(self._patience_s if opened else 0.0, True)
            except ApprovalPending as error:
                pending = error
                if pending.question == question:
                    return pending_result(pending, request.name, "" if opened else action)
                await self._complete(ctx, way, question)
                if not opened or not self._may_prompt(pending):
                    break
            except SiloError:
                await self._complete(ctx, way, question)
                raise
            else:
                await self._complete(ctx, way, question)
                return result
        return pending_result(pending, request.name)

    async def _elicit(
        self, ctx: Context, way: Way, pending: ApprovalPending
    ) -> Literal["accept", "decline", "cancel"] | None:
        """Let the client show the link, and return what its user did, or None if the client could not show it."""
        self._remember(pending.question)
        try:
            with anyio.move_on_after(self._prompt_s):
                if way == "url":
                    answer = await ctx.session.elicit_url(
                        _words(pending), pending.link, pending.question, related_request_id=ctx.request_id
                    )
                else:
                    answer = await ctx.session.elicit_form(
                        f"{_words(pending)}\n\nOpen {pending.link} and decide there, then confirm here.",
                        {"type": "object", "properties": {}},
                        related_request_id=ctx.request_id,
                    )
                return answer.action
        except (MCPError, ValidationError) as error:
            _log.warning("the client could not show a prompt: %s", type(error).__name__)
        except anyio.get_cancelled_exc_class():
            self._prompted.pop(pending.question, None)
            raise
        self._prompted.pop(pending.question, None)
        return None

    async def _complete(self, ctx: Context, way: Way, question: str) -> None:
        if way == "url":
            await ctx.session.send_elicit_complete(question, related_request_id=ctx.request_id)


def _another_round(
    request: CallRequest, pending: ApprovalPending, number: int, *, prompts: bool
) -> types.InputRequiredResult:
    state = Round(pending.question, number, prompts, request.tool, request.digest, request.session).encode()
    if not prompts:
        return types.InputRequiredResult(request_state=state)
    prompt = types.ElicitRequest(params=types.ElicitRequestURLParams(message=_words(pending), url=pending.link))
    return types.InputRequiredResult(request_state=state, input_requests={_PROMPT: prompt})


def _words(pending: ApprovalPending) -> str:
    """Return the text that a client shows with the link."""
    title = "".join(c if c.isprintable() else " " for c in printable(pending.title))[:MAX_TITLE_CHARS]
    return (
        f"silo asks you: {title}\n\nThe link shows the whole question, and you answer there; opening it agrees to "
        "nothing. If the page wants a code, `silo approvals pair` shows one."
    )
