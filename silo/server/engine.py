"""What the MCP edge needs of the rest of silo, as a protocol that it owns, and the options it is built with. No behaviour.

`silo.runtime.Runtime` fits `Engine`; tests bring one of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    ) -> Result:
        """Run one call; when it is cancelled, its guest is gone before the cancellation leaves this method."""
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
    """

    version: str
    expose: Expose = "auto"
    direct_budget_tools: int = 20
    skills_folder: Path | None = None
    poll_s: float = 2.0
    page_size: int = 100
