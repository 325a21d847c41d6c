"""Print data to stdout and messages to stderr, so that untrusted text can't control the terminal.

Every command loads this module, so slow modules are imported where they are used: `rich`, which draws tables and
spinners, and `silo_interaction`, which loads asyncio. Each takes longer to load than a warm call.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TextIO

from silo.errors import SkillFailed, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

UNTERMINATED_WIDTH = 160
"""The width of a table in a pipe or a file, unless `COLUMNS` is set: wide, for `grep`, but not unlimited."""

LOG_LINES = 100
"""How many lines of a skill's output are shown, from the end; `--json` has all of the output that was kept."""


class StdoutClosed(Exception):
    """The reader of stdout has closed it (`silo list | head -1`), so there is nothing left to do."""


# --- stdout: the data that was asked for ------------------------------------------------------------------------------


def emit(text: str) -> None:
    """Write lines to stdout. On a terminal, invisible characters are spelt out.

    Raises:
        StdoutClosed: nobody reads any more.
        UsageError: stdout can't be written, e.g. because the disk is full.
    """
    if not text:
        return
    _write(_visible(text, sys.stdout) + ("" if text.endswith("\n") else "\n"))


def emit_bytes(data: bytes) -> None:
    """Write bytes to stdout as they are.

    Raises:
        StdoutClosed, UsageError: as `emit`.
    """
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise StdoutClosed from None
    except OSError as error:
        raise _unwritable(error) from error


def emit_json(document: Mapping[str, Any]) -> None:
    """Write one JSON document to stdout: sorted keys, two spaces, and no character that could move the cursor.

    Raises:
        StdoutClosed: nobody reads any more.
    """
    emit_json_value(document)


def emit_json_value(value: Any) -> None:  # noqa: ANN401 - a JSON value
    """Write any JSON value, as `emit_json` does."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    if not text.isascii() or "\x7f" in text:
        text = _NOT_PLAIN.sub(_escape, text)
    _write(text + "\n")


_NOT_PLAIN = re.compile(r"[^\x20-\x7e\n]")


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    return character if character.isprintable() else json.dumps(character)[1:-1].replace("\x7f", "\\u007f")


def emit_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stdout, without lines, as wide as the terminal. Long cells of the last column wrap.

    Raises:
        StdoutClosed: nobody reads any more.
    """
    _write(_table(columns, rows, sys.stdout))


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise StdoutClosed from None
    except OSError as error:
        raise _unwritable(error) from error


class WatchedStdout(io.TextIOWrapper):
    """A stdout that remembers its error for `stdout_failure`, because the parser writes to it, too (it prints help)."""

    failure: OSError | None = None

    def write(self, text: str, /) -> int:
        """As in `TextIOWrapper`."""
        try:
            return super().write(text)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        """As in `TextIOWrapper`."""
        try:
            super().flush()
        except OSError as error:
            self.failure = error
            raise


def watch_stdout() -> None:
    """Replace the process's stdout with a `WatchedStdout`."""
    old = sys.stdout
    if isinstance(old, io.TextIOWrapper):
        encoding, errors, by_line, at_once = old.encoding, old.errors, old.line_buffering, old.write_through
        sys.stdout = WatchedStdout(
            old.detach(), encoding=encoding, errors=errors, line_buffering=by_line, write_through=at_once
        )


def stdout_failure(error: BaseException) -> UsageError | None:
    """Return the error to report if stdout raised this one, or None if it came from elsewhere."""
    if isinstance(error, OSError) and error is getattr(sys.stdout, "failure", None):
        return _unwritable(error)
    return None


def _unwritable(error: OSError) -> UsageError:
    abandon_stdout()
    return UsageError(
        f"can't write to standard output: {error.strerror}", hint="make room, or send the output elsewhere"
    )


def abandon_stdout() -> None:
    """Point stdout to `/dev/null`, so that Python does not fail when it flushes the rest at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


# --- stderr: messages -------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Write lines for a person to stderr."""
    print(_visible(text, sys.stderr), file=sys.stderr, flush=True)


def say_error(message: str, code: str, hint: str) -> None:
    """Write an error and its hint in silo's form, one line each."""
    for label, text in (("error", f"{message} [{code}]"), ("hint", hint)):
        if text:
            print(f"silo: {label}: {_one_line(text)}", file=sys.stderr, flush=True)


def say_logs(who: str, stdout: str, stderr: str) -> None:
    """Show what a skill printed. Each line starts with a bar, so that none looks like a message of silo."""
    for name, text in (("stdout", stdout), ("stderr", stderr)):
        if text:
            _say_quoted(f"{who} on its {name}", text)


def say_failure(error: SkillFailed) -> None:
    """Show the output and the traceback of a failed skill."""
    say_logs("the skill", error.stdout, error.stderr)
    if error.traceback:
        _say_quoted("traceback", error.traceback)


def _say_quoted(title: str, text: str) -> None:
    lines = text.rstrip("\n").split("\n")
    left_out = max(0, len(lines) - LOG_LINES)
    say(f"{title}{f' (the last {LOG_LINES} of {len(lines)} lines)' if left_out else ''}:")
    for line in lines[left_out:]:
        say(f"  | {line}")


def say_timing(timing: Mapping[str, float]) -> None:
    """Show how long each phase took, in order."""
    width = max(map(len, timing), default=0)
    for phase, seconds in timing.items():
        say(f"{phase:<{width}}  {seconds * 1000:9.1f} ms")


# --- layout -----------------------------------------------------------------------------------------------------------


def is_dumb(stream: TextIO) -> bool:
    """Whether the stream takes only plain text: it isn't a terminal, or is one that can't move its cursor."""
    return not stream.isatty() or os.environ.get("TERM", "") in {"", "dumb", "unknown"}


def _visible(text: str, stream: TextIO) -> str:
    """Return the text unchanged for a pipe. For a terminal, invisible characters other than tabs are spelt out."""
    if not stream.isatty() or (text.isascii() and text.replace("\n", "").replace("\t", "").isprintable()):
        return text
    from silo_interaction.visible import visible

    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


def _one_line(text: str) -> str:
    from silo_interaction.visible import visible

    return visible(text.strip().replace("\n", " "))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO) -> str:
    from rich.table import Table
    from rich.text import Text

    style = "" if os.environ.get("NO_COLOR") else "bold"
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=style)
    for column in columns:
        # Only the last column wraps. The others are names, which a person must be able to copy whole.
        is_last = column == columns[-1]
        table.add_column(column, no_wrap=not is_last, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_one_line(cell)) for cell in row))
    console = _console(stream)
    with console.capture() as captured:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _plain(text: str) -> Text:
    """Return text in which rich finds no markup. It would look for markup in a plain string."""
    from rich.text import Text

    return Text(text)


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    width = None if stream.isatty() or "COLUMNS" in os.environ else UNTERMINATED_WIDTH
    # rich itself honours `NO_COLOR` and `TERM=dumb`. Markup in untrusted text must have no effect.
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


# --- long steps -------------------------------------------------------------------------------------------------------

_QUIET_S = 0.4
_LINE_S = 1.0
"""Seconds until a step is shown: as a spinner on a terminal, elsewhere as a line. Faster steps are not shown."""


class Steps:
    """Shows progress on stderr while the context is open.

    A terminal shows one line with a spinner, which disappears at the end. Elsewhere, each step that takes longer than a
    second gets a line. `step` may be called from any thread.
    """

    def __init__(self, *, quiet_s: float = _QUIET_S, line_s: float = _LINE_S) -> None:
        """Show a step after `quiet_s` seconds by a spinner, or after `line_s` by a line where there is no terminal."""
        self._is_live = not is_dumb(sys.stderr)
        self._delay_s = quiet_s if self._is_live else line_s
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._status: Status | None = None
        self._text = ""
        self._is_paused = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop()

    def step(self, text: str) -> None:
        """Begin a step; the one before is over."""
        with self._lock:
            self._text = _one_line(text)
            if self._status is not None:
                self._status.update(_plain(self._text))
                return
            self._cancel_timer()
            if not self._is_paused:
                self._timer = threading.Timer(self._delay_s, self._show, (self._text,))
                self._timer.daemon = True
                self._timer.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Show nothing while something else uses the terminal."""
        with self._lock:
            self._is_paused = True
            self._stop()
        try:
            yield
        finally:
            with self._lock:
                self._is_paused = False
                if self._text:
                    self.step(self._text)

    def _show(self, text: str) -> None:
        with self._lock:
            if self._timer is None or text != self._text:
                return  # the step has ended meanwhile
            if self._is_live:
                self._status = self._spinner(text)
            else:
                say(f"silo: {text} ...")

    def _spinner(self, text: str) -> Status:
        status = _console(sys.stderr).status(_plain(text))
        status.start()
        return status

    def _stop(self) -> None:
        with self._lock:
            self._cancel_timer()
            if self._status is not None:
                self._status.stop()
                self._status = None

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
