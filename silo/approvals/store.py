"""The store of questions and of what people decided: what every process of one user agrees on. `consent` asks.

A yes counts for its key, once or as long as its grace says, whoever put the question up; so it survives a restart. A
question counts only as long as the process lives that put it up: a yes for what nobody waits for any more would lie
around until somebody uses it. Whatever goes wrong here means no: no file, no space, a clock that is set back, a process
that is killed.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hmac import compare_digest
from pathlib import Path
from threading import RLock

from silo_interaction import Answer, DecideOutcome, PostedQuestion, Question, QuestionState

from silo.approvals import liveness, pairing
from silo.approvals.liveness import LivenessLock
from silo.approvals.state_file import StateFile
from silo.approvals.store_schema import (
    Row,
    end,
    end_overdue,
    find_row,
    has_overdue,
    hash_token,
    linked_row,
    parse,
    question_text,
    random_key,
    stored_key,
    text,
    usable_row,
    waiting_rows,
)
from silo.errors import StateUnusable, UsageError
from silo.remedies import CallAgain, command

MAX_QUESTION_BYTES = 8 * 1024 * 1024
"""Arguments of a call are at most 1 MiB, which JSON in ASCII may make six times as long."""

_KEY_SHOWN = 12
_LEAST_PREFIX = 4
_PREFIX = re.compile(r"[0-9a-f]{1,16}")


@dataclass(frozen=True)
class ListedQuestion:
    """A question for a list: what waits, and what was decided.

    Attributes:
        subject: the tool.
        principal: on whose behalf it was asked.
        key: the first digits of what the decision counts for.
        here: it waits, and can be answered by this process.
        by: through what the decision came.
        until: the decision counts until then, in seconds since the epoch; 0 if it does not (any more).
        uses: how many calls a yes has let through.
    """

    posted: PostedQuestion
    subject: str
    principal: str
    key: str
    here: bool
    by: str
    until: float
    uses: int


@dataclass(frozen=True)
class _HeldSecret:
    """A secret that was typed in, until a call takes it."""

    key: str
    answer: Answer = field(repr=False)
    until: float


class Decisions:
    """The questions and decisions of one `SILO_HOME`; a `silo_interaction.Board`.

    Safe to use from many threads and processes at once. Methods block for milliseconds, and raise `StateUnusable` when
    `state.db` can't be read or written; then nothing was approved and nothing used up. The file is made when the first
    question is put up.
    """

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        """Open nothing yet.

        Args:
            folder: `SILO_HOME`; other users can't write it.
            now: seconds since the epoch. Not the monotonic clock: a grace outlives the boot of the machine.
        """
        self._folder = folder
        self._now = now
        self._lock = RLock()
        self._file = StateFile(folder)
        self._alive: LivenessLock | None = None
        self._tokens: dict[str, str] = {}
        self._held: dict[str, _HeldSecret] = {}
        self._is_closed = False

    # --- for what asks ------------------------------------------------------------------------------------------------

    def standing(self, key: str) -> PostedQuestion | None:
        """Return the yes that `use` would use, without using it."""
        with self._transaction() as (db, _):
            row = usable_row(db, key)
        return row.posted if row is not None else None

    def use(self, key: str) -> PostedQuestion | None:
        """Use a yes for this key: one within its grace, else one that counts once and is used up; None without one.

        That it was used is on the disk before this returns. Of any number of callers at once, in whatever process,
        exactly one gets a yes that counts once.
        """
        with self._transaction(change=True) as (db, _):
            row = usable_row(db, key)
            if row is None:
                return None
            until = row.until if row.posted.grace else 0.0
            db.execute("UPDATE questions SET uses = uses + 1, until = ? WHERE id = ?", (until, row.posted.id))
        return row.posted

    def refusal(self, key: str) -> PostedQuestion | None:
        """Return a no for this key that still counts, which is until its question's time is over."""
        with self._transaction() as (db, _):
            record = db.execute(
                "SELECT * FROM questions WHERE key = ? AND state = 'denied' AND until > 0 ORDER BY decided_at DESC",
                (key,),
            ).fetchone()
            return parse(record).posted if record is not None else None

    def post(
        self, key: str, question: Question, *, subject: str, principal: str, stands_s: float, profile: Mapping[str, str]
    ) -> tuple[PostedQuestion, str, bool]:
        """Put a question up, or join the very same one of this process that waits.

        If this process has asked something else for the same key, that question is withdrawn: it shows what would
        not happen.

        Args:
            key: what a yes will count for; a hash in hex.
            subject: the tool.
            principal: on whose behalf.
            stands_s: so long the question waits; and so long, after it was decided, a yes waits for its one use.
            profile: label and hash or short text of what is compared with the next time (`last_agreed`); kept for a
                week, so no values.

        Returns:
            The question, the secret part of its link, and whether it is new.

        Raises:
            ValueError: it is too long, is not JSON, or stands for no time.
        """
        shown, digest = question_text(question), question.digest()
        if len(shown) > MAX_QUESTION_BYTES:
            raise ValueError(f"a question of {len(shown)} bytes is too long to be asked")
        if not (stands_s > 0 and math.isfinite(stands_s)):
            raise ValueError(f"a question can't stand for {stands_s} s")
        with self._transaction(change=True, create=True) as (db, now):
            owner = self._show_alive().name
            mine = {row.posted.id: row for row in waiting_rows(db) if row.owner == owner}
            self._tokens = {number: token for number, token in self._tokens.items() if number in mine}
            for row in mine.values():
                if row.key == key and _is_same(row.posted.question, question) and row.posted.id in self._tokens:
                    return row.posted, self._tokens[row.posted.id], False
            for row in mine.values():
                if row.key == key:
                    end(
                        db,
                        row.posted.id,
                        "withdrawn",
                        "it was asked anew: what would happen is no longer what it showed",
                    )
            posted = PostedQuestion(secrets.token_hex(8), question, digest, asked_at=now, expires_at=now + stands_s)
            token = secrets.token_urlsafe(24)
            db.execute(
                "INSERT INTO questions (id, key, digest, subject, principal, question, profile, wanted, owner,"
                " asked_at, expires_at, link, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting')",
                (
                    posted.id,
                    key,
                    digest,
                    text(subject),
                    text(principal),
                    shown,
                    json.dumps(dict(profile)),
                    question.wanted is not None,
                    owner,
                    now,
                    posted.expires_at,
                    hash_token(token),
                ),
            )
            self._tokens[posted.id] = token
        return posted, token, True

    def withdraw(self, question_id: str, reason: str) -> None:
        """Take a question down that waits; one that was decided stays as it is."""
        with self._transaction(change=True) as (db, _):
            row = find_row(db, question_id)
            if row is not None and row.posted.state == "waiting":
                end(db, question_id, "withdrawn", reason)

    def last_agreed(self, subject: str, principal: str) -> Mapping[str, str] | None:
        """Return the profile of the last approved call of this tool and principal, within a week; None without one."""
        with self._transaction() as (db, _):
            record = db.execute(
                "SELECT * FROM questions WHERE subject = ? AND principal = ? AND state = 'approved' AND wanted = 0"
                " ORDER BY decided_at DESC, rowid DESC",
                (text(subject), text(principal)),
            ).fetchone()
            return parse(record).profile if record is not None else None

    def take_secret(self, key: str) -> Answer | None:
        """Return the answer with a secret that was typed in for this key, once; None if there is none.

        It was never anywhere but in the memory of this process, and is dropped when the question's time is over.
        """
        with self._lock:
            held = {question_id: held for question_id, held in self._held.items() if held.key == key}
            if not held:
                return None
            with self._transaction(change=True) as (db, _):
                for question_id in held:
                    changed = db.execute(
                        "UPDATE questions SET uses = 1, until = 0 WHERE id = ? AND state = 'approved' AND until > 0",
                        (question_id,),
                    )
                    if changed.rowcount == 1:
                        break
                else:
                    return None  # its time was over, or it was taken back
            return self._held.pop(question_id).answer

    def serves(self, address: str) -> None:
        """Let other processes know where this one, which has put up a question, serves its page: `http://127.0.0.1:PORT`."""
        with self._lock:
            if self._alive is not None:
                self._alive.publish(address)

    def sealing_key(self) -> bytes:
        """Return 32 random bytes, the same for every process and after each restart, as long as the file is kept."""
        with self._transaction(change=True, create=True) as (db, _):
            return random_key(db, "sealing")

    def close(self) -> None:
        """Withdraw what this process asked and nobody answered, which means no. Afterwards nothing works any more."""
        with self._lock:
            if self._is_closed:
                return
            try:
                if self._alive is not None:
                    # If it can't be put down: without its lock, every other process takes this one for gone, and its
                    # questions, too.
                    with suppress(StateUnusable), self._transaction(change=True) as (db, _):
                        for row in waiting_rows(db):
                            if row.owner == self._alive.name:
                                end(db, row.posted.id, "withdrawn", "silo stopped")
            finally:
                self._is_closed = True
                self._held.clear()
                self._tokens.clear()
                if self._alive is not None:
                    self._alive.release()
                self._file.close()

    # --- for people ---------------------------------------------------------------------------------------------------

    def waiting(self) -> Sequence[PostedQuestion]:
        """As `Board.waiting`. A secret is typed in at the process that wants it: it is handed over in memory."""
        with self._transaction() as (db, _):
            return [row.posted for row in waiting_rows(db) if self._is_answerable(row)]

    def get(self, question_id: str) -> PostedQuestion | None:
        """As `Board.get`. Of a question that does not wait any more, only title and who asked is left."""
        with self._transaction() as (db, _):
            row = find_row(db, question_id)
        return row.posted if row is not None else None

    def follow(self, token: str, session: str) -> PostedQuestion | None:
        """As `Board.follow`. Once it is decided, the link works only for the session that followed it before."""
        with self._transaction() as (db, _):
            row = linked_row(db, token)
            if row is None or row.session is not None:
                return row.posted if row is not None and row.session == session else None
        with self._transaction(change=True) as (db, _):
            row = linked_row(db, token)
            if row is None or row.session not in (None, session):
                return None
            if row.session is None:
                if not self._is_answerable(row):
                    return None
                db.execute("UPDATE questions SET session = ? WHERE id = ?", (text(session), row.posted.id))
            return row.posted

    def decide(self, question_id: str, digest: str, answer: Answer, *, by: str) -> DecideOutcome:
        """As `Board.decide`. On the disk before this returns.

        The last word on a key counts: a no takes back what was agreed to before and not used yet, a yes what was
            refused.

        Raises:
            ValueError: the answer is none to this question: a grace that it does not offer, a secret where none is
                wanted, or none where one is. Nothing is decided.
        """
        with self._lock:
            with self._transaction(change=True) as (db, now):
                row = find_row(db, question_id)
                if row is None or not self._is_answerable(row):
                    return "gone"
                if not compare_digest(row.posted.digest.encode(), digest.encode("utf-8", "surrogatepass")):
                    return "changed"
                _require_fitting(answer, row.posted.question)
                until = _until(row, answer, now)
                done: QuestionState = "approved" if answer.approved else "denied"
                end(db, question_id, done, answer.reason or f"{done} through {by}")
                db.execute(
                    "UPDATE questions SET decided_by = ?, decided_at = ?, until = ?, grace = ? WHERE id = ?",
                    (text(by), now, until, answer.approved and answer.grace, question_id),
                )
                db.execute(
                    "UPDATE questions SET until = 0 WHERE key = ? AND state = ? AND until > 0",
                    (row.key, "denied" if answer.approved else "approved"),
                )
            if row.wanted and answer.approved:
                self._held[question_id] = _HeldSecret(row.key, answer, until)
        return "decided"

    def redeem(self, code: str) -> bool:
        """As `Board.redeem`. Ten wrong ones within ten minutes make all codes void."""
        with self._transaction() as (db, now):
            if not pairing.is_any_alive(db, now):
                return False
            salt = stored_key(db, "codes")
        hashed = pairing.hash_code(code, salt or b"")
        with self._transaction(change=True) as (db, now):
            return pairing.redeem(db, now, hashed)

    def pages(self) -> Sequence[str]:
        """Return the addresses of the pages that processes serve now; a code belongs there and nowhere else."""
        return liveness.page_addresses(self._folder)

    def new_code(self) -> str:
        """Return a new pairing code, `XXXX-XXXX`, valid once and for five minutes. Of more than five, the oldest go."""
        code = pairing.make_code()
        with self._transaction(change=True, create=True) as (db, _):
            salt = random_key(db, "codes")
        hashed = pairing.hash_code(code, salt)
        with self._transaction(change=True, create=True) as (db, now):
            pairing.add(db, now, hashed)
        return code

    def version(self) -> str:
        """As `Board.version`. That time has passed is a change as well, put down by whoever looks first."""
        with self._transaction() as (db, _):
            return self._file.version(db)

    def all(self, *, standing: bool = True) -> Sequence[ListedQuestion]:
        """Return what waits anywhere and each decision that counts, oldest first.

        Without `standing`, everything of the last week.
        """
        with self._transaction() as (db, _):
            records = db.execute(
                "SELECT * FROM questions WHERE NOT ? OR state = 'waiting' OR until > 0 ORDER BY asked_at, rowid",
                (standing,),
            ).fetchall()
            return [self._entry(parse(record)) for record in records]

    def find(self, prefix: str) -> ListedQuestion:
        """Return the question with this id, or the only one whose id begins so.

        Raises:
            UsageError: there is none, there are several, or it is too short to tell.
        """
        hint = command("silo approvals list", "{} shows them")
        wanted = prefix.lower()
        if not _PREFIX.fullmatch(wanted) or len(wanted) < _LEAST_PREFIX:
            raise UsageError(
                f"{prefix!r} is no id of a question: that is {_LEAST_PREFIX} to 16 digits and letters a to f", hint=hint
            )
        with self._transaction() as (db, _):
            records = db.execute("SELECT * FROM questions WHERE id GLOB ?", (f"{wanted}*",)).fetchall()
            entries = [self._entry(parse(record)) for record in records]
        if not entries:
            raise UsageError(f"there is no question {prefix}, or it was forgotten", hint=hint)
        if len(entries) > 1:
            ids = ", ".join(entry.posted.id for entry in entries[:5])
            raise UsageError(
                f"several questions begin with {prefix}: {ids}", hint="give more digits of the one you mean"
            )
        return entries[0]

    def revoke(self, question_id: str) -> bool:
        """Withdraw a question that waits, or take back a decision that counts; false if there was neither."""
        with self._transaction(change=True) as (db, _):
            row = find_row(db, question_id)
            if row is None or not (row.posted.state == "waiting" or row.until > 0):
                return False
            end(db, question_id, "withdrawn", "taken back")
        return True

    # --- what all of them need ----------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, *, change: bool = False, create: bool = False) -> Iterator[tuple[sqlite3.Connection, float]]:
        """Run the block in a transaction in which nothing is overdue (`end_overdue`), and give it the time of that."""
        with self._lock:
            if self._is_closed:
                raise StateUnusable(
                    "this silo is stopping, and asks nobody any more", hint=CallAgain("once it has started anew")
                )
            if not change:
                with self._file.transaction(change=False) as db:
                    now = self._moment()
                    if not has_overdue(db, now, self._lives):
                        yield db, now
                        return
            with self._file.transaction(change=True, create=create) as db:
                now = self._moment()  # not before: a transaction may have waited for another one
                end_overdue(db, now, self._lives)
                yield db, now

    def _moment(self) -> float:
        now = self._now()
        for question_id in [question_id for question_id, held in self._held.items() if now >= held.until]:
            del self._held[question_id]
        return now

    def _lives(self, owner: str) -> bool:
        return (self._alive is not None and owner == self._alive.name) or liveness.is_alive(self._folder, owner)

    def _show_alive(self) -> LivenessLock:
        if self._alive is None:
            liveness.remove_stale(self._folder)
            self._alive = LivenessLock(self._folder)
        return self._alive

    def _is_answerable(self, row: Row) -> bool:
        is_mine = self._alive is not None and row.owner == self._alive.name
        return row.posted.state == "waiting" and (is_mine or not row.wanted)

    def _entry(self, row: Row) -> ListedQuestion:
        return ListedQuestion(
            posted=row.posted,
            subject=row.subject,
            principal=row.principal,
            key=row.key[:_KEY_SHOWN],
            here=self._is_answerable(row),
            by=row.by,
            until=row.until,
            uses=row.uses,
        )


def _is_same(one: Question, other: Question) -> bool:
    """Whether two questions are about the same, apart from what changed since the last yes: another may lie between."""
    return replace(one, changes=()) == replace(other, changes=())


def _require_fitting(answer: Answer, question: Question) -> None:
    if answer.grace and not (answer.approved and question.grace_s > 0):
        raise ValueError("this question offers no grace")
    if question.wanted is None:
        if answer.value is not None or answer.keep:
            raise ValueError("this question wants no secret")
    elif answer.approved != bool(answer.value):
        raise ValueError("this question wants a secret")
    elif answer.keep and not (answer.approved and question.wanted.keeper):
        raise ValueError("there is nowhere to keep this secret")


def _until(row: Row, answer: Answer, now: float) -> float:
    """Return until when a decision counts: a no and a secret as long as the question would have, a yes from now on."""
    posted = row.posted
    if not answer.approved or row.wanted:
        return posted.expires_at
    return now + (posted.question.grace_s if answer.grace else posted.expires_at - posted.asked_at)
