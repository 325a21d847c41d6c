"""The token of one server: logs in, renews the token, and replaces an expired one. `server` uses the token.

A token that we logged in for is renewed or replaced when it is used. One that we were given can't be replaced, so it is
also renewed while nobody uses it, by a timer.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from silo_vault.errors import AccessRefused, KeyUnreachable, VaultLocked
from silo_vault.hashicorp.attempts import Attempts
from silo_vault.hashicorp.credentials import Credentials
from silo_vault.hashicorp.messages import ServerAnswer, ServerRequest
from silo_vault.hashicorp.settings import ServerSettings

CLOSE_TIMEOUT_S = 2.0
"""For revoking a token. It expires soon anyway, and closing should be quick."""

RENEWAL_TIMEOUT_S = 3.0
"""For renewing a token that is still valid: a call must not wait long for what it doesn't need."""

RENEWAL_PAUSE_S = 15.0
"""Until the next attempt, after the server could not be reached."""

VAIN_LOGIN_S = 300.0
"""How long no refused request causes a new login, after one that did not help."""

_ROUNDING_S = 1.0
"""Servers give the remaining time in whole seconds, rounded down."""


@dataclass(frozen=True, repr=False)
class Token:
    """A token and its times, as readings of the clock.

    Attributes:
        is_ours: we logged in for it, so we may revoke it.
        first_ttl_s: how long it was valid when it was issued.
        renew_at: None for never.
        expires_at: None for never, or for a token that we were given, which is used until the server refuses it.
    """

    text: str
    is_ours: bool
    first_ttl_s: float
    renew_at: float | None
    expires_at: float | None


class Use:
    """One use of a server. All its requests share one deadline and at most one new login. For one thread."""

    def __init__(self, attempts: Attempts, *, deadline: float) -> None:
        self.deadline = deadline
        self.has_logged_in = False
        self._attempts = attempts

    def send(self, request: ServerRequest) -> ServerAnswer:
        """As `Attempts.send`, within the deadline of this use."""
        return self._attempts.send(request, deadline=self.deadline)


class Tokens:
    """Keeps one token at a time. Safe to use from several threads, which share one login."""

    def __init__(
        self,
        settings: ServerSettings,
        attempts: Attempts,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        on_refusal: Callable[[], None],
    ) -> None:
        """Take sources of time and randomness, and what to call when the server refuses a login."""
        self._settings = settings
        self._attempts = attempts
        self._clock = clock
        self._jitter = jitter
        self._on_refusal = on_refusal
        self._credentials = Credentials(settings)
        self._obtaining = threading.Lock()  # held during a login; `_state` is only held to access the next two
        self._state = threading.Lock()
        self._token: Token | None = None
        self._epoch = 0
        self._timer: threading.Timer | None = None
        self._no_login_before = -math.inf

    def current(self, use: Use) -> Token:
        """Return a token that should be valid: the present one, which may be renewed first, or a new one."""
        with self._exclusive(use):
            with self._state:
                token, epoch = self._token, self._epoch
            now = self._clock()
            if token is None or (token.expires_at is not None and now >= token.expires_at):
                found = self._log_in(use)
            elif token.renew_at is not None and now >= token.renew_at:
                found = self._renewed(token)
            else:
                return token
            self._keep(found, epoch)
            return found

    def retry(self, use: Use, request: ServerRequest, *, refused: Token) -> ServerAnswer | None:
        """Send the request with another token than the refused one. Return None if there is no other.

        There is no new login while the token is valid: else an agent that asks for something forbidden again and again
        would use up a secret-id. If nobody may look at the token, one login shows whether a new token helps; it is
        revoked if it does not, and refused requests then cause no login for five minutes.
        """
        with self._exclusive(use):
            with self._state:
                token, epoch = self._token, self._epoch
            if token is not None and token is not refused:  # another thread was here first
                return use.send(replace(request, token=token.text))
            if self._settings.auth != "token" and not self._needs_login(use, refused):
                return None
            found = self._log_in(use)
            if found.text == refused.text:
                return None
            answer = use.send(replace(request, token=found.text))
            if answer.status == 403:
                self._revoke(found)
                self._no_login_before = self._clock() + VAIN_LOGIN_S
            else:
                self._keep(found, epoch)
            return answer

    def forget(self) -> None:
        """Drop the token and the credentials. Sends no request."""
        with self._state:
            self._token = None
            self._epoch += 1
            self._stop_timer()
        self._no_login_before = -math.inf
        self._credentials.forget()

    def give_back(self) -> None:
        """Revoke the token if we logged in for it. Never raises. A token that we were given stays valid."""
        with self._state:
            token, self._token = self._token, None
            self._stop_timer()
        if token is not None:
            self._revoke(token)

    @contextmanager
    def _exclusive(self, use: Use) -> Iterator[None]:
        """Admit one thread at a time, and report a refusal of the login to `on_refusal`."""
        if not self._obtaining.acquire(timeout=max(use.deadline - self._clock(), 0.0)):
            raise KeyUnreachable(
                f"{self._settings.address} can't be reached: another thread is still waiting for its login",
                hint="try again",
            )
        try:
            yield
        except KeyUnreachable:
            raise
        except VaultLocked:
            self._on_refusal()
            raise
        finally:
            self._obtaining.release()

    def _keep(self, token: Token, epoch: int) -> None:
        with self._state:
            if epoch != self._epoch:  # `forget` was called meanwhile: the token is used once and not kept
                return
            self._token = token
            self._stop_timer()
            if token.renew_at is not None and not token.is_ours:
                self._timer = threading.Timer(max(token.renew_at - self._clock(), 0.0), self._renew_idle, (token,))
                self._timer.daemon = True
                self._timer.start()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _renew_idle(self, token: Token) -> None:
        """Renew a given token that nobody has renewed meanwhile. Runs in the thread of the timer, and never raises."""
        with self._obtaining:
            with self._state:
                is_present, epoch = self._token is token, self._epoch
            if is_present:
                self._keep(self._renewed(token), epoch)

    def _needs_login(self, use: Use, refused: Token) -> bool:
        """Whether a refused token is no longer valid, or nobody can say and a login has not just been in vain."""
        if use.send(ServerRequest("GET", "auth/token/lookup-self", refused.text)).status == 200:
            return False
        return self._clock() >= self._no_login_before

    def _revoke(self, token: Token) -> None:
        if token.is_ours:
            # If this fails, the token expires with its TTL.
            request = ServerRequest("POST", "auth/token/revoke-self", token.text, is_single_use=True)
            with suppress(VaultLocked):
                self._attempts.send_apart(request, deadline=self._clock() + CLOSE_TIMEOUT_S)

    def _renewed(self, token: Token) -> Token:
        """Return the token with its new times. If it can't be renewed, it is used as it is until it expires."""
        request = ServerRequest("POST", "auth/token/renew-self", token.text, is_single_use=True)
        try:
            answer = self._attempts.send_apart(request, deadline=self._clock() + RENEWAL_TIMEOUT_S)
            if answer.status != 200:  # refused: if the token is no longer valid, its next use shows
                return replace(token, renew_at=None)
            return self._dated(
                token.text,
                ttl_s=answer.take(int, "auth", "lease_duration"),
                is_renewable=answer.take(bool, "auth", "renewable"),
                is_ours=token.is_ours,
                first_ttl_s=token.first_ttl_s,
            )
        except KeyUnreachable:
            return replace(token, renew_at=self._clock() + RENEWAL_PAUSE_S)

    def _log_in(self, use: Use) -> Token:
        use.has_logged_in = True
        settings = self._settings
        if settings.auth == "token":
            return self._adopted(use, self._credentials.token())
        path = f"auth/{settings.login_mount}/login"
        body = self._credentials.login(partial(self._unwrap, use))
        # A secret-id may be valid for one use only, which a failed attempt may have consumed.
        request = ServerRequest("POST", path, None, body, is_single_use=settings.auth == "approle")
        answer = use.send(request)
        if answer.status in (400, 401, 403):
            self._credentials.note_refusal()
            raise AccessRefused(
                f"{self._settings.address} refused the login by {settings.auth} at {path}"
                f"{answer.error_text(request.hidden)}",
                hint=f"{_LOGIN_HINTS[settings.auth]}; and whether auth_mount and namespace are right",
            )
        if answer.status == 404:  # OpenBao answers 403 here, because nobody is logged in yet
            raise VaultLocked(
                f"{self._settings.address} has no auth method at {path}",
                hint=f"enable it (`bao auth enable {settings.auth}`), or set auth_mount and namespace to its place",
            )
        if answer.status != 200:
            raise answer.unexpected()
        text = answer.take(str, "auth", "client_token")
        if not text.isascii() or not text.isprintable() or not text or " " in text:
            raise answer.unexpected()
        ttl_s = answer.take(int, "auth", "lease_duration")
        return self._dated(
            text, ttl_s=ttl_s, is_renewable=answer.take(bool, "auth", "renewable"), is_ours=True, first_ttl_s=ttl_s
        )

    def _adopted(self, use: Use, text: str) -> Token:
        """Return a token that we were given, with its times if the server tells them."""
        answer = use.send(ServerRequest("GET", "auth/token/lookup-self", text))
        if answer.status == 403:  # its policy may forbid only this request; the next one shows
            return Token(text, is_ours=False, first_ttl_s=0, renew_at=None, expires_at=None)
        if answer.status != 200:
            raise answer.unexpected()
        ttl_s = answer.take(int, "data", "ttl")
        is_renewable = answer.find("data", "renewable") is True  # missing for a batch token
        return self._dated(text, ttl_s=ttl_s, is_renewable=is_renewable, is_ours=False, first_ttl_s=ttl_s)

    def _dated(self, text: str, *, ttl_s: float, is_renewable: bool, is_ours: bool, first_ttl_s: float) -> Token:
        if ttl_s <= 0:  # never ends, e.g. a root token
            return Token(text, is_ours, first_ttl_s, renew_at=None, expires_at=None)
        now = self._clock()
        # A renewal that gives less time than the first TTL has reached max_ttl, and the next would give even less. The
        # token is then used until it expires, and replaced.
        has_more = is_renewable and ttl_s >= first_ttl_s - _ROUNDING_S
        # At two thirds, like HashiCorp's own agent, or up to a tenth earlier, so that clients don't all renew at once.
        renew_at = now + ttl_s * (2 / 3 - self._jitter() / 10) if has_more else None
        return Token(text, is_ours, first_ttl_s, renew_at, now + ttl_s if is_ours else None)

    def _unwrap(self, use: Use, wrapping_token: str) -> str:
        """Return the secret-id in a wrapping token, which works once. First check the path that made the token."""
        settings = self._settings
        path, wanted = settings.secret_id_file, settings.secret_id_wrapping_path
        looked_up = use.send(ServerRequest("POST", "sys/wrapping/lookup", None, {"token": wrapping_token}))
        if looked_up.status in (400, 403, 404):
            raise self._taken()
        if looked_up.status != 200:
            raise looked_up.unexpected()
        if looked_up.take(str, "data", "creation_path") != wanted:
            raise AccessRefused(
                f"the wrapped secret-id in {path} was not made at {wanted}: somebody may have put another one there",
                hint="find out who wrote that file; if the path has changed, set secret_id_wrapping_path",
            )
        unwrapped = use.send(ServerRequest("POST", "sys/wrapping/unwrap", wrapping_token, is_single_use=True))
        if unwrapped.status in (400, 403, 404):
            raise self._taken()
        if unwrapped.status != 200:
            raise unwrapped.unexpected()
        return unwrapped.take(str, "data", "secret_id")

    def _taken(self) -> AccessRefused:
        return AccessRefused(
            f"the wrapped secret-id in {self._settings.secret_id_file} is used up: "
            "somebody else unwrapped it, or it is too old",
            hint="unless it was too old, treat it as stolen: "
            "destroy that secret-id, read the server's audit log, then write a new one to the file",
        )


_LOGIN_HINTS: Mapping[str, str] = MappingProxyType(
    {
        "approle": "make a new secret-id (`bao write -f auth/approle/role/ROLE/secret-id`), "
        "and check whether role_id is right",
        "kubernetes": "check whether the role allows this service account, its namespace and the audience of its token",
        "jwt": "check whether the role allows this issuer, audience and subject, and whether the JWT has expired",
    }
)
