"""`learned.json`: what the router learned from calls, and how often each tool was called, by principal. Blocks.

`feedback` decides what counts as a lesson, `silo.router.learning` how lessons are used. The file is a help, not a
record: if it is damaged or can't be written, the lessons are lost, the log says so, and calls go on.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from silo.discovery.feedback import Lesson
from silo.router.learning import MAX_AGE_S, Lessons, LessonsDamaged

FILE_NAME = "learned.json"

MAX_PRINCIPALS = 16
"""A client's name is only a claim. One that changes its name each time pushes out others' lessons, but can't fill the
disk."""

MAX_TOOLS = 2000
"""How many tools are counted for one principal; the tool that was called longest ago is dropped first."""

MAX_FILE_BYTES = 4 * 1024 * 1024
"""The file is read and written at each call; it usually has some kilobytes."""

_VERSION = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calls:
    """How often a tool was called, and the time of the last call in seconds since the epoch."""

    count: int
    at: float


@dataclass(frozen=True)
class Learned:
    """The content of the file; principals and tools in the order in which they were last active."""

    lessons: Lessons = field(default_factory=Lessons)
    calls: Mapping[str, Mapping[str, Calls]] = field(default_factory=dict)

    def counted(self, who: str, tool: str, now: float) -> Learned:
        """Return a copy with one more call."""
        theirs = dict(self.calls.get(who, {}))
        before = theirs.pop(tool, Calls(0, now))
        theirs[tool] = Calls(before.count + 1, now)
        while len(theirs) > MAX_TOOLS:
            del theirs[next(iter(theirs))]
        return self._heard_of(who, theirs)

    def taught(self, lesson: Lesson, now: float) -> Learned:
        """Return a copy with one more lesson."""
        lessons = self.lessons.with_lesson(lesson.who, lesson.request, lesson.tool, now=now)
        return replace(self, lessons=lessons)._heard_of(lesson.who, self.calls.get(lesson.who, {}))

    def without_tools(self, tools: Sequence[str]) -> Learned:
        """Return a copy without some tools: a later tool of the same name may do something else."""
        lessons = self.lessons
        for tool in tools:
            lessons = lessons.without(tool)
        gone = set(tools)
        calls = {
            who: {tool: one for tool, one in theirs.items() if tool not in gone} for who, theirs in self.calls.items()
        }
        return Learned(lessons, calls)

    def aged(self, now: float) -> Learned:
        """Return a copy without entries that are too old."""
        calls = {
            who: {tool: one for tool, one in theirs.items() if now - one.at <= MAX_AGE_S}
            for who, theirs in self.calls.items()
        }
        return Learned(self.lessons.without_expired(now=now), {who: theirs for who, theirs in calls.items() if theirs})

    def encode(self) -> bytes:
        """Return the file's content. Above `MAX_FILE_BYTES`, the longest inactive principals are left out."""
        kept = self
        while len(data := kept._encode_all()) > MAX_FILE_BYTES and kept != Learned():
            kept = kept._without(next(iter(kept.calls))) if kept.calls else Learned()
        return data

    def _encode_all(self) -> bytes:
        calls = {who: {tool: [one.count, one.at] for tool, one in theirs.items()} for who, theirs in self.calls.items()}
        document = {"version": _VERSION, "lessons": json.loads(self.lessons.to_json()), "calls": calls}
        return json.dumps(document, ensure_ascii=False).encode(errors="replace")

    @classmethod
    def decode(cls, data: bytes) -> Learned:
        """Parse what `encode` returned.

        Raises:
            LessonsDamaged: `encode` did not write it.
        """
        try:
            document = json.loads(data)
            if document["version"] != _VERSION:
                raise LessonsDamaged(f"it has the version {document['version']!r}")
            calls = {
                str(who): {str(tool): Calls(int(count), float(at)) for tool, (count, at) in theirs.items()}
                for who, theirs in document["calls"].items()
            }
            return cls(Lessons.from_json(json.dumps(document["lessons"])), calls)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise LessonsDamaged("it can't be read") from error

    def _heard_of(self, who: str, calls: Mapping[str, Calls]) -> Learned:
        others = {name: theirs for name, theirs in self.calls.items() if name != who}
        found = Learned(self.lessons, {**others, who: calls})
        while len(found.calls) > MAX_PRINCIPALS:
            found = found._without(next(iter(found.calls)))
        return found

    def _without(self, who: str) -> Learned:
        calls = {name: theirs for name, theirs in self.calls.items() if name != who}
        return Learned(self.lessons.without_principal(who), calls)


class LearnedFile:
    """The file of one state folder; any number of processes and threads may use it.

    Only `clear` raises an error if something is wrong with the file.
    """

    def __init__(self, home: Path, *, now: Callable[[], float] = time.time) -> None:
        """Open nothing yet."""
        self.path = home / FILE_NAME
        self._lock_path = home / "run" / "learned.lock"
        self._now = now
        self._read: tuple[tuple[int, int, int], Learned] | None = None

    def examples(self, who: str) -> Mapping[str, tuple[str, ...]]:
        """Return a principal's requests by tool."""
        return self._known().lessons.examples(who, now=self._now())

    def usage(self, who: str) -> Mapping[str, int]:
        """Return how often a principal called each tool."""
        now = self._now()
        return {tool: one.count for tool, one in self._known().calls.get(who, {}).items() if now - one.at <= MAX_AGE_S}

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """Add lessons."""

        def add(known: Learned) -> Learned:
            for lesson in lessons:
                known = known.taught(lesson, self._now())
            return known

        self._change(add)

    def count(self, who: str, tool: str) -> None:
        """Count a call that succeeded."""
        self._change(lambda known: known.counted(who, tool, self._now()))

    def forget_tools(self, tools: Sequence[str]) -> None:
        """Forget tools that were removed."""
        if self.path.exists():
            self._change(lambda known: known.without_tools(tools))

    def clear(self) -> bool:
        """Forget everything about all principals; false if there was nothing.

        Raises:
            OSError: the file can't be deleted. Only this method raises it, because a person has asked for the deletion.
        """
        with self._locked():
            self._read = None
            try:
                self.path.unlink()
            except FileNotFoundError:
                return False
            return True

    def _change(self, how: Callable[[Learned], Learned]) -> None:
        try:
            with self._locked():
                self._write(how(self._known()).aged(self._now()).encode())
        except OSError as error:
            _log.warning("what was learned can't be kept in %s: %s", self.path, error.strerror or error)

    def _known(self) -> Learned:
        """Return the content of the file; a file that can't be used counts as absent."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return Learned()
        except OSError as error:
            _log.warning("what was learned can't be read from %s: %s", self.path, error.strerror)
            return Learned()
        try:
            facts = os.fstat(descriptor)
            seen = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
            known = self._read
            if known is None or known[0] != seen:
                known = self._read = seen, self._decoded(descriptor, facts)
            return known[1]
        finally:
            os.close(descriptor)

    def _decoded(self, descriptor: int, facts: os.stat_result) -> Learned:
        try:
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_FILE_BYTES:
                raise LessonsDamaged(f"it is no file of at most {MAX_FILE_BYTES} bytes")
            with open(descriptor, "rb", closefd=False) as file:
                return Learned.decode(file.read(MAX_FILE_BYTES))
        except (LessonsDamaged, OSError) as error:
            _log.warning("%s is damaged, and nothing of it is used: %s", self.path, error)
            return Learned()

    def _write(self, data: bytes) -> None:
        making = self.path.with_name(f".{FILE_NAME}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(data)
            making.replace(self.path)
        except OSError:
            with suppress(OSError):
                making.unlink()
            raise

    @contextmanager
    def _locked(self) -> Iterator[Any]:
        self._lock_path.parent.mkdir(mode=0o700, exist_ok=True)
        # Locks belong to the opened file, so threads of one process keep each other out as well (`man 2 flock`).
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)
