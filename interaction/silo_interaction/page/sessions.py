"""Who may see the page: paired browsers, the tokens of their forms, and how often one may be wrong. Pure but for randomness.

Codes and links are the board's; which request needs what is `silo_interaction.page.app`'s.

A session is opened by two secrets that travel in different ways, and both must fit:

- the *path_secret*, a segment of the address: `/s/{path_secret}/…`
- the *token*, in a cookie whose path is that path_secret.

A cookie alone would not do. Cookies know no ports, and neither does SameSite: one for 127.0.0.1 with `Path=/` would be sent by the
browser to every other server on 127.0.0.1, and an agent can run one and lead the person there. With the path_secret as its path, the cookie
goes only to addresses that start with a segment which nobody can guess. The path_secret alone would not do either: addresses end up in
histories and screenshots.
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
"""Wrong codes of all browsers together. A code has 40 bits: at this pace, guessing one that stands for 10 minutes succeeds once in
10^11 tries. More would only help whoever guesses; a person who mistypes ten times can wait."""

_PATH_SECRET_BYTES, _COOKIE_SECRET_BYTES, _NAME_BYTES = 16, 32, 4
_MAX_SESSIONS = 16
"""One person, some browsers and profiles. The oldest one goes."""
_FORM_LIFE_S = 600.0
_MAX_COOKIES = 8
"""Other servers on 127.0.0.1 can add cookies of the same name for `Path=/`; so many are tried."""
_CODE_SYMBOLS = 8
_LOOKALIKES = str.maketrans("ILO", "110")  # Crockford's base 32 reads them so


@dataclass(frozen=True)
class Session:
    """A paired browser. Holds hashes only: whoever reads this memory's dump can't open the page with it.

    Attributes:
        name: tells sessions apart; not secret.
        path_secret_hash, cookie_secret_hash: SHA-256 of the two secrets.
        expires_at: seconds since the epoch.
    """

    name: str
    path_secret_hash: bytes
    cookie_secret_hash: bytes
    expires_at: float


@dataclass(frozen=True)
class OpenedSession:
    """A new session with its secrets, which are nowhere else after this."""

    session: Session
    path_secret: str
    cookie_secret: str


class Sessions:
    """All paired browsers of a page, in memory only. Not for several threads."""

    def __init__(self, *, life_s: float, now: Callable[[], float]) -> None:
        self._life_s = life_s
        self._now = now
        self._key = secrets.token_bytes(32)
        self._sessions: list[Session] = []

    def open(self) -> OpenedSession:
        """Add a session. At most 16 are open; the oldest makes room."""
        path_secret, cookie_secret = (
            secrets.token_urlsafe(_PATH_SECRET_BYTES),
            secrets.token_urlsafe(_COOKIE_SECRET_BYTES),
        )
        expires_at = self._now() + self._life_s
        session = Session(secrets.token_hex(_NAME_BYTES), _hash(path_secret), _hash(cookie_secret), expires_at)
        self._sessions = [*self._live()[-(_MAX_SESSIONS - 1) :], session]
        return OpenedSession(session, path_secret, cookie_secret)

    def find(self, path_secret: str, cookie_secrets: Iterable[str]) -> Session | None:
        """Return the session that the path_secret and one of the tokens open. Takes the same time for any wrong pair."""
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

    def is_open(self, session: Session) -> bool:
        """Tell if the session is neither over nor closed."""
        return session in self._live()

    def close(self, session: Session) -> None:
        """End a session."""
        self._sessions = [other for other in self._sessions if other != session]

    def clear(self) -> None:
        """End all sessions; forms of before are worth nothing, either."""
        self._sessions = []
        self._key = secrets.token_bytes(32)

    @property
    def has_any(self) -> bool:
        """At least one browser is paired."""
        return bool(self._live())

    def csrf(self, session: Session) -> str:
        """Return what a form of this session carries, and no other page can know."""
        return self._sign(b"session", session.cookie_secret_hash)

    def is_csrf(self, session: Session, given: str) -> bool:
        """Tell if a form is of this session."""
        return _same(self.csrf(session), given)

    def pairing_form(self) -> str:
        """Return what the pairing form carries: good for 10 minutes, since it is bound to no browser."""
        made_at = str(int(self._now()))
        return f"{made_at}.{self._sign(b'pair', made_at.encode())}"

    def is_pairing_form(self, given: str) -> bool:
        """Tell if a pairing form is ours and still good."""
        made_at, _, signature = given.partition(".")
        is_ours = _same(self._sign(b"pair", made_at.encode("utf-8", "replace")), signature)
        return is_ours and 0 <= self._now() - int(made_at) <= _FORM_LIFE_S

    def _live(self) -> list[Session]:
        now = self._now()
        return [session for session in self._sessions if session.expires_at > now]

    def _sign(self, purpose: bytes, message: bytes) -> str:
        return hmac.new(self._key, purpose + b"\0" + message, hashlib.sha256).hexdigest()


class RateLimit:
    """At most so many in so many seconds."""

    def __init__(self, most: int, period_s: float, now: Callable[[], float]) -> None:
        self._most = most
        self._period_s = period_s
        self._now = now
        self._times: deque[float] = deque(maxlen=most)

    def add(self) -> None:
        """Count one."""
        self._times.append(self._now())

    @property
    def wait_s(self) -> int:
        """For how many whole seconds there may be no more; 0 if one may be now."""
        if len(self._times) < self._most:
            return 0
        left = self._times[0] + self._period_s - self._now()
        return int(left) + 1 if left > 0 else 0


def normalize_code(typed: str) -> str:
    """Return a pairing code as it is shown, `XXXX-XXXX`, from how a person typed it: any case, dashes and spaces anywhere.

    Crockford's base 32: I and L are read as 1, O as 0. What can't be a code comes back as an empty text.
    """
    symbols = re.sub(r"[\s-]+", "", typed[:64]).upper().translate(_LOOKALIKES)
    # Of the typed text, since some letters become ASCII in upper case.
    if not typed.isascii() or len(symbols) != _CODE_SYMBOLS or not re.fullmatch(r"[0-9A-HJKMNP-TV-Z]+", symbols):
        return ""
    return f"{symbols[:4]}-{symbols[4:]}"


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _same(ours: str, given: str) -> bool:
    return hmac.compare_digest(ours.encode(), given.encode("utf-8", "replace"))
