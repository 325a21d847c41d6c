"""Around the whole page: no request gets past `guard.check` unseen, and no answer goes out without its headers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from silo_interaction.page.feed import traceback_only
from silo_interaction.page.guard import HEADERS, Refusal, check

logger = logging.getLogger(__name__)


class GuardedApp:
    """An ASGI application that answers only what is fit to be answered."""

    def __init__(self, app: ASGIApp, refuse: Callable[[Refusal], ASGIApp], authority: str) -> None:
        """Let `app` answer to this authority, and `refuse` make the answer to everything else.

        `app` stays readable, for who wants to know its routes.
        """
        self.app = app
        self._refuse = refuse
        self._authority = authority
        self._headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":  # nothing else is served
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
        except Exception as error:  # the end of a request; the routes have answered it
            # Neither what the error says nor the address: the one may hold what was typed in, the other holds the place.
            logger.error("a request to the page failed: %s\n%s", type(error).__name__, traceback_only(error))
