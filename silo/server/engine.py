"""What the MCP edge needs of the rest of silo, as a protocol that it owns, and the options it is built with. No behaviour.

`silo.runtime.Runtime` fits `Engine`; tests bring one of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from silo.model import Caller, ProgressReport, Result, Skill, Tool
from silo.policy.visible import Outlook

Expose = Literal["auto", "router", "direct"]
"""Which tools `tools/list` shows beside `silo_search` and `silo_execute`: none (`router`), all of them (`direct`), or all of them as
long as they cost little, and else those that were used most (`auto`)."""


class FoundTool(Protocol):
    """One tool that a search found."""

    @property
    def tool(self) -> Tool:
        """The tool."""
        ...

    @property
    def score(self) -> float:
        """How well it fits; only the order means anything."""
        ...

    @property
    def why(self) -> Sequence[str]:
        """What of the tool fits the query."""
        ...

    @property
    def low_confidence(self) -> bool:
        """Nothing says clearly that it fits."""
        ...

    @property
    def siblings(self) -> Sequence[str]:
        """Names of other tools of its skill."""
        ...


class Engine(Protocol):
    """The calls of `silo.runtime.Runtime` that an agent can cause. Every method may raise `silo.errors.SiloError`."""

    async def skills(self) -> tuple[Skill, ...]:
        """Return the installed skills, with all their tools."""
        ...

    async def outlooks(self, caller: Caller) -> Mapping[str, Outlook]:
        """Return what a caller has to expect of a call, by tool; a tool that is `denied` is not to be shown."""
        ...

    async def usage(self, caller: Caller) -> Mapping[str, int]:
        """Return how often the caller has called each tool, as far as that is remembered."""
        ...

    async def find(
        self, queries: Sequence[str], *, limit: int = 5, skill: str | None = None, caller: Caller | None = None
    ) -> Sequence[Sequence[FoundTool]]:
        """Return for each query at most `limit` tools that the caller may know of, the best one first.

        Args:
            queries: what tools should do, for one task.
            limit: how many for each.
            skill: look only among its tools.
            caller: who asks.

        Raises:
            SkillUnknown: there is no such skill that the caller may know of; the hint has the nearest names.
        """
        ...

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        on_progress: Callable[[ProgressReport], None] | None = None,
        caller: Caller | None = None,
        patience_s: float | None = None,
        shows_links: bool = False,
    ) -> Result:
        """Run one call; when it is cancelled, its guest is gone before the cancellation leaves this method.

        Only what a person answered to the engine itself lets a call run that must be agreed to; while it waits for that, it reports
        progress with the link. The same call made again finds the answer.

        Args:
            tool: its id.
            arguments: JSON values.
            on_progress: called on the event loop; does not block.
            caller: who asks.
            patience_s: how long to wait for a person; 0 asks and returns at once, None waits as long as the question stands.
            shows_links: the client shows the link to its user, so no browser is opened here.

        Raises:
            ApprovalPending: nobody has answered within `patience_s`, and the question stands.
        """
        ...


@dataclass(frozen=True)
class ServerOptions:
    """How the server shows itself.

    Attributes:
        version: silo's own, told to clients.
        expose: see `Expose`.
        direct_budget_tokens: with `auto`, what tools that are listed by their own names may cost together. An agent pays for them in
            every conversation, used or not.
        skills_folder: where installed skills lie; watched, so that clients hear of a change. None: not watched, read anew for
            each request.
        poll_s: seconds between two looks at that folder while no request comes in.
        page_size: entries of one page of a list.
        patience_s: how long one request waits for a person. Clients give up after a minute (the TypeScript SDK's default), and a
            call has to start its guest after the answer.
        prompt_s: how long a prompt of the client may stay open before the call goes on without it (up to 2025-11-25). Most clients end
            the call itself sooner, as its time runs meanwhile.
        request_state_key: 32 bytes that seal what a client carries from round to round (2026-07-28); with the same key, a server
            that was started again still knows it. None: a random one.
        uses_client: prompts of the client may be used to show links; false where the user left that channel out.
    """

    version: str
    expose: Expose = "auto"
    direct_budget_tokens: int = 6000
    skills_folder: Path | None = None
    poll_s: float = 2.0
    page_size: int = 100
    patience_s: float = 25.0
    prompt_s: float = 300.0
    request_state_key: bytes | None = field(default=None, repr=False)
    uses_client: bool = True
