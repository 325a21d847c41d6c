"""Wraps the whole page: every request goes through `guard.check`, and every response gets the headers of `guard`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from silo_interaction.page.feed import traceback_only
from silo_interaction.page.guard import HEADERS, Refusal, check

logger = logging.getLogger(__name__)


class GuardedApp:
    """An ASGI application that lets only acceptable requests through to another one."""

    def __init__(self, app: ASGIApp, refuse: Callable[[Refusal], ASGIApp], authority: str) -> None:
        """Let `app` answer requests to this authority, and `refuse` answer all others.

        `app` is public, so that tests can read its routes.
        """
        self.app = app
        self._refuse = refuse
        self._authority = authority
        self._headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":  # no WebSockets, no lifespan events
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        refusal = check(scope["method"], scope["path"], scope["headers"], self._authority)
        app = self.app if refusal is None else self._refuse(refusal)
        try:
            await app(scope, receive, send_with_headers)
        except ClientDisconnect:
            return
        except Exception as error:  # the request ends here; the routes have answered it
            # The log gets neither the error's message, which may hold what a person typed in, nor the address, which
            # holds the session's path secret.
            logger.error("a request to the page failed: %s\n%s", type(error).__name__, traceback_only(error))
