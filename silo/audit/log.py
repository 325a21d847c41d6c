"""The audit log: one JSON line for each event, chained by hashes, so that a changed, dropped or reordered line shows.

Each record has the SHA-256 of the one before. The file `audit.head` beside the log has the number of the last record,
so that lines cut off the end show as well. Anyone who can write both files can forge both: the log detects changes, it
does not prevent them. Values of arguments are not stored, only their hash. `silo.audit.trail` decides what a record has
and when it is written.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shlex
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from silo.audit.fitting import fitted
from silo.errors import AuditBroken
from silo.schema.canonical import canonical, sha256_hex

FILE_NAME = "audit.jsonl"
NO_PREVIOUS = "0" * 64
"""The `prev` of the first record."""

MAX_RECORD_BYTES = 64 * 1024
"""No record is longer: the writer cuts what it says (`silo.audit.fitting`), so silo did not write a longer line."""

LOCK_SECONDS = 5.0
"""Writing a record takes well under a millisecond, so a longer wait means that another process hangs."""


@dataclass(frozen=True)
class AuditRecord:
    """One line of the log.

    Attributes:
        seq: 1 for the first record, then one more for each.
        time: UTC, ISO 8601 with milliseconds.
        event: `call`, `end`, `refused`, `install`, `uninstall` or `recovered`.
        body: the facts of the event.
        prev: the hash of the record before.
        hash: SHA-256 in hex of this record's canonical JSON without `hash`.
    """

    seq: int
    time: str
    event: str
    body: Mapping[str, Any]
    prev: str
    hash: str

    def to_json(self) -> dict[str, Any]:
        """Return the record as the one flat object that is stored."""
        return {**_fields(self.seq, self.time, self.event, self.body, self.prev), "hash": self.hash}


@dataclass(frozen=True)
class Verified:
    """The result of `verify` for an undamaged log.

    Attributes:
        records: how many there are.
        head: hash of the last one; keep it elsewhere to prove later that the log was not rewritten.
        recoveries: the records of repairs, after silo had found the end of the log damaged.
    """

    records: int
    head: str
    recoveries: tuple[AuditRecord, ...]


class AuditLog:
    """Appends to the log of one `SILO_HOME`. Many threads and processes may use it at once."""

    def __init__(self, folder: Path, *, now: Callable[[], datetime], flush: bool = False) -> None:
        self.path = folder / FILE_NAME
        self._head = folder / "audit.head"
        self._now = now
        self._flush = flush

    def append(self, event: str, body: Mapping[str, Any]) -> AuditRecord:
        """Write one record and return it. Blocks for less than a millisecond, unless records are flushed.

        What a crash left after the last whole record is set aside first, and a `recovered` record reports it. Facts
        that are too long are cut, and the record says so.

        Raises:
            AuditBroken: the record could not be written; the log is unchanged.
        """
        try:
            with self._opened() as (log, head):
                last = self._last(log, head)
                record = self._write(log, head, last, event, body)
        except OSError as error:
            raise AuditBroken(
                f"can't write the audit log {self.path}: {error.strerror or error}",
                hint="no call runs without its record; check space and mode: "
                f"df {shlex.quote(str(self.path.parent))} && ls -l {shlex.quote(str(self.path))}",
            ) from error
        return record

    @contextmanager
    def _opened(self) -> Iterator[tuple[int, int]]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        log = os.open(self.path, flags, 0o600)
        try:
            head = os.open(self._head, flags, 0o600)
            try:
                self._check_owner(log)
                self._lock(log)
                yield log, head
            finally:
                os.close(head)
        finally:
            os.close(log)

    def _check_owner(self, log: int) -> None:
        facts = os.fstat(log)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise AuditBroken(
                f"the audit log {self.path} is not a private file of yours",
                hint=f"chown {os.geteuid()} {shlex.quote(str(self.path))} && chmod 600 {shlex.quote(str(self.path))}",
            )

    def _lock(self, log: int) -> None:
        """Take the lock, which ends with the descriptor. `flock` has no timeout, so this polls."""
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                return fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise AuditBroken(
                        f"another process has locked the audit log for more than {LOCK_SECONDS:.0f} s",
                        hint=f"see who: fuser -v {shlex.quote(str(self.path))}",
                    ) from error
                time.sleep(0.002)

    def _last(self, log: int, head: int) -> tuple[int, str]:
        """Return number and hash of the last record, after repairing what a crash left behind it."""
        size = os.fstat(log).st_size
        last, end = _last_record(log, size)
        lost = max(0, _read_head(os.pread(head, _HEAD_BYTES, 0)) - last[0])
        if end == size and not lost:
            return last
        digest, saved = self._set_aside(log, end, size)
        body = {"torn_bytes": size - end, "torn_sha256": digest, "lost_records": lost, "saved_as": saved}
        # Over what was torn, not after a cut: if this is interrupted as well, the next record finds all that is left.
        recovered = self._write(log, head, last, "recovered", body, at=end)
        return recovered.seq, recovered.hash

    def _set_aside(self, log: int, start: int, end: int) -> tuple[str, str | None]:
        """Copy the end of the log to a file beside it; return the SHA-256 of these bytes and the file's name.

        The name is None if there was nothing to copy, or no space for it: a full disk must not keep silo from going on.
        """
        digest = hashlib.sha256()
        for piece in _pieces(log, start, end):
            digest.update(piece)
        if start == end:
            return digest.hexdigest(), None
        name = f"{FILE_NAME}.torn-{digest.hexdigest()[:16]}"
        path = self.path.with_name(name)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(path, flags, 0o600), "wb") as file:
                for piece in _pieces(log, start, end):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            return digest.hexdigest(), None
        return digest.hexdigest(), name

    def _write(
        self, log: int, head: int, last: tuple[int, str], event: str, body: Mapping[str, Any], *, at: int | None = None
    ) -> AuditRecord:
        """Write a record at the end of the log, or at a position in place of what is there."""
        now = self._now().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        facts = fitted(body, MAX_RECORD_BYTES - _FRAME_BYTES)
        fields = _fields(last[0] + 1, now, event, facts, last[1])
        record = AuditRecord(last[0] + 1, now, event, facts, last[1], sha256_hex(fields))
        line = canonical(record.to_json()) + b"\n"
        start = os.fstat(log).st_size if at is None else at
        try:
            written = os.pwrite(log, line, start)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.ftruncate(log, start + len(line))
            if self._flush:
                os.fdatasync(log)
            os.pwrite(head, f"{record.seq:020d} {record.hash}\n".encode(), 0)
        except OSError:
            if at is None:  # else what is left of the torn end stays, for the next record to report
                os.ftruncate(log, start)
            raise
        return record


def verify(folder: Path) -> Verified:
    """Check the whole log of a `SILO_HOME`; a missing log counts as valid and empty.

    Raises:
        AuditBroken: a line does not follow from the one before (the message has the first), or lines are missing at the
            end.
    """
    previous, count = NO_PREVIOUS, 0
    recoveries = []
    hint = "compare it with a copy; from this line on the record can't be trusted"
    for number, line in enumerate(_lines(folder / FILE_NAME), start=1):
        record = _parse(line)
        if record is None:
            torn = line.endswith(b"\0") and len(line) <= MAX_RECORD_BYTES + 1
            raise AuditBroken(
                f"line {number} of the audit log is not a whole record" + (", and the log ends there" if torn else ""),
                hint="a crash may have torn it; the next record sets it aside and says so" if torn else hint,
            )
        if record.prev != previous or record.seq != number:
            raise AuditBroken(
                f"line {number} of the audit log does not follow from line {number - 1}: "
                "a line was dropped, added or moved",
                hint=hint,
            )
        if record.event == "recovered":
            recoveries.append(record)
        previous, count = record.hash, number
    try:
        known = _read_head((folder / "audit.head").read_bytes()[:_HEAD_BYTES])
    except FileNotFoundError:
        known = 0
    if known > count:
        raise AuditBroken(
            f"the audit log ends at record {count}, and record {known} had been written",
            hint="lines were cut off its end, or a power cut took them; compare it with a copy",
        )
    return Verified(count, previous, tuple(recoveries))


def read(folder: Path) -> Iterator[AuditRecord]:
    """Yield the records of a log in order, without checking the chain; lines that aren't records are left out."""
    for line in _lines(folder / FILE_NAME):
        if (record := _parse(line)) is not None:
            yield record


_FRAME_BYTES = 512
"""More than `seq`, `time`, `event`, `prev` and `hash` take in a line."""

_HEAD_BYTES = 20 + 1 + 64 + 1
_RESERVED = frozenset({"seq", "time", "event", "prev", "hash"})


def _fields(seq: int, now: str, event: str, body: Mapping[str, Any], prev: str) -> dict[str, Any]:
    assert not _RESERVED & body.keys()
    return {"seq": seq, "time": now, "event": event, **body, "prev": prev}


def _last_record(log: int, size: int) -> tuple[tuple[int, str], int]:
    """Return number and hash of the last whole record, and where it ends; searches backwards from the end."""
    end = size
    while end > 0:
        start = max(0, end - 2 * MAX_RECORD_BYTES)  # a torn record and, before it, a whole one of any length
        window = os.pread(log, end - start, start)
        for stop in _line_ends(window):
            begin = window.rfind(b"\n", 0, stop) + 1
            if begin == 0 and start > 0:
                break  # the line may begin before the window
            record = _parse(window[begin:stop])
            if record is not None:
                return (record.seq, record.hash), start + stop + 1
        end = start + MAX_RECORD_BYTES if start > 0 else 0
    return (0, NO_PREVIOUS), 0


def _line_ends(window: bytes) -> Iterator[int]:
    """Yield where lines end, the last one first."""
    stop = window.rfind(b"\n")
    while stop >= 0:
        yield stop
        stop = window.rfind(b"\n", 0, stop)


def _pieces(log: int, start: int, end: int) -> Iterator[bytes]:
    while start < end:
        piece = os.pread(log, min(MAX_RECORD_BYTES, end - start), start)
        if not piece:
            return
        yield piece
        start += len(piece)


def _parse(line: bytes) -> AuditRecord | None:
    """Return the record in a line; None if silo would not have written exactly this line."""
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict) or canonical(fields) != line:
            return None
        own = fields.pop("hash")
        record = AuditRecord(
            fields["seq"],
            fields["time"],
            fields["event"],
            {key: value for key, value in fields.items() if key not in _RESERVED},
            fields["prev"],
            own,
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return record if sha256_hex(fields) == own and isinstance(record.seq, int) else None


def _read_head(data: bytes) -> int:
    number = data[:20]
    return int(number) if number.isdigit() else 0


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_RECORD_BYTES + 1):
                # The NUL byte makes an incomplete last line invalid, even if only its line feed is missing.
                yield line.removesuffix(b"\n") if line.endswith(b"\n") else line + b"\0"
    except FileNotFoundError:
        return
