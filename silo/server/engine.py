"""The protocol through which the MCP edge uses the rest of silo, and the server's options. No behaviour.

`silo.runtime.Runtime` implements `Engine`; tests use a fake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from silo.model import Caller, ProgressReport, Result, Tool
from silo.policy.visible import Visible

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

    async def visible(self, caller: Caller) -> Visible:
        """Return the tools that a caller may know of now, and the verdict that it can expect for each."""
        ...

    async def usage(self, caller: Caller) -> Mapping[str, int]:
        """Return how often the caller called each tool, as far as silo remembers."""
        ...

    async def find(
        self,
        queries: Sequence[str],
        *,
        limit: int = 5,
        skill: str | None = None,
        caller: Caller | None = None,
        among: Visible | None = None,
    ) -> Sequence[Sequence[FoundTool]]:
        """Return for each query at most `limit` tools that the caller may know of, the best one first.

        A tool that is removed or replaced meanwhile is left out.

        Args:
            queries: what tools should do, for one task.
            limit: how many for each.
            skill: look only among its tools.
            caller: on whose behalf.
            among: what `visible` returned for this caller; None looks at the folder again.

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
        """Run one call. If it is cancelled, its guest has ended before this method returns.

        A call that needs approval runs only after a person answered the engine itself. While it waits, it reports
        progress with the link. The same call made again finds the answer.

        Args:
            tool: its id.
            arguments: JSON values.
            on_progress: called on the event loop; does not block.
            caller: on whose behalf.
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
        version: silo's version, for clients.
        expose: see `Expose`.
        direct_budget_tokens: with `auto`, what all tools that are listed by their own names may cost together. An agent
            pays for them in every conversation, used or not.
        poll_s: seconds between two checks for installed skills while no request comes in; clients are told of a change.
        page_size: entries of one page of a list.
        patience_s: how long one request waits for a person. Clients give up after a minute (the TypeScript SDK's
            default), and a call has to start its guest after the answer.
        prompt_s: how long a prompt of the client may stay open before the call goes on without it (up to 2025-11-25).
            Most clients end the call itself sooner, because its time runs meanwhile.
        request_state_key: 32 bytes that seal what a client carries from round to round (2026-07-28). A restarted server
            with the same key can still open it. None: a random key.
        uses_client: prompts of the client may show links; false if the user left that channel out.
    """

    version: str
    expose: Expose = "auto"
    direct_budget_tokens: int = 6000
    poll_s: float = 2.0
    page_size: int = 100
    patience_s: float = 25.0
    prompt_s: float = 300.0
    request_state_key: bytes | None = field(default=None, repr=False)
    uses_client: bool = True
