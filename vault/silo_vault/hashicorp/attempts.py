"""Sends a request until there is a usable answer. `transport` makes one attempt; `tokens` provides the token.

Most runs of silo send nothing, so slow modules are imported where they are used: `silo_vault.hashicorp.transport`
(`hvac` and `requests`, 300 ms).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from silo_vault.errors import KeyUnreachable
from silo_vault.hashicorp.messages import NoServerAnswer, ServerAnswer, ServerRequest
from silo_vault.hashicorp.settings import ServerSettings
from silo_vault.sharing import Backoff

if TYPE_CHECKING:
    from silo_vault.hashicorp.transport import Transport

FIRST_WAIT_S = 0.25
"""Before the second attempt; doubled before each later one. A restart or an election takes about a second."""

_PASSING = frozenset({412, 429, 500, 502, 503, 504})
"""Statuses of failures that may pass. 412: a replica doesn't have the requested data yet."""

_STANDBY = frozenset({472, 473})


class Attempts:
    """Sends requests until there is an answer, within the limits of the settings."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Take the settings, and sources of time and randomness.

        Args:
            settings: of the server.
            clock: the monotonic clock, in seconds.
            pause: waits for a number of seconds.
            jitter: returns a number between 0 and 1, so that clients don't all retry at the same time.
        """
        self._settings = settings
        self._clock = clock
        self._pause = pause
        self._jitter = jitter
        self._lock = threading.Lock()
        self._transport: Transport | None = None
        self._backoff = Backoff(clock)

    def send(self, request: ServerRequest, *, deadline: float) -> ServerAnswer:
        """Return the answer in which the server grants or refuses the request. Temporary failures are not returned.

        Args:
            request: what is sent.
            deadline: a reading of the clock.

        Raises:
            KeyUnreachable: there was no such answer in time, or the server is sealed or a standby; or that was so a
                moment ago, and took long (`silo_vault.sharing.Backoff`).
        """
        self._backoff.check()
        started = self._clock()
        try:
            answer = self.send_apart(request, deadline=deadline)
        except KeyUnreachable as error:
            self._backoff.failed(error, took_s=self._clock() - started)
            raise
        self._backoff.clear()
        return answer

    def forget(self) -> None:
        """Forget failures, so that the next request is sent."""
        self._backoff.clear()

    def send_apart(self, request: ServerRequest, *, deadline: float) -> ServerAnswer:
        """As `send`, for a request whose failure must not keep others from being sent."""
        settings = self._settings
        transport = self._open()
        attempt = 0
        while True:
            left_s = deadline - self._clock()
            if left_s <= 0:
                raise self._unreachable("there was no time left to ask it")
            problem, wait_s = self._try(transport, request, timeout_s=min(left_s, settings.timeout_s))
            if isinstance(problem, ServerAnswer):
                return problem
            wait_s = max(wait_s, FIRST_WAIT_S * 2**attempt * (0.5 + self._jitter() / 2))
            if attempt == settings.max_retries or self._clock() + wait_s >= deadline:
                raise problem
            self._pause(wait_s)
            attempt += 1

    def _try(
        self, transport: Transport, request: ServerRequest, *, timeout_s: float
    ) -> tuple[ServerAnswer | KeyUnreachable, float]:
        """Return the answer, or a temporary failure and how long the server asks to wait; raise other failures."""
        try:
            answer = transport.exchange(request, timeout_s=timeout_s)
        except NoServerAnswer as lost:
            problem = self._unreachable(lost.reason, hint=lost.hint)
            if lost.is_final or (request.is_single_use and lost.was_sent):
                raise problem from None
            return problem, 0.0
        if answer.says("past the max ttl"):
            return answer, 0.0  # a refused renewal, which OpenBao 2.7.2 reports as HTTP 500
        problem = self._problem(answer)
        if answer.status in _PASSING and not answer.says("sealed"):
            # 429 comes before a server acts. After another status, what it did is unknown.
            if request.is_single_use and answer.status != 429:
                raise problem
            return problem, answer.retry_after_s
        if 300 <= answer.status < 400 or answer.status >= 500 or answer.status in _STANDBY:
            raise problem
        return answer, 0.0

    def _problem(self, answer: ServerAnswer) -> KeyUnreachable:
        address, status = self._settings.address, answer.status
        if status >= 500 and answer.says("sealed"):
            return KeyUnreachable(f"{address} is sealed", hint="have its operators unseal it: `bao operator unseal`")
        if status in _STANDBY:
            return KeyUnreachable(
                f"{address} is a standby (HTTP {status}), and does not answer for the active server",
                hint="set VAULT_ADDR to the active server, or to the load balancer before all of them",
            )
        if 300 <= status < 400:
            return KeyUnreachable(
                f"{address} redirects (HTTP {status}), and redirects are not followed, because they can lead anywhere",
                hint="set VAULT_ADDR to the address of the server itself, with https://",
            )
        if status == 429:
            return KeyUnreachable(
                f"{address} gets too many requests (HTTP 429)", hint="try again later, or raise its rate limit"
            )
        if status == 412:
            return KeyUnreachable(f"{address} is behind its active server (HTTP 412)", hint="try again in a moment")
        return KeyUnreachable(f"{address} failed (HTTP {status})", hint="read the server's log, then try again")

    def _unreachable(self, reason: str, *, hint: str = "") -> KeyUnreachable:
        return KeyUnreachable(
            f"{self._settings.address} can't be reached: {reason}",
            hint=hint or "check that the server runs and that VAULT_ADDR is right: `bao status`",
        )

    def _open(self) -> Transport:
        with self._lock:
            if self._transport is None:
                from silo_vault.hashicorp.transport import Transport

                self._transport = Transport(self._settings)
            return self._transport
