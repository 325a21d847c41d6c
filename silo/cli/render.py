"""Print: data on stdout, talk on stderr, and nothing that a stranger's text could do to a terminal. What to print is the commands'.

`rich` draws tables and spinners; it is imported when one is drawn, because it takes longer to load than a warm call.
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
"""Columns of a table that goes into a pipe or a file, when `COLUMNS` does not say: wide, for `grep`, yet not endless."""

LOG_LINES = 100
"""How much of what a skill printed is shown, from the end; `--json` has all that was kept."""


class StdoutClosed(Exception):
    """Who read stdout stopped reading (`silo list | head -1`), so there is nobody left to print for."""


# --- stdout: the data that was asked for --------------------------------------------------------------------------------


def emit(text: str) -> None:
    """Write lines to stdout; on a terminal, characters that are not to be seen are spelt out.

    Raises:
        StdoutClosed: nobody reads any more.
        UsageError: what it goes to can't be written, e.g. the disk is full.
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
    """Write one JSON document to stdout: sorted keys, two spaces, and no character that could move a cursor.

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
    """Write a table to stdout, without rules, as wide as the terminal; long cells of the last column wrap.

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
    """stdout that remembers how it failed, so that an error of it is known whoever wrote: the parser prints help by itself."""

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
    """Put a `WatchedStdout` in the place of the process's stdout."""
    old = sys.stdout
    if isinstance(old, io.TextIOWrapper):
        encoding, errors, by_line, at_once = old.encoding, old.errors, old.line_buffering, old.write_through
        sys.stdout = WatchedStdout(
            old.detach(), encoding=encoding, errors=errors, line_buffering=by_line, write_through=at_once
        )


def stdout_failure(error: BaseException) -> UsageError | None:
    """Return what to say if this error is stdout's; None if it came from elsewhere."""
    if isinstance(error, OSError) and error is getattr(sys.stdout, "failure", None):
        return _unwritable(error)
    return None


def _unwritable(error: OSError) -> UsageError:
    abandon_stdout()
    return UsageError(
        f"can't write to standard output: {error.strerror}", hint="make room, or send the output elsewhere"
    )


def abandon_stdout() -> None:
    """Point stdout to nowhere, so that Python does not complain when it flushes what is left at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


# --- stderr: talk -------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    """Write lines for a person to stderr."""
    print(_visible(text, sys.stderr), file=sys.stderr, flush=True)


def say_error(message: str, code: str, hint: str) -> None:
    """Write an error in silo's form (STYLE §9), one line each."""
    for label, text in (("error", f"{message} [{code}]"), ("hint", hint)):
        if text:
            print(f"silo: {label}: {_one_line(text)}", file=sys.stderr, flush=True)


def say_logs(who: str, stdout: str, stderr: str) -> None:
    """Show what a skill printed, each line behind a bar, so that none can pass for silo's own."""
    for name, text in (("stdout", stdout), ("stderr", stderr)):
        if text:
            _say_quoted(f"{who} on its {name}", text)


def say_failure(error: SkillFailed) -> None:
    """Show what a failed skill left behind: what it printed, and its traceback."""
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
    """Show where the time went, in the order in which it passed."""
    width = max(map(len, timing), default=0)
    for phase, seconds in timing.items():
        say(f"{phase:<{width}}  {seconds * 1000:9.1f} ms")


# --- how it looks -------------------------------------------------------------------------------------------------------


def is_dumb(stream: TextIO) -> bool:
    """Whether nothing but plain text may go there: no terminal, or one that can't move its cursor."""
    return not stream.isatty() or os.environ.get("TERM", "") in {"", "dumb", "unknown"}


def _visible(text: str, stream: TextIO) -> str:
    """Return the text as it may go to `stream`: as it is into a pipe, spelt out on a terminal (tabs aside)."""
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
        # Only the last column gives way; the others are names, which must stay whole to be copied.
        is_last = column == columns[-1]
        table.add_column(column, no_wrap=not is_last, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_one_line(cell)) for cell in row))
    console = _console(stream)
    with console.capture() as captured:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _plain(text: str) -> Text:
    """Return text in which rich finds no markup; a bare string given to a spinner would be searched for it."""
    from rich.text import Text

    return Text(text)


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    width = None if stream.isatty() or "COLUMNS" in os.environ else UNTERMINATED_WIDTH
    # `NO_COLOR` and `TERM=dumb` are rich's to heed, and it does; markup in a stranger's text must mean nothing.
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


# --- steps that take long -----------------------------------------------------------------------------------------------

_QUIET_S = 0.4
_LINE_S = 1.0
"""A step shows after so many seconds: a spinner on a terminal, elsewhere a line. What is faster is not worth a word."""


class Steps:
    """Shows on stderr what is going on, for as long as the context is open.

    On a terminal one line with a spinner, which goes away; elsewhere one line for each step that takes longer than a second.
    Steps may be told from any thread.
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
        """Say what begins now; the step before is over."""
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
        """Keep still while somebody else uses the terminal."""
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
                return  # over in the meantime
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
