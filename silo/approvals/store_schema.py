"""What `state.db` holds: its tables, a row as a value, and which rows are overdue. `state_file` opens it.

The values in a question are deleted with its end: once it is decided or over, a row keeps the title, the caller's name,
hashes and times. Untrusted text is stored as JSON in ASCII, because SQLite does not take lone surrogates or NUL.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

from silo_interaction import PostedQuestion, Question, QuestionState, WantedSecret

SCHEMA_VERSION = 2

_ID = re.compile(r"[0-9a-f]{16}")

SCHEMA = (
    """CREATE TABLE questions (
        id TEXT PRIMARY KEY,
        key TEXT NOT NULL,            -- what a yes is for, as the pipeline hashes it
        digest TEXT NOT NULL,         -- of all that the person was shown
        subject TEXT NOT NULL,        -- JSON text, like all text that others chose
        principal TEXT NOT NULL,
        question TEXT NOT NULL,       -- JSON: all of it while it waits, then title and who
        profile TEXT NOT NULL,        -- JSON object, for `last_agreed`
        wanted INTEGER NOT NULL,      -- 1: a secret is to be typed in
        owner TEXT NOT NULL,          -- which process asks, see `liveness`
        asked_at REAL NOT NULL,
        expires_at REAL NOT NULL,
        link TEXT NOT NULL,           -- SHA-256 of the link's secret part
        session TEXT,                 -- JSON text: the only session that may follow the link
        state TEXT NOT NULL CHECK (state IN ('waiting', 'approved', 'denied', 'expired', 'withdrawn')),
        reason TEXT NOT NULL DEFAULT '""',
        decided_by TEXT NOT NULL DEFAULT '""',
        decided_at REAL,
        until REAL NOT NULL DEFAULT 0,     -- the decision counts so long; 0: not (any more)
        grace INTEGER NOT NULL DEFAULT 0,  -- 1: as often as wanted until then; 0: once
        uses INTEGER NOT NULL DEFAULT 0,
        asker TEXT NOT NULL DEFAULT '""',  -- JSON text: whose waiting questions are counted together
        person INTEGER NOT NULL DEFAULT 0, -- 1: a person asks, at a terminal
        refusal TEXT NOT NULL DEFAULT ''   -- what a no is for; empty: for this question only
    )""",
    "CREATE INDEX questions_by_key ON questions (key)",
    "CREATE INDEX questions_by_refusal ON questions (refusal)",
    "CREATE INDEX questions_by_state ON questions (state)",
    "CREATE TABLE codes (hash BLOB NOT NULL, made_at REAL NOT NULL)",
    "CREATE TABLE wrong_codes (at REAL NOT NULL)",
    "CREATE TABLE keys (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
)

UPGRADES = {
    1: (
        """ALTER TABLE questions ADD COLUMN asker TEXT NOT NULL DEFAULT '""'""",
        "ALTER TABLE questions ADD COLUMN person INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE questions ADD COLUMN refusal TEXT NOT NULL DEFAULT ''",
        "CREATE INDEX questions_by_refusal ON questions (refusal)",
    )
}
"""What makes a file of the next version of each older one. The approvals in a file of version 1 were for a client's
name alone; they stay in the list, but no call has their keys any more."""

KEPT_S = 7 * 24 * 3600.0
"""A week: long enough to look up what was agreed to last week. The archive is the audit log."""


@dataclass(frozen=True)
class Row:
    """One question as it is stored; see the columns of `questions`."""

    posted: PostedQuestion
    key: str
    subject: str
    principal: str
    profile: Mapping[str, str]
    wanted: bool
    owner: str
    asker: str
    is_person: bool
    refusal: str
    session: str | None
    by: str
    until: float
    uses: int


def parse(record: Mapping[str, Any]) -> Row:
    """Return the row that a record of `questions` holds.

    Raises:
        sqlite3.DatabaseError: silo did not write the record.
    """
    try:
        posted = PostedQuestion(
            id=record["id"],
            question=Question.from_json(json.loads(record["question"])),
            digest=record["digest"],
            asked_at=record["asked_at"],
            expires_at=record["expires_at"],
            state=record["state"],
            reason=json.loads(record["reason"]),
            grace=bool(record["grace"]),
            decided_at=record["decided_at"],
        )
        return Row(
            posted=posted,
            key=record["key"],
            subject=json.loads(record["subject"]),
            principal=json.loads(record["principal"]),
            profile=json.loads(record["profile"]),
            wanted=bool(record["wanted"]),
            owner=record["owner"],
            asker=json.loads(record["asker"]),
            is_person=bool(record["person"]),
            refusal=record["refusal"],
            session=None if record["session"] is None else json.loads(record["session"]),
            by=json.loads(record["decided_by"]),
            until=record["until"],
            uses=record["uses"],
        )
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise sqlite3.DatabaseError("a question in it is not what silo wrote") from error


def text(value: str) -> str:
    """Return a text in the form in which the columns store it."""
    return json.dumps(value)


def question_text(question: Question) -> str:
    """Return a question in the form in which its column stores it.

    Raises:
        ValueError, TypeError: a value in it isn't JSON.
    """
    return json.dumps(question.to_json(), separators=(",", ":"), allow_nan=False)


def find_row(db: sqlite3.Connection, question_id: str) -> Row | None:
    """Return the question with this id; any text will do."""
    if not _ID.fullmatch(question_id):
        return None
    record = db.execute("SELECT * FROM questions WHERE id = ?", (question_id,)).fetchone()
    return parse(record) if record is not None else None


def waiting_rows(db: sqlite3.Connection) -> list[Row]:
    """Return the waiting questions, oldest first."""
    records = db.execute("SELECT * FROM questions WHERE state = 'waiting' ORDER BY asked_at, rowid").fetchall()
    return [parse(record) for record in records]


def usable_row(db: sqlite3.Connection, key: str) -> Row | None:
    """Return the approval that the next call with this key uses: preferably one with a grace, as it is not used up."""
    record = db.execute(
        "SELECT * FROM questions WHERE key = ? AND state = 'approved' AND until > 0 AND wanted = 0"
        " ORDER BY grace DESC, until",
        (key,),
    ).fetchone()
    return parse(record) if record is not None else None


def linked_row(db: sqlite3.Connection, token: str) -> Row | None:
    """Return the question that a link leads to. Its timing can reveal only the hash, not the secret part."""
    hashed = hash_token(token)
    record = db.execute("SELECT * FROM questions WHERE link = ?", (hashed,)).fetchone()
    return parse(record) if record is not None and compare_digest(record["link"], hashed) else None


def hash_token(token: str) -> str:
    """Return the hash of the secret part of a link, as it is stored: 192 random bits need no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def random_key(db: sqlite3.Connection, name: str) -> bytes:
    """Return the 32 random bytes of that name; they are made at first use."""
    db.execute("INSERT OR IGNORE INTO keys (name, value) VALUES (?, ?)", (name, secrets.token_bytes(32)))
    found = stored_key(db, name)
    assert found is not None
    return found


def stored_key(db: sqlite3.Connection, name: str) -> bytes | None:
    """Return the 32 random bytes of that name, or None if they were not made yet."""
    record = db.execute("SELECT value FROM keys WHERE name = ?", (name,)).fetchone()
    return bytes(record["value"]) if record is not None else None


def end(db: sqlite3.Connection, question_id: str, state: QuestionState, reason: str) -> None:
    """Put a question into a state other than waiting, and delete the details that were shown."""
    record = db.execute("SELECT question FROM questions WHERE id = ?", (question_id,)).fetchone()
    try:
        asked = Question.from_json(json.loads(record["question"]))
        # The name of a secret stays: it shows that the question asked for a secret, not for an approval.
        wanted = None if asked.wanted is None else WantedSecret(asked.wanted.name)
        short = question_text(Question(asked.title, asked.who, wanted=wanted))
    except (ValueError, TypeError, KeyError) as error:
        raise sqlite3.DatabaseError("a question in it is not what silo wrote") from error
    db.execute(
        "UPDATE questions SET state = ?, reason = ?, question = ?, until = 0 WHERE id = ?",
        (state, text(reason), short, question_id),
    )


def has_overdue(db: sqlite3.Connection, now: float, is_alive: Callable[[str], bool]) -> bool:
    """Whether `end_overdue` would change anything."""
    if _unanswerable(db, now, is_alive):
        return True
    found = db.execute(
        "SELECT EXISTS (SELECT 1 FROM questions WHERE until > 0 AND (until <= ?1 OR decided_at > ?1))"
        " OR EXISTS (SELECT 1 FROM questions WHERE state != 'waiting' AND until = 0 AND asked_at < ?2)",
        (now, now - KEPT_S),
    ).fetchone()
    return bool(found[0])


def end_overdue(db: sqlite3.Connection, now: float, is_alive: Callable[[str], bool]) -> None:
    """Update rows whose time is over, so that `state` and `until` are right afterwards.

    This is written, not computed at each read: otherwise setting the clock back would make an old approval valid again.

    Args:
        is_alive: whether the process of this name lives.
    """
    for question_id, state, reason in _unanswerable(db, now, is_alive):
        end(db, question_id, state, reason)
    db.execute("UPDATE questions SET until = 0 WHERE until > 0 AND (until <= ?1 OR decided_at > ?1)", (now,))
    db.execute("DELETE FROM questions WHERE state != 'waiting' AND until = 0 AND asked_at < ?", (now - KEPT_S,))


def _unanswerable(
    db: sqlite3.Connection, now: float, is_alive: Callable[[str], bool]
) -> list[tuple[str, QuestionState, str]]:
    """Return the questions that can't be answered any more: id, new state and reason of each."""
    lives = functools.cache(is_alive)  # a process may have many questions
    found: list[tuple[str, QuestionState, str]] = []
    for question_id, owner, asked_at, expires_at in db.execute(
        "SELECT id, owner, asked_at, expires_at FROM questions WHERE state = 'waiting'"
    ).fetchall():
        if now >= expires_at:
            found.append((question_id, "expired", "nobody answered in time"))
        elif now < asked_at:
            found.append((question_id, "expired", "the clock was set back"))
        elif not lives(owner):
            found.append((question_id, "withdrawn", "silo ended while it asked"))
    return found
