"""The entry point to a server: `tokens` logs in, and `kv_secrets` and `silo_vault.keys` send the requests."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, final

from silo_vault.errors import AccessRefused
from silo_vault.hashicorp.attempts import Attempts
from silo_vault.hashicorp.messages import Method, ServerAnswer, ServerRequest
from silo_vault.hashicorp.settings import ServerSettings
from silo_vault.hashicorp.tokens import Tokens, Use


@final
class HashicorpServer:
    """One server, and a token for it. Safe to use from several threads, which share one login."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Take the settings. No file is read and no request is sent before `conversation` is used.

        Args:
            settings: of the server.
            clock: the monotonic clock, in seconds.
            pause: waits for a number of seconds between two attempts.
            jitter: returns a number between 0 and 1, which spreads waits and renewals.
        """
        self.settings = settings
        self._clock = clock
        self._attempts = Attempts(settings, clock=clock, pause=pause, jitter=jitter)
        self._tokens = Tokens(settings, self._attempts, clock=clock, jitter=jitter, on_refusal=self.drop_answers)
        self._lock = threading.Lock()
        self._droppers: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"HashicorpServer({self.settings.address!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """The address, for messages."""
        return self.settings.address

    def conversation(self) -> Conversation:
        """Begin the requests of one use. They all have to end within `deadline_s` from now."""
        deadline = self._clock() + self.settings.deadline_s
        return Conversation(self, self._tokens, Use(self._attempts, deadline=deadline))

    def on_drop(self, drop: Callable[[], None]) -> None:
        """Register what drops earlier answers. It is called when access was refused, or by `forget`."""
        with self._lock:
            self._droppers.append(drop)

    def forget(self) -> None:
        """Drop the token, the credentials and all answers in memory. Sends no request."""
        self._tokens.forget()
        self._attempts.forget()
        self.drop_answers()

    def close(self) -> None:
        """Revoke the token if we logged in for it, then `forget`. Never raises. A token from settings stays valid."""
        self._tokens.give_back()
        self.forget()

    def drop_answers(self) -> None:
        """Drop the answers in memory, wherever they are kept."""
        with self._lock:
            droppers = tuple(self._droppers)
        for drop in droppers:
            drop()


class Conversation:
    """The requests of one use of a server. For one thread."""

    def __init__(self, server: HashicorpServer, tokens: Tokens, use: Use) -> None:
        self._server = server
        self._tokens = tokens
        self._use = use

    def ask(self, method: Method, path: str, body: Mapping[str, str] | None = None) -> ServerAnswer:
        """Send a request with the token. Return the answer, which is a success (200, 204) or a failure other than 403.

        Raises:
            AccessRefused: 403 also after a new login; or the login was refused.
            KeyUnreachable: there is no usable answer.
            VaultLocked: there are no credentials to log in with.
        """
        answer = self.probe(method, path, body)
        if answer.status == 403:
            raise self.refusal(method, path)
        return answer

    def probe(self, method: Method, path: str, body: Mapping[str, str] | None = None) -> ServerAnswer:
        """As `ask`, but return a 403 like any other answer. The caller decides what it means.

        Raises:
            AccessRefused: the login was refused.
            KeyUnreachable: there is no usable answer.
            VaultLocked: there are no credentials to log in with.
        """
        token = self._tokens.current(self._use)
        request = ServerRequest(method, path, token.text, body)
        answer = self._use.send(request)
        if answer.status == 403 and not self._use.has_logged_in:
            # The token may have expired early.
            self._use.has_logged_in = True
            answer = self._tokens.retry(self._use, request, refused=token) or answer
        return answer

    def refusal(self, method: Method, path: str) -> AccessRefused:
        """Return the error for a 403, and drop all earlier answers."""
        self._server.drop_answers()
        may = "read" if method == "GET" else "update"
        return AccessRefused(
            f"{self._server.address} refused access to {path} (HTTP 403)",
            hint=f'give the policy of this login "{may}" on {path!r}, or log in again if its token has expired',
        )
