"""Keep the listing current, and tell the client when it changes, in the way of its protocol era.

Other processes install and remove skills (`silo install`), so the folder is checked at each request, and every few
seconds while there is none. A check costs one `lstat` for each skill.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ToolsListChanged

from silo.catalog.store import Fingerprint, fingerprint
from silo.errors import SiloError
from silo.model import Caller
from silo.server.engine import Engine
from silo.server.protocol.listing import Listing

_log = logging.getLogger(__name__)

_AN_AGENT = Caller("mcp")
"""What a caller may see depends only on how it came in, not on the client's name."""


class LiveListing:
    """What is installed now, and which clients to tell about a change. One for each server.

    Up to 2025-11-25 a server notifies a session that was initialised; since 2026-07-28 a client opens
    `subscriptions/listen`.
    """

    def __init__(self, engine: Engine, folder: Path | None) -> None:
        self._engine = engine
        self._folder = folder
        self._bus = InMemorySubscriptionBus()
        self._sessions: list[ServerSession] = []
        self._known: tuple[Fingerprint | None, Listing] | None = None
        self._lock = anyio.Lock()
        self.on_listen = ListenHandler(self._bus)

    def greet(self, session: ServerSession) -> None:
        """Remember a session of the handshake era, which can be notified from now on."""
        self._sessions.append(session)

    async def current(self) -> Listing:
        """Return what is installed now. If that changed since the last check, clients are notified.

        Raises:
            SiloError: the engine can't read the installed skills.
        """
        async with self._lock:
            seen = None if self._folder is None else fingerprint(self._folder)
            before = self._known
            if before is not None and seen is not None and before[0] == seen:
                return before[1]
            # The fingerprint is taken before the skills are read: a change in between shows up at the next check.
            listing = Listing.of(await self._engine.skills(), await self._engine.outlooks(_AN_AGENT))
            is_same = before is not None and before[1] == listing
            # The same object for the same content, so that nobody has to compare thousands of tools again.
            self._known = (seen, before[1] if before is not None and is_same else listing)
        if before is not None and not is_same:
            await self._announce()
        return self._known[1]

    @asynccontextmanager
    async def watched(self, poll_s: float) -> AsyncIterator[None]:
        """Check for changes every `poll_s` seconds while the context is open."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, poll_s)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
                self._sessions.clear()

    async def _watch(self, poll_s: float) -> None:
        while True:
            await anyio.sleep(poll_s)
            try:
                # Before the first request no client has a list that could be out of date, and start-up stays short.
                if self._known is not None:
                    await self.current()
            except SiloError as error:
                _log.warning("cannot look for installed skills: %s [%s]", error.message, error.code)
            except Exception:
                # This check ends here. A request that needs the list gets an error of its own.
                _log.exception("looking for installed skills failed unexpectedly")

    async def _announce(self) -> None:
        await self._bus.publish(ToolsListChanged())
        await self._bus.publish(ResourcesListChanged())
        for session in tuple(self._sessions):
            await session.send_tool_list_changed()
            await session.send_resource_list_changed()
