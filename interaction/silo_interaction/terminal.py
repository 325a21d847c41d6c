"""Ask at the terminal that this process runs in. `silo_interaction.visible` decides how hostile text is shown.

A terminal counts as a person's only if standard input and standard error are both the controlling terminal of this
process, and the process is in its foreground: no piped input, no background job, no daemon. A program that starts this
one under its own pseudo-terminal can still answer instead of a person. Only a channel that such a program doesn't
control prevents that.
"""

from __future__ import annotations

import asyncio
import json
import os
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from silo_interaction.errors import NoAnswer, NobodyToAsk
from silo_interaction.question import Answer, Question
from silo_interaction.visible import visible, visible_lines, wrap

PROMPT = "Say yes to this? [y/N] "
GRACE_PROMPT = "Say yes to this? [y/N/g] "
SECRET_PROMPT = "Type it in; nothing is shown (empty means no): "  # noqa: S105 - a prompt, not a secret
KEEP_PROMPT = "Keep it there? [y/N] "

_INTERRUPT = b"\x03"
_MAX_LINE_BYTES = 4096  # what a terminal in line mode gives at once, man 3 termios
_MIN_COLUMNS, _DEFAULT_COLUMNS = 40, 80
_INPUT_FLAGS, _OUTPUT_FLAGS, _LOCAL_FLAGS, _CONTROL_CHARACTERS = 0, 1, 3, 6  # places in the list of `termios.tcgetattr`


class TerminalChannel:
    """Asks on the controlling terminal, one question at a time. Needs an asyncio loop; starts no thread.

    Only `y` and `yes` mean yes, and `g` if the question offers a grace period. An empty line, any other text, Ctrl-C
    and the end of input mean no; Ctrl-C also sets `Answer.interrupted`. `n some words` is a no with a reason. What was
    typed before the question was shown doesn't count. A secret isn't shown while it is typed; an empty one means no.
    """

    def __init__(self, *, input_fd: int = 0, message_fd: int = 2) -> None:
        """Take the two descriptors that must be the controlling terminal for a person to be there."""
        self._input_fd = input_fd
        self._message_fd = message_fd
        self._turn = asyncio.Lock()

    async def ask(self, question: Question, *, timeout_s: float) -> Answer:
        """As `Channel.ask`."""
        self._require_person()
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                self._require_person()  # the process may have gone to the background while it waited for its turn
                with _open_terminal() as terminal:
                    columns = max(_MIN_COLUMNS, _terminal_columns(terminal))
                    await _write(terminal, render(question, columns))
                    if question.wanted is not None:
                        return await _read_secret(terminal, keeper=question.wanted.keeper)
                    return _parse_answer(await _prompt(terminal, _prompt_text(question)), question.grace_s)
        except TimeoutError:
            raise NoAnswer(
                f"nobody answered within {timeout_s:g} s", hint="call again, and answer the question at the terminal"
            ) from None

    def _require_person(self) -> None:
        require_person((self._input_fd, "standard input"), (self._message_fd, "standard error"))


def require_person(*streams: tuple[int, str]) -> None:
    """Check that each of these descriptors is the controlling terminal of this process, which is in its foreground.

    Args:
        streams: a descriptor and what it is called, e.g. `(1, "standard output")`.

    Raises:
        NobodyToAsk: one of them goes elsewhere, or this process is in the background.
    """
    for descriptor, name in streams:
        try:
            foreground = os.tcgetpgrp(descriptor)  # also fails for a terminal that is not the controlling one
        except OSError:
            names = " and ".join(name for _, name in streams)
            raise NobodyToAsk(
                f"there is nobody to ask: {name} is not this session's terminal",
                hint=f"run it in a terminal, with {names} not redirected",
            ) from None
        if foreground != os.getpgrp():
            raise NobodyToAsk(
                "there is nobody to ask: this runs in the background of its terminal",
                hint="bring it to the foreground with `fg`, and call again",
            )


def render(question: Question, columns: int) -> str:
    """Return the whole question as lines of at most `columns` columns, without the prompt. Pure.

    Every line of untrusted text starts with a bar, so that no text looks like a label or the prompt.
    """
    lines = ["", *_block("Question", question.title, columns), *_block("From", question.who, columns)]
    if question.changes:  # `visible` spells out a line break in a change, so that one change can't look like two
        lines += _block("Changed since the last yes", "\n".join(map(visible, question.changes)), columns)
    for label, text in question.facts:
        lines += _block(visible(label), text, columns)
    for name, value in question.arguments:
        lines += _block(f"argument {visible(name)}", json.dumps(value, ensure_ascii=False, indent=2), columns)
    if question.danger:
        lines += _block("Danger", question.danger, columns)
    if question.wanted is not None:
        lines += _block("Secret to type in", question.wanted.name, columns)
        if question.wanted.description:
            lines += _block("Described as", question.wanted.description, columns)
        if question.wanted.keeper:
            lines += _block("Where it can be kept", question.wanted.keeper, columns)
    return "\n".join(lines) + "\n"


def _prompt_text(question: Question) -> str:
    if not question.grace_s:
        return PROMPT
    return f"g: yes, and yes to the same for {duration(question.grace_s)}\n{GRACE_PROMPT}"


def duration(seconds: int) -> str:
    """Return a length of time in words, e.g. `10 minutes`."""
    count, unit = (seconds, "second") if seconds % 60 else (seconds // 60, "minute")
    return f"{count} {unit}{'' if count == 1 else 's'}"


def _block(label: str, text: str, columns: int) -> list[str]:
    bar = "  | "
    shown = [piece for line in visible_lines(text) for piece in wrap(line, columns - len(bar) - 1)]
    # A long label is wrapped, too, and its further lines are indented: only a block's first line starts at the edge.
    first, *rest = wrap(f"{label}:", columns - len(bar) - 1)
    return [first, *(bar + piece for piece in rest), *(bar + piece for piece in shown)]


def _parse_answer(line: bytes, grace_s: int) -> Answer:
    if (ended := _closed_or_interrupted(line)) is not None:
        return ended
    said, _, words = line.decode("utf-8", "replace").strip().partition(" ")
    said, is_whole = said.lower(), line.endswith(b"\n")
    if is_whole and not words and said in {"y", "yes"}:
        return Answer(approved=True, reason="approved at the terminal")
    if is_whole and not words and said == "g" and grace_s:
        return Answer(approved=True, reason=f"approved at the terminal for {duration(grace_s)}", grace=True)
    why = f": {visible(words.strip())}" if is_whole and words and said in {"n", "no"} else ""
    return Answer(approved=False, reason=f"declined at the terminal{why}")


def _closed_or_interrupted(line: bytes) -> Answer | None:
    """Return the answer if the terminal was closed or Ctrl-C was pressed, else None."""
    if not line:
        return Answer(approved=False, reason="the terminal was closed")
    if line.endswith(_INTERRUPT):
        return Answer(approved=False, reason="interrupted at the terminal", interrupted=True)
    return None


async def _read_secret(terminal: int, *, keeper: str) -> Answer:
    _set_echo(terminal, False)
    line = await _prompt(terminal, SECRET_PROMPT)
    _set_echo(terminal, True)
    if (ended := _closed_or_interrupted(line)) is not None:
        return ended
    try:
        value = line.removesuffix(b"\n").decode()
    except UnicodeDecodeError:
        return Answer(approved=False, reason="what was typed at the terminal is not UTF-8")
    if not value or not line.endswith(b"\n"):
        return Answer(approved=False, reason="declined at the terminal")
    if len(line) >= _MAX_LINE_BYTES:  # the terminal dropped the rest, and a part of a secret is useless
        return Answer(approved=False, reason="what was typed at the terminal is too long for a line")
    keep = False
    if keeper:
        kept = _parse_answer(await _prompt(terminal, KEEP_PROMPT), 0)
        if kept.interrupted:
            return kept
        keep = kept.approved
    return Answer(approved=True, reason="typed in at the terminal", value=value, keep=keep)


def _terminal_columns(terminal: int) -> int:
    try:
        return os.get_terminal_size(terminal).columns or _DEFAULT_COLUMNS
    except OSError:
        return _DEFAULT_COLUMNS


@contextmanager
def _open_terminal() -> Iterator[int]:
    """Open the controlling terminal for reading lines; in the end restore its settings and discard half-typed input."""
    # Opened anew, because O_NONBLOCK on descriptor 0 would also affect the shell's standard input.
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise NobodyToAsk(
            f"there is nobody to ask: the terminal can't be opened ({error.strerror})",
            hint="run it in another terminal",
        ) from error
    try:
        before = termios.tcgetattr(terminal)
        # TCSANOW everywhere: the other modes wait until the output is written, and Ctrl-S may have stopped it.
        try:
            termios.tcsetattr(terminal, termios.TCSANOW, _line_mode(terminal))
            yield terminal
        finally:
            termios.tcsetattr(terminal, termios.TCSANOW, before)
            termios.tcflush(terminal, termios.TCIFLUSH)
    finally:
        os.close(terminal)


def _line_mode(terminal: int) -> list[Any]:
    """Return the terminal's settings, changed so that it gives whole lines, and Ctrl-C ends a line.

    Ctrl-C sends no signal, which would end the program in the middle of a question; the caller gets
    `Answer.interrupted` instead. This works in any thread and leaves the program's signal handlers alone.
    """
    settings = termios.tcgetattr(terminal)
    settings[_INPUT_FLAGS] = settings[_INPUT_FLAGS] & ~(termios.IGNCR | termios.INLCR) | termios.ICRNL
    settings[_OUTPUT_FLAGS] |= termios.OPOST | termios.ONLCR
    settings[_LOCAL_FLAGS] |= termios.ICANON | termios.ECHO | termios.ISIG
    characters = settings[_CONTROL_CHARACTERS]
    characters[termios.VINTR] = bytes([os.fpathconf(terminal, "PC_VDISABLE")])
    characters[termios.VEOL] = _INTERRUPT
    return settings


def _set_echo(terminal: int, is_on: bool) -> None:
    settings = termios.tcgetattr(terminal)
    flags = settings[_LOCAL_FLAGS] & ~(termios.ECHO | termios.ECHONL)
    settings[_LOCAL_FLAGS] = flags | (termios.ECHO if is_on else termios.ECHONL)  # Enter starts a new line, either way
    termios.tcsetattr(terminal, termios.TCSANOW, settings)


async def _prompt(terminal: int, prompt: str) -> bytes:
    termios.tcflush(terminal, termios.TCIFLUSH)  # input typed before the prompt doesn't answer it
    await _write(terminal, prompt)
    return await _read_line(terminal)


async def _write(terminal: int, text: str) -> None:
    rest = memoryview(text.encode("utf-8", "backslashreplace"))
    while rest:
        try:
            rest = rest[os.write(terminal, rest) :]
        except BlockingIOError:  # slow, or stopped with Ctrl-S
            loop = asyncio.get_running_loop()
            await _wait_until_ready(terminal, loop.add_writer, loop.remove_writer)


async def _read_line(terminal: int) -> bytes:
    line = b""
    try:
        while True:
            try:
                line = os.read(terminal, _MAX_LINE_BYTES)  # empty after Ctrl-D
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _wait_until_ready(terminal, loop.add_reader, loop.remove_reader)
            except OSError:  # EIO: hung up
                return b""
            else:
                return line
    finally:
        if not line.endswith(b"\n"):  # without Enter, the next output would start on the prompt's line
            with suppress(OSError):
                os.write(terminal, b"\n")


async def _wait_until_ready(
    terminal: int, watch: Callable[[int, Callable[[], None]], None], forget: Callable[[int], bool]
) -> None:
    ready = asyncio.Event()
    watch(terminal, ready.set)
    try:
        await ready.wait()
    finally:
        forget(terminal)
