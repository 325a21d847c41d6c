"""Ask a person where the decision says so, and turn the answer into yes or an error. How a question looks is `silo_interaction`'s.

Nothing but an explicit yes from the channel lets a call go on: no answer, no channel and no page are each a no.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from silo_interaction import Channel, InteractionError, NoAnswer, NobodyToAsk, Question

from silo.errors import ApprovalRequired, ApprovalTimeout, CallDenied, Interrupted, SiloError
from silo.model import Call, Decision, File, Isolation, Skill, Tool
from silo.pipeline.schema import Json


@dataclass(frozen=True)
class Approvals:
    """Where a person can be asked.

    Attributes:
        channel: reaches a person; None if there is none.
        timeout_s: how long a question stands.
        headless: nobody is to be asked at all.
    """

    channel: Channel | None
    timeout_s: float = 300.0
    headless: bool = False

    async def settle(self, call: Call, skill: Skill, tool: Tool, decision: Decision, isolation: Isolation) -> Decision:
        """Return the decision that stands: as it was for `allow`, what the person said for `ask`.

        Raises:
            CallDenied: a rule or a person said no.
            ApprovalRequired: there is nobody to ask; its message holds `SILO_APPROVAL_REQUIRED`.
            ApprovalTimeout: no answer in time.
            Interrupted: the person pressed Ctrl-C, which is a no as well.
        """
        if decision.verdict == "allow":
            return decision
        if decision.verdict == "deny":
            raise CallDenied(
                f"{tool.id} may not run: {decision.reason}", hint="ask whoever wrote the rules of this machine"
            )
        if self.headless or self.channel is None:
            raise _nobody(tool)
        try:
            answer = await self.channel.ask(to_question(call, skill, tool, isolation), timeout_s=self.timeout_s)
        except InteractionError as error:
            raise from_interaction_error(error, tool) from error
        if answer.interrupted:
            raise Interrupted(
                f"interrupted when asked about {tool.id}", hint="it was not called; run it again to be asked again"
            )
        if not answer.approved:
            raise CallDenied(
                f"a person refused {tool.id}: {answer.reason}", hint="do not call it again unless the user asks for it"
            )
        return Decision("allow", f"approved: {answer.reason}")


def to_question(call: Call, skill: Skill, tool: Tool, isolation: Isolation) -> Question:
    """Return what a person must see to decide: everything that will run, and what it gets. Pure."""
    who = f"{call.caller.client or 'an unnamed client'} through {_WAYS_IN[call.caller.kind]}"
    hosts = ", ".join(skill.header.network) or "no network"
    facts = [
        ("tool", tool.id),
        ("does", tool.description),
        *((f"argument {name}", _show(value)) for name, value in call.arguments.items()),
        ("secrets", ", ".join(tool.secrets) or "none"),
        ("network", hosts),
        ("isolation", isolation.value),
        ("skill", f"{skill.source}, {skill.digest[:16]}"),
    ]
    danger = "It shares this machine's kernel while it runs." if isolation is Isolation.NAMESPACE else ""
    return Question(f"Run {tool.id}", who, tuple(facts), danger)


def from_interaction_error(error: InteractionError, tool: Tool) -> SiloError:
    """Return our error for one of `silo_interaction`'s; every one of them is a no."""
    mapping = interaction_errors()
    ours = next((mapping[kind] for kind in type(error).__mro__ if kind in mapping), CallDenied)
    if ours is ApprovalRequired:
        return _nobody(tool)
    return ours(f"nobody answered whether {tool.id} may run: {error.message}", hint=error.hint)


def interaction_errors() -> Mapping[type[Exception], type[SiloError]]:
    """Return which of our errors stands for which of `silo_interaction`'s."""
    return {NobodyToAsk: ApprovalRequired, NoAnswer: ApprovalTimeout}


_WAYS_IN = {"cli": "the command line", "mcp": "MCP", "library": "the Python library"}


def _nobody(tool: Tool) -> ApprovalRequired:
    return ApprovalRequired(
        f"SILO_APPROVAL_REQUIRED: {tool.id} asks a person first, and there is nobody to ask here",
        hint=f"let the user run it on a terminal: silo run {tool.id} ...",
    )


def _show(value: Json) -> str:
    """Show an argument whole; a file by its name, type and size."""
    return (
        _show_file(value)
        if isinstance(value, File)
        else json.dumps(value, ensure_ascii=False, indent=2, default=_show_file)
    )


def _show_file(value: object) -> str:
    if isinstance(value, File):
        return f"file {value.name or 'without a name'}, {value.media_type}, {value.size} bytes"
    return str(value)
