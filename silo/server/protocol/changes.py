"""Keep the listing current, and tell the client when it changes, in the way of its protocol era.

Skills are installed and removed by other processes (`silo install`), so each request asks the engine, and a task asks
every few seconds while no request comes in. The engine returns the same object until the folder changes; a check costs
one `lstat` for each skill.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ToolsListChanged

from silo.errors import SiloError
from silo.model import Caller
from silo.policy.visible import Visible
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

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._bus = InMemorySubscriptionBus()
        self._sessions: list[ServerSession] = []
        self._known: Listing | None = None
        self._seen: Visible | None = None
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
            before = self._known
            visible = await self._engine.visible(_AN_AGENT)
            is_same = visible is self._seen or (before is not None and before.visible == visible)
            self._seen = visible
            if before is not None and is_same:
                # Equal content keeps the same object, so that nothing has to compare thousands of tools again.
                return before
            now = self._known = Listing(visible)
        if before is not None:
            await self._announce()
        return now

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
