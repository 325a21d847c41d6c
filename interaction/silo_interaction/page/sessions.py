"""Sessions of paired browsers, the tokens of their forms, and rate limits. Pure except for randomness.

The board keeps codes and links; `silo_interaction.page.app` decides which request needs a session.

A session has two secrets that travel in different ways, and a request needs both:

- the *path secret*, a segment of the address: `/s/{path_secret}/…`
- the *cookie secret*, in a cookie whose path is `/s/{path_secret}/`.

A cookie alone is not enough. Cookies and SameSite ignore ports: the browser would send a cookie for 127.0.0.1 with
`Path=/` to every server on 127.0.0.1, and an agent can run one and lure the person there. With the path secret in its
path, the cookie goes only to addresses that start with a segment that nobody can guess. The path secret alone is not
enough either, because addresses end up in histories and screenshots.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

COOKIE = "silo_page"

CODE_GUESSES, CODE_PERIOD_S = 10, 600.0
"""How many wrong codes all browsers together may send in a period. A code has 40 bits and lasts 10 minutes: at this
rate, guessing one of 64 succeeds once in 10^9 periods. A higher limit would only help an attacker; a person who
mistypes ten times can wait."""

_PATH_SECRET_BYTES, _COOKIE_SECRET_BYTES, _NAME_BYTES = 16, 32, 4
_MAX_SESSIONS = 16
"""Enough for one person's browsers and profiles. Beyond it, the oldest session ends."""
_FORM_LIFE_S = 600.0
_MAX_COOKIES = 8
"""How many cookies of this name are tried: other servers on 127.0.0.1 can add some of the same name for `Path=/`."""
_CODE_SYMBOLS = 8
_LOOKALIKES = str.maketrans("ILO", "110")  # as Crockford's base 32 reads them


@dataclass(frozen=True)
class BrowserSession:
    """A paired browser. It holds only hashes, so that a dump of this memory doesn't open the page.

    Attributes:
        name: tells sessions apart; it isn't secret.
        path_secret_hash, cookie_secret_hash: SHA-256 of the two secrets.
        expires_at: seconds since the epoch.
    """

    name: str
    path_secret_hash: bytes
    cookie_secret_hash: bytes
    expires_at: float


@dataclass(frozen=True)
class OpenedSession:
    """A new session with its secrets, which are stored nowhere else."""

    session: BrowserSession
    path_secret: str
    cookie_secret: str


class Sessions:
    """All paired browsers of a page, in memory only. Not safe to use from several threads."""

    def __init__(self, *, life_s: float, now: Callable[[], float]) -> None:
        self._life_s = life_s
        self._now = now
        self._key = secrets.token_bytes(32)
        self._sessions: list[BrowserSession] = []

    def open(self) -> OpenedSession:
        """Add a session. At most 16 are open; beyond that, the oldest ends."""
        path_secret, cookie_secret = (
            secrets.token_urlsafe(_PATH_SECRET_BYTES),
            secrets.token_urlsafe(_COOKIE_SECRET_BYTES),
        )
        expires_at = self._now() + self._life_s
        session = BrowserSession(secrets.token_hex(_NAME_BYTES), _hash(path_secret), _hash(cookie_secret), expires_at)
        self._sessions = [*self._live()[-(_MAX_SESSIONS - 1) :], session]
        return OpenedSession(session, path_secret, cookie_secret)

    def find(self, path_secret: str, cookie_secrets: Iterable[str]) -> BrowserSession | None:
        """Return the session of this path secret and one of the cookie secrets. Any wrong pair takes the same time."""
        path_secret_hash = _hash(path_secret)
        hashes = [_hash(secret) for secret in cookie_secrets][:_MAX_COOKIES]
        found = None
        for session in self._live():
            for cookie_secret_hash in hashes:
                fits = hmac.compare_digest(session.path_secret_hash, path_secret_hash) & hmac.compare_digest(
                    session.cookie_secret_hash, cookie_secret_hash
                )
                found = session if fits else found
        return found

    def is_open(self, session: BrowserSession) -> bool:
        """Tell whether the session has neither expired nor been closed."""
        return session in self._live()

    def close(self, session: BrowserSession) -> None:
        """End a session."""
        self._sessions = [other for other in self._sessions if other != session]

    def clear(self) -> None:
        """End all sessions, and invalidate all forms that were sent out."""
        self._sessions = []
        self._key = secrets.token_bytes(32)

    @property
    def has_any(self) -> bool:
        """Whether at least one browser is paired."""
        return bool(self._live())

    def csrf(self, session: BrowserSession) -> str:
        """Return the token that each form of this session carries, and that no other page can know."""
        return self._sign(b"session", session.cookie_secret_hash)

    def is_csrf(self, session: BrowserSession, given: str) -> bool:
        """Tell whether this is the token of the session's forms."""
        return _same(self.csrf(session), given)

    def pairing_form(self) -> str:
        """Return the token of a pairing form. It isn't bound to a browser, and so is valid for only 10 minutes."""
        made_at = str(int(self._now()))
        return f"{made_at}.{self._sign(b'pair', made_at.encode())}"

    def is_pairing_form(self, given: str) -> bool:
        """Tell whether this is a valid token of a pairing form."""
        made_at, _, signature = given.partition(".")
        is_ours = _same(self._sign(b"pair", made_at.encode("utf-8", "replace")), signature)
        return is_ours and 0 <= self._now() - int(made_at) <= _FORM_LIFE_S

    def shown(self, session: BrowserSession) -> str:
        """Return a token that says when a form of this session was shown: now."""
        at = f"{self._now():.3f}"
        return f"{at}.{self._sign(b'shown', session.cookie_secret_hash + at.encode())}"

    def shown_for_s(self, session: BrowserSession, given: str) -> float:
        """Return for how many seconds the form with this token has been shown; 0 if the token isn't ours."""
        at, _, signature = given.rpartition(".")
        message = session.cookie_secret_hash + at.encode("utf-8", "replace")
        return max(0.0, self._now() - float(at)) if _same(self._sign(b"shown", message), signature) else 0.0

    def _live(self) -> list[BrowserSession]:
        now = self._now()
        return [session for session in self._sessions if session.expires_at > now]

    def _sign(self, purpose: bytes, message: bytes) -> str:
        return hmac.new(self._key, purpose + b"\0" + message, hashlib.sha256).hexdigest()


class RateLimit:
    """Allows at most so many events in so many seconds."""

    def __init__(self, most: int, period_s: float, now: Callable[[], float]) -> None:
        self._most = most
        self._period_s = period_s
        self._now = now
        self._times: deque[float] = deque(maxlen=most)

    def add(self) -> None:
        """Count one event."""
        self._times.append(self._now())

    @property
    def wait_s(self) -> int:
        """How many whole seconds to wait for the next event; 0 if it is allowed now."""
        if len(self._times) < self._most:
            return 0
        left = self._times[0] + self._period_s - self._now()
        return int(left) + 1 if left > 0 else 0


def normalize_code(typed: str) -> str:
    """Return a pairing code as it is shown, `XXXX-XXXX`; empty for text that can't be a code.

    A person may type it in any case, with dashes and spaces anywhere. As in Crockford's base 32, I and L are read as 1,
    and O as 0.
    """
    symbols = re.sub(r"[\s-]+", "", typed[:64]).upper().translate(_LOOKALIKES)
    # `isascii` checks the typed text, because some other letters become ASCII in upper case.
    if not typed.isascii() or len(symbols) != _CODE_SYMBOLS or not re.fullmatch(r"[0-9A-HJKMNP-TV-Z]+", symbols):
        return ""
    return f"{symbols[:4]}-{symbols[4:]}"


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _same(ours: str, given: str) -> bool:
    return hmac.compare_digest(ours.encode(), given.encode("utf-8", "replace"))
