"""Ask at the terminal that this process runs in. How hostile text is shown: `silo_interaction.visible`.

It counts as a person's only if standard input and standard error are both the controlling terminal of this process, and the
process is in its foreground: nothing piped in, no job in the background, no daemon. A program that runs this one under a
pseudo-terminal of its own can still answer in its place; against that, only a channel helps that the program does not own.
"""

from __future__ import annotations

import asyncio
import os
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from silo_interaction.errors import NoAnswer, NobodyToAsk
from silo_interaction.question import Answer, Question
from silo_interaction.visible import visible, visible_lines, wrap

PROMPT = "Say yes to this? [y/N] "

_INTERRUPT = b"\x03"
_MAX_LINE_BYTES = 4096  # what a terminal in line mode gives at once, man 3 termios
_LEAST_COLUMNS, _USUAL_COLUMNS = 40, 80
_INPUT_FLAGS, _OUTPUT_FLAGS, _LOCAL_FLAGS, _CONTROL_CHARACTERS = 0, 1, 3, 6  # places in the list of `termios.tcgetattr`


class TerminalChannel:
    """Asks on the controlling terminal, one question at a time. Needs an asyncio loop; starts no thread.

    Only `y` and `yes` are a yes. An empty line, anything else, Ctrl-C and the end of input are a no; Ctrl-C says so as well, since
    it means more than this question. What was typed before the question was shown does not count.
    """

    def __init__(self, *, input_fd: int = 0, message_fd: int = 2) -> None:
        """Use these two descriptors to tell whether a person is there; both must be the controlling terminal."""
        self._input_fd = input_fd
        self._message_fd = message_fd
        self._turn = asyncio.Lock()

    async def ask(self, question: Question, *, timeout_s: float) -> Answer:
        """As `Channel.ask`."""
        self._require_person()
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                self._require_person()  # it may have gone to the background while it waited for its turn
                with _conversation() as terminal:
                    columns = max(_LEAST_COLUMNS, _terminal_columns(terminal))
                    await _write(terminal, render(question, columns))
                    termios.tcflush(terminal, termios.TCIFLUSH)  # what was typed ahead is no answer to this
                    await _write(terminal, PROMPT)
                    return _understand(await _read_line(terminal))
        except TimeoutError:
            raise NoAnswer(
                f"nobody answered within {timeout_s:g} s", hint="call again, and answer the question at the terminal"
            ) from None

    def _require_person(self) -> None:
        for descriptor, name in ((self._input_fd, "standard input"), (self._message_fd, "standard error")):
            try:
                foreground = os.tcgetpgrp(descriptor)  # fails for a terminal that is not the controlling one, too
            except OSError:
                raise NobodyToAsk(
                    f"there is nobody to ask: {name} is not this session's terminal",
                    hint="run it in a terminal, with standard input and standard error not redirected",
                ) from None
            if foreground != os.getpgrp():
                raise NobodyToAsk(
                    "there is nobody to ask: this runs in the background of its terminal",
                    hint="bring it to the foreground with `fg`, and call again",
                )


def render(question: Question, columns: int) -> str:
    """Return the whole question as text of at most `columns` columns a line, without the prompt. Pure.

    Every line that a stranger's text fills starts with a bar, so that no text can pass for a label or for the prompt.
    """
    lines = ["", *_block("Question", question.title, columns), *_block("From", question.who, columns)]
    for label, text in question.facts:
        lines += _block(visible(label), text, columns)
    if question.danger:
        lines += _block("Danger", question.danger, columns)
    return "\n".join(lines) + "\n"


def _block(label: str, text: str, columns: int) -> list[str]:
    bar = "  | "
    shown = [piece for line in visible_lines(text) for piece in wrap(line, columns - len(bar) - 1)]
    # A label is cut as well, and its rest is set in, so that only the first line of a block starts at the edge.
    first, *rest = wrap(f"{label}:", columns - len(bar) - 1)
    return [first, *(bar + piece for piece in rest), *(bar + piece for piece in shown)]


def _understand(line: bytes) -> Answer:
    if not line:
        return Answer(approved=False, reason="the terminal was closed")
    if line.endswith(_INTERRUPT):
        return Answer(approved=False, reason="interrupted at the terminal", interrupted=True)
    if line.endswith(b"\n") and line.strip().lower() in {b"y", b"yes"}:
        return Answer(approved=True, reason="approved at the terminal")
    return Answer(approved=False, reason="declined at the terminal")


def _terminal_columns(terminal: int) -> int:
    try:
        return os.get_terminal_size(terminal).columns or _USUAL_COLUMNS
    except OSError:
        return _USUAL_COLUMNS


@contextmanager
def _conversation() -> Iterator[int]:
    """Open the controlling terminal, set for reading a line; afterwards it is as before, and holds nothing half typed."""
    # A description of its own: not blocking here must not make the shell's standard input not block.
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise NobodyToAsk(
            f"there is nobody to ask: the terminal can't be opened ({error.strerror})",
            hint="run it in another terminal",
        ) from error
    try:
        before = termios.tcgetattr(terminal)
        # TCSANOW everywhere: the other modes wait for the output, which somebody may have stopped with Ctrl-S.
        try:
            termios.tcsetattr(terminal, termios.TCSANOW, _asking(terminal))
            yield terminal
        finally:
            termios.tcsetattr(terminal, termios.TCSANOW, before)
            termios.tcflush(terminal, termios.TCIFLUSH)
    finally:
        os.close(terminal)


def _asking(terminal: int) -> list[Any]:
    """Return the terminal's settings, changed so that it gives whole lines and Ctrl-C is a character that ends one.

    Not a signal that would end the program in the middle of a question: whoever asked is told (`Answer.interrupted`). This works
    in any thread, and leaves the program's own handling of signals alone.
    """
    settings = termios.tcgetattr(terminal)
    settings[_INPUT_FLAGS] = settings[_INPUT_FLAGS] & ~(termios.IGNCR | termios.INLCR) | termios.ICRNL
    settings[_OUTPUT_FLAGS] |= termios.OPOST | termios.ONLCR
    settings[_LOCAL_FLAGS] |= termios.ICANON | termios.ECHO | termios.ISIG
    characters = settings[_CONTROL_CHARACTERS]
    characters[termios.VINTR] = bytes([os.fpathconf(terminal, "PC_VDISABLE")])
    characters[termios.VEOL] = _INTERRUPT
    return settings


async def _write(terminal: int, text: str) -> None:
    rest = memoryview(text.encode("utf-8", "backslashreplace"))
    while rest:
        try:
            rest = rest[os.write(terminal, rest) :]
        except BlockingIOError:  # slow, or stopped with Ctrl-S
            loop = asyncio.get_running_loop()
            await _ready(terminal, loop.add_writer, loop.remove_writer)


async def _read_line(terminal: int) -> bytes:
    line = b""
    try:
        while True:
            try:
                line = os.read(terminal, _MAX_LINE_BYTES)  # nothing at all: Ctrl-D
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await _ready(terminal, loop.add_reader, loop.remove_reader)
            except OSError:  # EIO: hung up
                return b""
            else:
                return line
    finally:
        if not line.endswith(b"\n"):  # nobody pressed Enter, so whatever is printed next would stand behind the prompt
            with suppress(OSError):
                os.write(terminal, b"\n")


async def _ready(
    terminal: int, watch: Callable[[int, Callable[[], None]], None], forget: Callable[[int], bool]
) -> None:
    ready = asyncio.Event()
    watch(terminal, ready.set)
    try:
        await ready.wait()
    finally:
        forget(terminal)
