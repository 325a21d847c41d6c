"""A server to ask, for what is one use at a time. How it comes by a token: `tokens`; what is asked for: `kv_secrets`, `silo_vault.keys`."""

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
    """One server, and a token for it. Safe to use from several threads: those that come together log in once."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Take the settings; nothing is read and nobody is asked before `conversation`.

        Args:
            clock: the monotonic clock, in seconds.
            pause: waits for so many seconds, between two tries.
            jitter: a number between 0 and 1, by which waits and renewals are spread.
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
        """Where it is, for messages."""
        return self.settings.address

    def conversation(self) -> Conversation:
        """Return a way to ask it for what belongs to one use, all of it within `deadline_s` from now."""
        deadline = self._clock() + self.settings.deadline_s
        return Conversation(self, self._tokens, Use(self._attempts, deadline=deadline))

    def on_drop(self, drop: Callable[[], None]) -> None:
        """Have this called whenever answers from before may no longer be used: access was refused, or `forget` was called."""
        with self._lock:
            self._droppers.append(drop)

    def forget(self) -> None:
        """Drop the token, what was given to log in with, and all answers that are kept; asks nobody."""
        self._tokens.forget()
        self.drop_answers()

    def close(self) -> None:
        """Give back the token if it was obtained here, then forget; never raises. A token that was given stays good."""
        self._tokens.give_back()
        self.forget()

    def drop_answers(self) -> None:
        """Have what was read before dropped wherever it is kept."""
        with self._lock:
            droppers = tuple(self._droppers)
        for drop in droppers:
            drop()


class Conversation:
    """Requests that belong to one use of a server. For one thread."""

    def __init__(self, server: HashicorpServer, tokens: Tokens, use: Use) -> None:
        self._server = server
        self._tokens = tokens
        self._use = use

    def ask(self, method: Method, path: str, body: Mapping[str, str] | None = None) -> ServerAnswer:
        """Return the server's answer to a request with its token: a yes (200, 204), or a no other than 403.

        Raises:
            AccessRefused: 403, after a new login too; or the login was refused.
            KeyUnreachable: there is no answer.
            VaultLocked: there is nothing to log in with.
        """
        answer = self.probe(method, path, body)
        if answer.status == 403:
            raise self.refusal(method, path)
        return answer

    def probe(self, method: Method, path: str, body: Mapping[str, str] | None = None) -> ServerAnswer:
        """As `ask`, but a 403 is an answer like any other; what it means is then for the caller to say.

        Raises:
            AccessRefused: the login was refused.
            KeyUnreachable: there is no answer.
            VaultLocked: there is nothing to log in with.
        """
        token = self._tokens.current(self._use)
        request = ServerRequest(method, path, token.text, body)
        answer = self._use.send(request)
        if answer.status == 403 and not self._use.has_logged_in:
            # The token may have ended before its time, or the rules for it have changed since. One more login shows which.
            self._use.has_logged_in = True
            answer = self._tokens.retry(self._use, request, refused=token) or answer
        return answer

    def refusal(self, method: Method, path: str) -> AccessRefused:
        """Return the error for a 403; what the server said before counts no more."""
        self._server.drop_answers()
        may = "read" if method == "GET" else "update"
        return AccessRefused(
            f"{self._server.address} refused access to {path} (HTTP 403)",
            hint=f'give the policy of this login "{may}" on {path!r}, or log in anew if its token has ended',
        )
