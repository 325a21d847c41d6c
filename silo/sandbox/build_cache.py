"""Things that any number of processes build once under one folder: the common part of images and templates.

    NAME/              a complete thing: it got its name by a rename
    .lock-NAME         flock: one process builds the thing or deletes it, others wait
    .building-NAME-*/  being built by the process that holds the lock, or left by a process that was killed
    .gone-NAME-*/      being deleted, or left by a process that was killed

silo never guesses from a time or a process id whether a process lives: the kernel drops its locks when it ends, however
it ends. `silo.sandbox.image` and `silo.sandbox.backends.microvm.template` decide what is built and what is still
needed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio

_LOCK: Final = ".lock-"
_BUILDING: Final = ".building-"
_GONE: Final = ".gone-"

_LOCK_POLL_S: Final = 0.05
# A blocking flock can't be interrupted at once by Ctrl-C, so it is polled. Builds take seconds.


class BuildCache:
    """The things under one folder; the folder is made at first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Return the names of all things, including damaged ones."""
        return [name for name in self._entries() if not name.startswith(".")]

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock of a thing, so that no other process builds it. Blocks; for worker threads."""
        with self._lock(name, waits=True):
            yield

    @asynccontextmanager
    async def wait_locked(self, name: str) -> AsyncIterator[None]:
        """As `locked`, for an event loop; a cancelled wait leaves no lock behind."""
        while True:
            with self.try_locked(name) as is_held:
                if is_held:
                    yield
                    return
            await anyio.sleep(_LOCK_POLL_S)

    @contextmanager
    def try_locked(self, name: str) -> Iterator[bool]:
        """As `locked`, but yield False at once if another process builds or deletes the thing."""
        with self._lock(name, waits=False) as is_held:
            yield is_held

    def building(self, name: str) -> Path:
        """Make a folder to build a thing in. The caller must hold the lock, or others may delete the folder."""
        return Path(tempfile.mkdtemp(prefix=f"{_BUILDING}{name}-", dir=self.folder))

    def discard(self, name: str) -> bool:
        """Delete a thing; False if it is gone already, or another process builds or deletes it."""
        with self.try_locked(name) as is_held:
            if not is_held:
                return False
            # Renamed first, so that a thing is either complete or absent.
            doomed = self.folder / f"{_GONE}{name}-{secrets.token_hex(4)}"
            try:
                (self.folder / name).rename(doomed)
            except FileNotFoundError:
                return False
            finally:
                self._forget_lock(name)
            _delete(doomed)
        return True

    def sweep(self) -> None:
        """Delete what killed processes left behind, and locks of things that don't exist."""
        names = set()
        for entry in self._entries():
            if entry.startswith(_GONE):
                _delete(self.folder / entry)
            elif entry.startswith(_LOCK):
                names.add(entry.removeprefix(_LOCK))
            elif entry.startswith(_BUILDING):
                names.add(entry.removeprefix(_BUILDING).rpartition("-")[0])
        for name in names:
            with self.try_locked(name) as is_held:
                if is_held:
                    for building in self.folder.glob(f"{_BUILDING}{name}-*"):
                        _delete(building)
                    if not (self.folder / name).exists():
                        self._forget_lock(name)

    def _entries(self) -> list[str]:
        try:
            return [entry.name for entry in self.folder.iterdir()]
        except FileNotFoundError:
            return []

    @contextmanager
    def _lock(self, name: str, *, waits: bool) -> Iterator[bool]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{_LOCK}{name}"
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                is_held = _take(descriptor, waits=waits)
                # If the file was deleted meanwhile (`_forget_lock`), other processes would lock a new one: try again.
                if not is_held or _is_at(path, descriptor):
                    yield is_held
                    return
            finally:
                # `close` is not enough: a child between fork and exec has the descriptor too, and would keep the lock.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)

    def _forget_lock(self, name: str) -> None:
        """Delete the file of a lock that is held."""
        (self.folder / f"{_LOCK}{name}").unlink(missing_ok=True)


def _take(descriptor: int, *, waits: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
