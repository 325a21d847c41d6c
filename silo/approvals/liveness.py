"""Which processes ask, and at which address: each holds a lock as long as it lives (`man 2 flock`).

`silo.approvals.store` holds their questions.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

_PREFIX = "asking-"
_NAME = re.compile(r"[0-9a-f]{16}")
_ADDRESS = re.compile(r"http://127\.0\.0\.1:[0-9]{1,5}")
_MAX_ADDRESS_BYTES = 64
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LivenessLock:
    """Shows other processes that this one lives, by a lock on `run/asking-NAME` under the state folder."""

    def __init__(self, home: Path) -> None:
        """Take the lock, under a new random name.

        Raises:
            OSError: the file can't be made or locked.
        """
        folder = home / "run"
        folder.mkdir(mode=0o700, exist_ok=True)
        while True:
            self.name = secrets.token_hex(8)
            self._path = folder / f"{_PREFIX}{self.name}"
            self._descriptor = os.open(self._path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                if _locks(self._descriptor, fcntl.LOCK_EX) and _is_at(self._descriptor, self._path):
                    return
            except BaseException:
                os.close(self._descriptor)
                raise
            os.close(self._descriptor)  # another process deleted the file before it was locked

    def publish(self, address: str) -> None:
        """Let all processes know where this one serves its page."""
        data = address.encode()[:_MAX_ADDRESS_BYTES]
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)

    def release(self) -> None:
        """Release the lock: from now on, other processes take this one for gone."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        # `close` alone is not enough: a child between fork and exec has the descriptor too, and would keep the lock.
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


def is_alive(home: Path, name: str) -> bool:
    """Whether the process that took this name lives.

    Raises:
        OSError: the lock file can't be checked.
    """
    if not _NAME.fullmatch(name):
        return False
    try:
        descriptor = os.open(home / "run" / f"{_PREFIX}{name}", _FLAGS)
    except FileNotFoundError:
        return False
    try:
        # A shared lock: two processes that check at once must not take each other for the process that asks.
        return not _locks(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def page_addresses(home: Path) -> tuple[str, ...]:
    """Return where living processes serve their pages, sorted.

    Lock files with other content are left out, because another program may have written them.
    """
    found = set()
    for path in (home / "run").glob(f"{_PREFIX}*"):
        with suppress(OSError, UnicodeDecodeError):
            if is_alive(home, path.name.removeprefix(_PREFIX)):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    text = os.read(descriptor, _MAX_ADDRESS_BYTES).decode()
                finally:
                    os.close(descriptor)
                if _ADDRESS.fullmatch(text):
                    found.add(text)
    return tuple(sorted(found))


def remove_stale(home: Path) -> None:
    """Delete the lock files of processes that are gone. A file that can't be deleted does no harm.

    A process that makes a lock file meanwhile may lose it before it is locked; `LivenessLock` notices, and makes
    another one.
    """
    for path in (home / "run").glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if not is_alive(home, path.name.removeprefix(_PREFIX)):
                path.unlink()


def _locks(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
