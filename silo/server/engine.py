"""What the MCP edge needs of the rest of silo, as a protocol that it owns, and the options it is built with. No behaviour.

`silo.runtime.Runtime` fits `Engine`; tests bring one of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from silo.model import Caller, ProgressReport, Result, Skill, Tool

Expose = Literal["auto", "router", "direct"]
"""Which tools `tools/list` shows beside `silo_search` and `silo_execute`: none (`router`), all of them (`direct`), or all of
them as long as there are few (`auto`)."""


class Found(Protocol):
    """One tool that a search found."""

    @property
    def tool(self) -> Tool:
        """The tool."""
        ...

    @property
    def score(self) -> float:
        """How well it fits; only the order means anything."""
        ...


class Engine(Protocol):
    """The calls of `silo.runtime.Runtime` that an agent can cause. Every method may raise `silo.errors.SiloError`."""

    async def skills(self) -> tuple[Skill, ...]:
        """Return the installed skills."""
        ...

    async def tools(self) -> tuple[Tool, ...]:
        """Return the tools of all installed skills."""
        ...

    async def search(self, query: str, *, limit: int = 5) -> Sequence[Found]:
        """Return at most `limit` tools, the best one first."""
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
        direct_budget_tools: with `auto`, the number of tools up to which all are listed. Each costs the model's context some
            hundred tokens in every conversation, used or not.
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
    direct_budget_tools: int = 20
    skills_folder: Path | None = None
    poll_s: float = 2.0
    page_size: int = 100
    patience_s: float = 25.0
    prompt_s: float = 300.0
    request_state_key: bytes | None = field(default=None, repr=False)
    uses_client: bool = True
