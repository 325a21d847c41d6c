"""`state.db`: a private SQLite file, opened when first needed, in transactions. `store_schema` says what is in it.

It holds what must survive a restart and a power cut: which approvals were given, and which were used.
"""

from __future__ import annotations

import os
import secrets
import shlex
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from silo.approvals.store_schema import SCHEMA, SCHEMA_VERSION, UPGRADES
from silo.errors import StateUnusable

FILE_NAME = "state.db"

LOCK_SECONDS = 10.0
"""A change takes milliseconds, on a slow disk tens of them. SQLite's lock is not fair: a crowd needs several rounds."""

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DISK = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
    }
)


class StateFile:
    """One connection to the `state.db` of a folder. For one thread at a time; many processes may have one each."""

    def __init__(self, folder: Path, *, patience_s: float = LOCK_SECONDS) -> None:
        """Open nothing yet; `patience_s` is how long a transaction waits for others."""
        self._patience_s = patience_s
        self.path = folder / FILE_NAME
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._connections = 0

    @contextmanager
    def transaction(self, *, change: bool, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Run the block in a transaction: when the block ends, all of it is durable, or none of it happened.

        Args:
            change: keep other processes from changing anything meanwhile. Without it, the block may only read.
            create: make the file if it is missing. Without it, the block then sees an empty database in memory, and
                nothing is kept.

        Raises:
            StateUnusable: the file is damaged, open to others, of a newer version or busy, or the disk refused.
        """
        try:
            if self._find() or create:
                with _transaction(self._connected(), change=change) as db:
                    self._require_version(db)
                    yield db
            else:
                self.close()
                with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
                    db.row_factory = sqlite3.Row
                    _make_schema(db)
                    yield db
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise  # a bug in silo, not a problem with the file
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise self._refused(f"{error.strerror or error}{where}") from error

    def version(self, db: sqlite3.Connection) -> str:
        """Return a text that differs after each change by any process. Call it within a transaction."""
        (others,) = db.execute("PRAGMA data_version").fetchone()
        return f"{self._connections}-{others}-{db.total_changes}"

    def close(self) -> None:
        """Close the connection; the next transaction opens another."""
        if self._db is not None:
            self._db.close()
            self._db = None
        self._inode = 0

    def _find(self) -> bool:
        """Return whether the file exists; refuse one that other users can change or read.

        The check uses the file's name: opening and closing the file beside SQLite would drop the locks that this
        process has on it, because POSIX gives them to the process and not to the descriptor (`man 2 fcntl`). The folder
        belongs to the user, so nobody else can replace the file.
        """
        try:
            facts = self.path.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            quoted = shlex.quote(str(self.path))
            raise StateUnusable(
                f"{self.path}, the file of approvals, is not a private file of yours",
                hint="find out who touched it; then move it away, and silo makes a new one: "
                f"mv {quoted} {quoted}.foreign",
            )
        if facts.st_ino != self._inode:
            self.close()  # it was moved away, and this is another one
        return True

    def _connected(self) -> sqlite3.Connection:
        if self._db is not None:
            return self._db
        self._create()
        inode = self.path.lstat().st_ino
        # mode=rw: SQLite must not create the file, because it would create it readable by others.
        db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=self._patience_s,
            isolation_level=None,
            check_same_thread=False,  # `Decisions` lets in one thread at a time
        )
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode = DELETE")
            # EXTRA and not FULL: FULL does not flush the folder after the journal is deleted, so a power cut could
            # bring the journal back, which takes back the last transaction: a used-up yes could be used again.
            # https://sqlite.org/pragma.html
            db.execute("PRAGMA synchronous = EXTRA")
            db.execute("PRAGMA secure_delete = ON")  # arguments of calls do not stay behind in free pages
            if _schema_version(db) < SCHEMA_VERSION:
                with _transaction(db, change=True):
                    if _schema_version(db) == 0:
                        _make_schema(db)
                    while (version := _schema_version(db)) in UPGRADES:
                        for statement in UPGRADES[version]:
                            db.execute(statement)
                        db.execute(f"PRAGMA user_version = {version + 1}")
        except BaseException:
            db.close()
            raise
        self._db, self._inode = db, inode
        self._connections += 1
        return db

    def _create(self) -> None:
        """Make an empty file if there is none.

        It is private from the start, and never opened under its own name (see `_find`).
        """
        if self._find():
            return
        aside = self.path.with_name(f".{FILE_NAME}.{secrets.token_hex(8)}")
        os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with suppress(FileExistsError):  # another process was faster
                os.link(aside, self.path)
        finally:
            aside.unlink()
        self._find()

    def _require_version(self, db: sqlite3.Connection) -> None:
        version = _schema_version(db)
        if version != SCHEMA_VERSION:
            quoted = shlex.quote(str(self.path))
            raise StateUnusable(
                f"{self.path}, the file of approvals, was written by a newer silo (version {version} of the file)",
                hint=f"use that silo, or move the file away: mv {quoted} {quoted}.newer",
            )

    def _unusable(self, error: sqlite3.Error) -> StateUnusable:
        extended = getattr(error, "sqlite_errorcode", None) or 0
        code = extended & 0xFF  # the primary code
        quoted = shlex.quote(str(self.path))
        if code in _BUSY:
            return StateUnusable(
                f"another process has locked {self.path} for more than {self._patience_s:g} s",
                hint=f"see who: fuser -v {quoted}",
            )
        if code in _DISK:
            return self._refused(str(error))
        self.close()
        return StateUnusable(
            f"{self.path}, the file of approvals, is damaged: {error}",
            hint=f"move it away, and silo makes a new one and asks for approvals again: mv {quoted} {quoted}.damaged",
        )

    def _refused(self, why: str) -> StateUnusable:
        return StateUnusable(
            f"can't use {self.path}, the file of approvals: {why}",
            hint="nothing is approved without it; check space and mode: "
            f"df {shlex.quote(str(self.path.parent))} && ls -la {shlex.quote(str(self.path.parent))}",
        )


@contextmanager
def _transaction(db: sqlite3.Connection, *, change: bool) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE" if change else "BEGIN")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            with suppress(sqlite3.Error):  # the first error matters more; the journal undoes the change in any case
                db.execute("ROLLBACK")
        raise


def _schema_version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    assert isinstance(version, int)
    return version


def _make_schema(db: sqlite3.Connection) -> None:
    for statement in SCHEMA:
        db.execute(statement)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
