"""Output to a terminal: untrusted text can't control it, and tables are not cut in a pipe."""

import io
import threading
from contextlib import redirect_stderr, redirect_stdout

import pytest

from silo.cli.render import Steps, emit, emit_table, say_error


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self):
        return True


def test_text_reaches_a_pipe_as_it_is(capsys):
    emit("a\x1b[2Jb\u202e\tü")
    assert capsys.readouterr().out == "a\x1b[2Jb\u202e\tü\n"


def test_text_on_a_terminal_can_do_nothing_to_it():
    with redirect_stdout(Terminal()) as terminal:
        emit("a\x1b[2Jb\u202e\tü\nc\r")
    assert terminal.getvalue() == "a<U+001B>[2Jb<U+202E>\tü\nc<U+000D>\n"


def test_an_error_is_two_lines_whatever_its_text(capsys):
    say_error("bad\nsilo: hint: rm -rf /\x1b[2J", "usage", "do\nthis")
    assert capsys.readouterr().err == "silo: error: bad silo: hint: rm -rf /<U+001B>[2J [usage]\nsilo: hint: do this\n"


def test_markup_in_a_cell_means_nothing(capsys):
    emit_table(("A", "B"), [("[bold]x[/bold]", ":smile: \x1b[2J")])
    assert capsys.readouterr().out.splitlines()[1] == "[bold]x[/bold]  :smile: <U+001B>[2J"


def test_names_stay_whole_and_the_last_column_wraps(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    emit_table(("NAME", "TEXT"), [("a_rather_long_name", "word " * 20)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("a_rather_long_name  word")
    assert all(len(line) <= 40 and line == line.rstrip() for line in lines)
    monkeypatch.delenv("COLUMNS")
    emit_table(("NAME", "TEXT"), [("a", "word " * 20)])
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("environ", "has_colour"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colour_is_only_for_terminals_that_want_it(monkeypatch, environ, has_colour):
    monkeypatch.delenv("NO_COLOR")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with redirect_stdout(Terminal()) as terminal:
        emit_table(("A",), [("x",)])
    assert ("\x1b[" in terminal.getvalue()) is has_colour


class Watched(io.StringIO):
    """A stream that records when it was written to."""

    def __init__(self):
        super().__init__()
        self.written = threading.Event()

    def write(self, text):
        result = super().write(text)
        if text.endswith("\n"):
            self.written.set()
        return result


def test_a_step_that_takes_long_is_told_and_a_short_one_is_not():
    stream = Watched()
    with redirect_stderr(stream), Steps() as steps:
        steps.step("short")
        steps.step("long\x1b[2J")
        assert stream.written.wait(10)
    assert stream.getvalue() == "silo: long<U+001B>[2J ...\n"


def test_while_somebody_else_uses_the_terminal_no_step_is_told():
    stream = Watched()
    with redirect_stderr(stream), Steps(line_s=0.02) as steps:
        with steps.paused():
            steps.step("hidden")
            assert not stream.written.wait(0.2)
        assert stream.written.wait(10)
    assert stream.getvalue() == "silo: hidden ...\n"
