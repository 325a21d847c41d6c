"""Codes with which a person pairs a browser: short enough to type, and too few and too short-lived to be guessed.

They lie in the file of `state_file`; `consent` shows them, and the page asks for them.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from hmac import compare_digest

VALID_S = 300.0
"""Five minutes: time to walk over to the other screen."""

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32: no I, L, O, U, so that what is read out loud or from a bad screen is typed as it was meant."""

_DIGITS = 8  # 40 bits: at ten guesses in ten minutes, it takes some 400 000 years to come upon one of five codes
_MOST_ALIVE = 5
_MOST_WRONG, _WRONG_WITHIN_S = 10, 600.0
_SCRYPT_COST = (
    4096  # 4 MiB and about 10 ms: a person does not notice, and going through all codes takes a core 300 years
)


def make_code() -> str:
    """Return a new code, `XXXX-XXXX`."""
    digits = "".join(secrets.choice(_ALPHABET) for _ in range(_DIGITS))
    return f"{digits[:4]}-{digits[4:]}"


def hash_code(code: str, salt: bytes) -> bytes:
    """Return what is stored of a code, or compared with it; takes any text, in any case, and as Crockford reads it."""
    plain = "".join(character for character in code.upper() if character not in "- ")
    plain = plain.replace("I", "1").replace("L", "1").replace("O", "0")
    data = plain.encode("utf-8", "surrogatepass")[: 4 * _DIGITS]
    return hashlib.scrypt(data, salt=salt, n=_SCRYPT_COST, r=8, p=1, dklen=32)


def add(db: sqlite3.Connection, now: float, hashed: bytes) -> None:
    """Make a code valid. Older ones go, if there are too many."""
    _forget(db, now)
    db.execute("INSERT INTO codes (hash, made_at) VALUES (?, ?)", (hashed, now))
    db.execute(
        "DELETE FROM codes WHERE rowid NOT IN (SELECT rowid FROM codes ORDER BY rowid DESC LIMIT ?)", (_MOST_ALIVE,)
    )


def is_any_alive(db: sqlite3.Connection, now: float) -> bool:
    """Whether there is any code that could be redeemed."""
    found = db.execute(
        "SELECT EXISTS (SELECT 1 FROM codes WHERE made_at <= ? AND made_at > ?)", (now, now - VALID_S)
    ).fetchone()
    return bool(found[0])


def redeem(db: sqlite3.Connection, now: float, hashed: bytes) -> bool:
    """Use the code up that has this hash; false if there is none. Too many wrong ones make all codes void."""
    _forget(db, now)
    found = None
    for number, value in db.execute("SELECT rowid, hash FROM codes").fetchall():
        if compare_digest(value, hashed):  # and on to the next: when it ends says nothing
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
    """Drop codes that are too old, or of a future that a clock was set back from, and failures that are long past.

    Failures of such a future count as made now, so that nobody guesses more often by setting the clock.
    """
    db.execute("DELETE FROM codes WHERE made_at > ?1 OR made_at <= ?2", (now, now - VALID_S))
    db.execute("UPDATE wrong_codes SET at = ?1 WHERE at > ?1", (now,))
    db.execute("DELETE FROM wrong_codes WHERE at <= ?", (now - _WRONG_WITHIN_S,))
