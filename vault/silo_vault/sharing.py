"""One question at a time to something slow, a key server or a keyring: those who ask meanwhile share its answer.

A failure that took long is repeated from memory for as long as it took, so that a server that hangs costs one wait
instead of one for each caller. No lock is held while something slow is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from silo_vault.errors import AccessRefused, VaultError

MAX_BACKOFF_S: Final = 30.0

_SLOW_S: Final = 0.5
"""A failure that came faster costs nobody a wait, so it is asked for again."""

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Backoff:
    """The last failure of one thing, while it is repeated. Safe to use from several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take the monotonic clock, in seconds."""
        self._clock = clock
        self._until = 0.0
        self._error: VaultError | None = None

    def check(self) -> None:
        """Raise the last failure again, if it took so long that it isn't time for another attempt."""
        error = self._error
        if error is not None and self._clock() < self._until:
            raise copied(error)

    def failed(self, error: VaultError, *, took_s: float) -> None:
        """Note a failure. A refusal is never repeated from memory, because access may have been granted meanwhile."""
        is_slow = took_s > _SLOW_S and not isinstance(error, AccessRefused)
        self._error = copied(error) if is_slow else None
        self._until = self._clock() + min(took_s, MAX_BACKOFF_S)

    def clear(self) -> None:
        """Note a success, or forget the failure."""
        self._error = None


class SharedQuestions(Generic[K, T]):
    """Questions by key. Safe to use from several threads. No answer is kept after those who wait for it have it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Take the monotonic clock, in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[K, _Question[T]] = {}
        self._backoffs: dict[K, Backoff] = {}

    def ask(self, key: K, work: Callable[[], T]) -> T:
        """Return what `work` returns, here or in the thread that asks the same at this moment.

        Args:
            key: the same for the same question.
            work: asks; it may block.

        Raises:
            VaultError: what `work` raised; or what it raised before, for as long as that took, and for 30 s at most.
        """
        while True:
            with self._lock:
                backoff = self._backoffs.get(key)
                if backoff is not None:
                    backoff.check()
                question = self._open.get(key)
                if question is None:
                    mine = self._open[key] = _Question()
                    break
            question.done.wait()
            if isinstance(question.error, VaultError):
                raise copied(question.error)
            if question.error is None:
                return question.answer
            # Else the thread that asked was interrupted by Ctrl-C, which is no answer for this one: ask again.
        return self._asked(key, mine, work)

    def forget(self) -> None:
        """Forget failures, so that the next question is asked."""
        with self._lock:
            self._backoffs.clear()

    def _asked(self, key: K, question: _Question[T], work: Callable[[], T]) -> T:
        started = self._clock()
        try:
            question.answer = work()
        except BaseException as error:
            question.error = error
            raise
        finally:
            with self._lock:
                del self._open[key]
                self._backoffs.pop(key, None)
                if isinstance(question.error, VaultError):
                    backoff = self._backoffs[key] = Backoff(self._clock)
                    backoff.failed(question.error, took_s=self._clock() - started)
            question.done.set()
        return question.answer


class _Question(Generic[T]):
    """A question that a thread asks; `done` is set when there is an answer or an error."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.answer: T
        self.error: BaseException | None = None


def copied(error: VaultError) -> VaultError:
    """Return the error without its traceback, for another thread: raising one instance twice would mix their frames."""
    twin = type(error).__new__(type(error), *error.args)
    vars(twin).update(vars(error))
    return twin
