"""What a tool can use in its call: its secrets and `report_progress`. The host decides which secrets a call gets.

A process serves one call, so the call is kept per process. A `ContextVar` would be tidier, but a thread that a skill
starts has an empty context, and `require_secret` must work there too.

`import silo` loads this module, so slow modules are imported where they are used: `silo.sdk.cuts` (json, html, base64).
A guest has loaded it by then, with `silo.sdk.invoke`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from silo.sdk.errors import SecretUnavailable

Emit = Callable[[float, float | None, str | None], None]
"""Receives each report of progress: how far, of how much, and a text. Called from any thread, one at a time."""

MAX_MESSAGE_CHARS: Final = 1000
"""The limit of `silo.wire.messages.Progress`."""


class _CallSlot:
    """Holds the one call that runs in this process, or none."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: `__str__` of a message may report progress itself
        self._secrets: Mapping[str, str] | None = None
        self._emit: Emit | None = None

    def open(self, secrets: Mapping[str, str], emit: Emit | None) -> None:
        with self._lock:
            if self._secrets is not None:
                raise RuntimeError("a call is already running in this process; silo runs each in a process of its own")
            self._secrets, self._emit = secrets, emit

    def close(self) -> None:
        """Forget the call. Waits for a running report, so that none follows the result."""
        with self._lock:
            self._secrets = self._emit = None

    @property
    def secrets(self) -> Mapping[str, str] | None:
        return self._secrets

    def report(self, progress: float, total: float | None, message: str | None) -> None:
        with self._lock:
            if self._emit is not None:
                self._emit(progress, total, message)


_slot: Final = _CallSlot()


@contextmanager
def open_call(*, secrets: Mapping[str, str], emit: Emit | None = None) -> Iterator[None]:
    """Let `require_secret` and `report_progress` serve one call, for `silo.sdk.invoke` and an author's unit tests.

    Raises:
        RuntimeError: a call is already open in this process.
    """
    _slot.open(secrets, emit)
    try:
        yield
    finally:
        _slot.close()


def require_secret(name: str) -> str:
    """Return a secret that the skill's header declares. Call it where the value is needed; do not keep it in a global.

    Works inside a tool, from any of its threads.

    Raises:
        SecretUnavailable: the header does not declare `name`, or no tool is running; or the value is not text, and
            `require_secret_bytes` returns it.
    """
    value = _require(name)
    # Bytes that are not UTF-8 arrive as lone surrogates (PEP 383).
    if "\0" in value or any("\udc80" <= character <= "\udcff" for character in value):
        raise SecretUnavailable(f"the secret {name!r} is binary; call require_secret_bytes for it")
    return value


def require_secret_bytes(name: str) -> bytes:
    """As `require_secret`, for a value that may be binary, e.g. a key store; text comes in UTF-8.

    Raises:
        SecretUnavailable: the header does not declare `name`, or no tool is running.
    """
    return _require(name).encode(errors="surrogateescape")


def _require(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"require_secret takes the name of a secret, not {type(name).__name__}")
    secrets = _slot.secrets
    if secrets is None:
        raise SecretUnavailable(
            f"the secret {name!r} was asked for outside of a tool: secrets exist only while a tool runs, "
            "not at import and not in a warmup; call require_secret inside the tool"
        )
    try:
        return secrets[name]
    except KeyError:
        raise SecretUnavailable(
            f"the secret {name!r} is not declared for this tool; "
            f"add [tool.silo.secrets.{name}] to the header of the script (and to `secrets=` of the tool, if it has one)"
        ) from None


def cut(text: str, limit: int, *, mark: str = "") -> str:
    """Return the beginning of a text; if it is cut, the secrets of the running call are replaced in it first."""
    from silo.sdk.cuts import shortened

    return shortened(text, limit, _slot.secrets or {}, mark=mark)


def report_progress(progress: float, total: float | None = None, message: str | None = None) -> None:
    """Report to the caller how far the tool is, e.g. `report_progress(3, 10, "page 3")`.

    Outside of a call, as in a unit test, it does nothing. Report as often as you like: after the first 100, silo sends
    at most 50 a second, and the last one always.

    Args:
        progress: grows with each report; in units of your choice.
        total: what `progress` will be at the end, if known.
        message: one line; cut at 1,000 characters.

    Raises:
        ValueError: NaN or infinity.
        TypeError: not a number.
    """
    for number in (progress, total):
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise TypeError(f"progress is a number, not {type(number).__name__}")
        # The wire could carry an integer beyond the range of a float, but no reader expects one.
        if not (abs(number) < 2**53 if isinstance(number, int) else math.isfinite(number)):
            raise ValueError(f"progress must be a finite number, not {number}")
    text = None if message is None else cut(str(message).encode(errors="replace").decode(), MAX_MESSAGE_CHARS)
    _slot.report(progress, total, text)
