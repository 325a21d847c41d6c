"""The store of questions and decisions, shared by all processes of one user. `consent` asks the questions.

An approval counts for its key, once or for its grace, whichever process put the question up; so it survives a restart.
A question counts only as long as the process that put it up lives: otherwise an approval that no call waits for would
stay valid until some call uses it. Every failure here means no: no file, no space, a clock that is set back, a process
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
from silo.errors import CallDenied, StateUnusable, UsageError
from silo.remedies import CallAgain, command

MAX_QUESTION_BYTES = 8 * 1024 * 1024
"""Arguments of a call have at most 1 MiB, and JSON in ASCII can be six times as long."""

MOST_OF_ONE = 50
"""How many questions of one asker wait at once. A client that runs tools side by side asks some tens."""

MOST_WAITING = 200
"""No person reads more questions than this; a caller that asks more may be flooding the page to hide one of them."""

ALWAYS_ASKED = 5
"""How many questions of one asker wait even if others have filled the page: one client can't keep another from being
asked about."""

MOST_EVER = 1000
"""The end, even for those. Only hundreds of sessions at once reach it."""

_KEY_SHOWN = 12
_LEAST_PREFIX = 4
_PREFIX = re.compile(r"[0-9a-f]{1,16}")


@dataclass(frozen=True)
class ListedQuestion:
    """A question in a list, waiting or decided.

    Attributes:
        subject: the tool.
        principal: on whose behalf it was asked.
        key: the first digits of the key that the decision counts for.
        here: it waits, and this process can answer it.
        by: the channel that the decision came through.
        until: the decision counts until then, in seconds since the epoch; 0 if it does not count (any more).
        uses: how many calls an approval has let through.
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

    # --- for the process that asks ------------------------------------------------------------------------------------

    def standing(self, key: str) -> PostedQuestion | None:
        """Return the approval that `use` would use, without using it."""
        with self._transaction() as (db, _):
            row = usable_row(db, key)
        return row.posted if row is not None else None

    def use(self, key: str) -> PostedQuestion | None:
        """Use an approval for this key: one within its grace, else one that counts once and is used up; else None.

        The use is on the disk before this returns. If any number of calls in any number of processes try at once,
        exactly one of them gets an approval that counts once.
        """
        with self._transaction(change=True) as (db, _):
            row = usable_row(db, key)
            if row is None:
                return None
            until = row.until if row.posted.grace else 0.0
            db.execute("UPDATE questions SET uses = uses + 1, until = ? WHERE id = ?", (until, row.posted.id))
        return row.posted

    def refusal(self, refusal: str) -> PostedQuestion | None:
        """Return a denial that still counts and covers this; it counts until its question's time is over."""
        with self._transaction() as (db, _):
            record = db.execute(
                "SELECT * FROM questions WHERE refusal = ? AND refusal != '' AND state = 'denied' AND until > 0"
                " ORDER BY decided_at DESC",
                (refusal,),
            ).fetchone()
            return parse(record).posted if record is not None else None

    def post(
        self,
        key: str,
        question: Question,
        *,
        subject: str,
        principal: str,
        stands_s: float,
        profile: Mapping[str, str],
        asker: str = "",
        is_person: bool = False,
        refusal: str = "",
    ) -> tuple[PostedQuestion, str, bool]:
        """Put a question up, or join the same question of this process if it waits already.

        If this process has asked something else for the same key, that question is withdrawn, because it no longer
        shows what would happen.

        Args:
            key: what an approval will count for; a hash in hex.
            subject: the tool.
            principal: on whose behalf.
            stands_s: how long the question waits; also how long an approval then waits for its one use.
            profile: label and hash or short text of what is compared with the next call (`last_agreed`). It is kept for
                a week, so it has no values.
            asker: whose waiting questions are counted together; empty: those of the principal.
            is_person: the asker is a person at a terminal, whose questions no client can crowd out.
            refusal: what a denial will cover, a hash in hex; empty: this question alone.

        Returns:
            The question, the secret part of its link, and whether it is new.

        Raises:
            CallDenied: too many questions wait already.
            ValueError: the question is too long or isn't JSON, or `stands_s` isn't positive and finite.
        """
        asker = asker or principal
        shown, digest = question_text(question), question.digest()
        if len(shown) > MAX_QUESTION_BYTES:
            raise ValueError(f"a question of {len(shown)} bytes is too long to be asked")
        if not (stands_s > 0 and math.isfinite(stands_s)):
            raise ValueError(f"a question can't stand for {stands_s} s")
        with self._transaction(change=True, create=True) as (db, now):
            owner = self._show_alive().name
            waiting = waiting_rows(db)
            mine = {row.posted.id: row for row in waiting if row.owner == owner}
            self._tokens = {number: token for number, token in self._tokens.items() if number in mine}
            for row in mine.values():
                if row.key == key and _is_same(row.posted.question, question) and row.posted.id in self._tokens:
                    return row.posted, self._tokens[row.posted.id], False
            replaced = {row.posted.id for row in mine.values() if row.key == key}
            _require_room([row for row in waiting if row.posted.id not in replaced], subject, asker, is_person)
            for question_id in replaced:
                end(
                    db,
                    question_id,
                    "withdrawn",
                    "a new question replaced it, because it no longer showed what would happen",
                )
            posted = PostedQuestion(secrets.token_hex(8), question, digest, asked_at=now, expires_at=now + stands_s)
            token = secrets.token_urlsafe(24)
            db.execute(
                "INSERT INTO questions (id, key, digest, subject, principal, question, profile, wanted, owner,"
                " asked_at, expires_at, link, asker, person, refusal, state)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting')",
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
                    text(asker),
                    is_person,
                    refusal,
                ),
            )
            self._tokens[posted.id] = token
        return posted, token, True

    def asked_here(self) -> Sequence[PostedQuestion]:
        """Return the waiting questions of this process, oldest first."""
        with self._transaction() as (db, _):
            if self._alive is None:
                return []
            return [row.posted for row in waiting_rows(db) if row.owner == self._alive.name]

    def withdraw(self, question_id: str, reason: str) -> None:
        """Withdraw a question that waits; a decided question stays as it is."""
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

        The secret exists only in the memory of this process, and is dropped when the question's time is over.
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
                    return None  # its time is over, or it was revoked
            return self._held.pop(question_id).answer

    def serves(self, address: str) -> None:
        """Tell other processes where this one serves its page, `http://127.0.0.1:PORT`. It has put up a question."""
        with self._lock:
            if self._alive is not None:
                self._alive.publish(address)

    def sealing_key(self) -> bytes:
        """Return 32 random bytes, the same for every process and after each restart, as long as the file is kept."""
        with self._transaction(change=True, create=True) as (db, _):
            return random_key(db, "sealing")

    def close(self) -> None:
        """Withdraw this process's open questions, which denies them. Afterwards the store can't be used."""
        with self._lock:
            if self._is_closed:
                return
            try:
                if self._alive is not None:
                    # If that can't be written: without its lock, this process counts as gone, and so do its questions.
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
        """As `Board.waiting`. A secret must be typed in at the process that wants it: it is passed on in memory."""
        with self._transaction() as (db, _):
            return [row.posted for row in waiting_rows(db) if self._is_answerable(row)]

    def get(self, question_id: str) -> PostedQuestion | None:
        """As `Board.get`. Once a question is decided, only its title and the caller's name are left."""
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

        The last decision on a key counts: a denial revokes earlier approvals that were not used yet, an approval
        earlier denials. A denial also answers the other waiting questions that it covers.

        Raises:
            ValueError: the answer does not fit the question: a grace that it does not offer, a secret that it does not
                want, or no secret although it wants one. Nothing is decided.
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
                if answer.approved:
                    db.execute(
                        "UPDATE questions SET until = 0 WHERE (key = ?1 OR (refusal = ?2 AND refusal != ''))"
                        " AND state = 'denied' AND until > 0",
                        (row.key, row.refusal),
                    )
                else:
                    db.execute(
                        "UPDATE questions SET until = 0 WHERE key = ? AND state = 'approved' AND until > 0", (row.key,)
                    )
                    for other in [other for other in waiting_rows(db) if row.refusal and other.refusal == row.refusal]:
                        end(db, other.posted.id, "denied", answer.reason or f"denied through {by}")
                        db.execute(
                            "UPDATE questions SET decided_by = ?, decided_at = ?, until = expires_at WHERE id = ?",
                            (text(by), now, other.posted.id),
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
        """Return a new pairing code, `XXXX-XXXX`, valid once and for five minutes. Of very many, the oldest go."""
        code = pairing.make_code()
        with self._transaction(change=True, create=True) as (db, _):
            salt = random_key(db, "codes")
        hashed = pairing.hash_code(code, salt)
        with self._transaction(change=True, create=True) as (db, now):
            pairing.add(db, now, hashed)
        return code

    def renew_code(self, code: str) -> bool:
        """Let a code that is still good be good for another five minutes; false if it is used up, void or too old."""
        with self._transaction() as (db, now):
            if not pairing.is_any_alive(db, now):
                return False
            salt = stored_key(db, "codes")
        hashed = pairing.hash_code(code, salt or b"")
        with self._transaction(change=True) as (db, now):
            return pairing.renew(db, now, hashed)

    def version(self) -> str:
        """As `Board.version`. The end of a question's time is a change as well; the next transaction writes it."""
        with self._transaction() as (db, _):
            return self._file.version(db)

    def all(self, *, standing: bool = True) -> Sequence[ListedQuestion]:
        """Return waiting questions of all processes and decisions that count, oldest first.

        Without `standing`, return everything of the last week.
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
            UsageError: no question or several questions match, or the digits are too few.
        """
        hint = command("silo approvals list", "{} shows them")
        wanted = prefix.lower()
        if not _PREFIX.fullmatch(wanted) or len(wanted) < _LEAST_PREFIX:
            raise UsageError(
                f"{prefix!r} isn't the id of a question: an id is {_LEAST_PREFIX} to 16 digits and letters a to f",
                hint=hint,
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
        """Withdraw a question that waits, or revoke a decision that counts; false if there was neither."""
        with self._transaction(change=True) as (db, _):
            row = find_row(db, question_id)
            if row is None or not (row.posted.state == "waiting" or row.until > 0):
                return False
            end(db, question_id, "withdrawn", "taken back")
        return True

    # --- shared -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self, *, change: bool = False, create: bool = False) -> Iterator[tuple[sqlite3.Connection, float]]:
        """Run the block in a transaction after `end_overdue`, and give it the time that this used."""
        with self._lock:
            if self._is_closed:
                raise StateUnusable(
                    "silo is stopping and asks no more questions", hint=CallAgain("once it has started again")
                )
            if not change:
                with self._file.transaction(change=False) as db:
                    now = self._moment()
                    if not has_overdue(db, now, self._lives):
                        yield db, now
                        return
            with self._file.transaction(change=True, create=create) as db:
                now = self._moment()  # not earlier: the transaction may have waited for another one
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
    """Whether two questions are the same. Their `changes` may differ, if a call was approved in between."""
    return replace(one, changes=()) == replace(other, changes=())


def _require_room(waiting: Sequence[Row], subject: str, asker: str, is_person: bool) -> None:
    """Refuse one more question if its asker has too many, or if the page is full and the asker has its share."""
    own = sum(row.asker == asker for row in waiting)
    if own >= MOST_OF_ONE:
        raise CallDenied(
            f"{own} questions of this client wait for a person already, so {subject} is not asked about",
            hint=CallAgain("once the user has answered them, with fewer tools at once"),
        )
    if is_person:
        return
    others = sum(not row.is_person for row in waiting)
    if others >= MOST_EVER or (others >= MOST_WAITING and own >= ALWAYS_ASKED):
        raise CallDenied(
            f"{others} questions wait for a person already, so {subject} is not asked about",
            hint=CallAgain("once the user has answered some of them"),
        )


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
    """Return until when a decision counts.

    A denial or a secret counts as long as the question would have waited; an approval for as long, but from now on.
    """
    posted = row.posted
    if not answer.approved or row.wanted:
        return posted.expires_at
    return now + (posted.question.grace_s if answer.grace else posted.expires_at - posted.asked_at)
