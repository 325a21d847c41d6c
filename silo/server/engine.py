"""What the MCP edge needs from the rest of silo, as a protocol that it owns, and the server's options. No behaviour.

`silo.runtime.Runtime` fits `Engine`; tests use their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from silo.model import Caller, ProgressReport, Result, Skill, Tool
from silo.policy.visible import Outlook

Expose = Literal["auto", "router", "direct"]
"""Which tools `tools/list` shows beside `silo_search` and `silo_execute`: none (`router`), all (`direct`), or all of
them if they fit into a budget of tokens, otherwise those that were used most (`auto`)."""


class FoundTool(Protocol):
    """One tool that a search found."""

    @property
    def tool(self) -> Tool:
        """The tool."""
        ...

    @property
    def score(self) -> float:
        """How well it fits. Only good for comparing tools of the same search."""
        ...

    @property
    def why(self) -> Sequence[str]:
        """Which parts of the tool fit the query."""
        ...

    @property
    def low_confidence(self) -> bool:
        """Whether the match is doubtful."""
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
        """Return what a caller can expect from a call, by tool. A tool that is `denied` must not be shown."""
        ...

    async def usage(self, caller: Caller) -> Mapping[str, int]:
        """Return how often the caller called each tool, as far as silo remembers."""
        ...

    async def find(
        self, queries: Sequence[str], *, limit: int = 5, skill: str | None = None, caller: Caller | None = None
    ) -> Sequence[Sequence[FoundTool]]:
        """Return for each query at most `limit` tools that the caller may see, best first.

        Args:
            queries: what tools should do, for one task.
            limit: how many tools for each query.
            skill: search only this skill's tools.
            caller: who searches.

        Raises:
            SkillUnknown: the caller may see no skill of that name; the hint has the nearest names.
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
        """Run one call. When it is cancelled, its guest is gone before this method ends.

        A call that needs approval runs only after a person answered the engine itself. While it waits, it reports
        progress with the link. The same call made again finds the answer.

        Args:
            tool: its id.
            arguments: JSON values.
            on_progress: called on the event loop; does not block.
            caller: who calls.
            patience_s: how long to wait for a person. 0 asks and returns at once; None waits until it expires.
            shows_links: the client shows the link to its user, so the engine opens no browser.

        Raises:
            ApprovalPending: nobody answered within `patience_s`; the question still waits.
        """
        ...


@dataclass(frozen=True)
class ServerOptions:
    """How the server presents itself, and how long it waits.

    Attributes:
        version: silo's version, which clients are told.
        expose: see `Expose`.
        direct_budget_tokens: with `auto`, what the tools that are listed by their own names may cost together. An agent
            pays for them in every conversation, whether it uses them or not.
        skills_folder: the folder of the installed skills. It is watched, so that clients hear of a change. None: not
            watched, and read for each request.
        poll_s: seconds between two checks of that folder while no request arrives.
        page_size: entries on one page of a list.
        patience_s: how long one request waits for a person. Clients give up after a minute (the TypeScript SDK's
            default), and a call still has to start its guest after the answer.
        prompt_s: how long a prompt of the client may stay open before the call continues without it (up to 2025-11-25).
            Most clients end the call sooner, because its own timeout keeps running.
        request_state_key: 32 bytes that seal what a client carries from round to round (2026-07-28). A restarted server
            with the same key can still read it. None: a random key.
        uses_client: whether the client's prompts may show links; false if the user's configuration leaves that out.
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
