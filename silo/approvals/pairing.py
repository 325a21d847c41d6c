"""Codes that pair a browser. They are short enough to type, and few and short-lived, so that nobody can guess one.

Each process has one code at a time, and shows the same one again as long as it is good: otherwise a burst of questions
would make the code void that a person is typing.

They are stored in the file of `state_file`; `consent` shows them, and the page asks for them.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from hmac import compare_digest

VALID_S = 300.0
"""Five minutes are enough to walk to another screen."""

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32 has no I, L, O or U, so a code that is read out, or from a bad screen, is typed correctly."""

_DIGITS = 8  # 40 bits: at ten guesses in ten minutes, it takes some 30 000 years to find one of 64 codes
_MOST_ALIVE = 64
"""More than the processes of a person that ask at once: a code that they make must not void the one being typed."""
_MOST_WRONG, _WRONG_WITHIN_S = 10, 600.0
_SCRYPT_COST = (
    4096  # 4 MiB and about 10 ms: a person does not notice, and going through all codes takes a core 300 years
)


def make_code() -> str:
    """Return a new code, `XXXX-XXXX`."""
    digits = "".join(secrets.choice(_ALPHABET) for _ in range(_DIGITS))
    return f"{digits[:4]}-{digits[4:]}"


def hash_code(code: str, salt: bytes) -> bytes:
    """Return the hash that is stored of a code. Takes any text, in any case, with Crockford's aliases."""
    plain = "".join(character for character in code.upper() if character not in "- ")
    plain = plain.replace("I", "1").replace("L", "1").replace("O", "0")
    data = plain.encode("utf-8", "surrogatepass")[: 4 * _DIGITS]
    return hashlib.scrypt(data, salt=salt, n=_SCRYPT_COST, r=8, p=1, dklen=32)


def add(db: sqlite3.Connection, now: float, hashed: bytes) -> None:
    """Make a code valid. If there are too many, the oldest are deleted."""
    _forget(db, now)
    db.execute("INSERT INTO codes (hash, made_at) VALUES (?, ?)", (hashed, now))
    db.execute(
        "DELETE FROM codes WHERE rowid NOT IN (SELECT rowid FROM codes ORDER BY rowid DESC LIMIT ?)", (_MOST_ALIVE,)
    )


def renew(db: sqlite3.Connection, now: float, hashed: bytes) -> bool:
    """Let the code with this hash be valid from now on; false if it isn't valid any more."""
    _forget(db, now)
    return db.execute("UPDATE codes SET made_at = ? WHERE hash = ?", (now, hashed)).rowcount > 0


def is_any_alive(db: sqlite3.Connection, now: float) -> bool:
    """Whether there is any code that could be redeemed."""
    found = db.execute(
        "SELECT EXISTS (SELECT 1 FROM codes WHERE made_at <= ? AND made_at > ?)", (now, now - VALID_S)
    ).fetchone()
    return bool(found[0])


def redeem(db: sqlite3.Connection, now: float, hashed: bytes) -> bool:
    """Use up the code with this hash; false if there is none. Too many wrong codes make all codes void."""
    _forget(db, now)
    found = None
    for number, value in db.execute("SELECT rowid, hash FROM codes").fetchall():
        if compare_digest(value, hashed):  # no early exit, so the time reveals nothing
            found = number
    if found is not None:
        db.execute("DELETE FROM codes WHERE rowid = ?", (found,))
        return True
    db.execute("INSERT INTO wrong_codes (at) VALUES (?)", (now,))
    wrong = db.execute("SELECT count(*) FROM wrong_codes").fetchone()[0]
    if wrong >= _MOST_WRONG:
        db.execute("DELETE FROM codes")
    return False


def _forget(db: sqlite3.Connection, now: float) -> None:
    """Drop old failures, and codes that are too old or, after the clock was set back, from the future.

    Failures from the future count as made now, so that setting the clock doesn't allow more guesses.
    """
    db.execute("DELETE FROM codes WHERE made_at > ?1 OR made_at <= ?2", (now, now - VALID_S))
    db.execute("UPDATE wrong_codes SET at = ?1 WHERE at > ?1", (now,))
    db.execute("DELETE FROM wrong_codes WHERE at <= ?", (now - _WRONG_WITHIN_S,))
