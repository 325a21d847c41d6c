"""`TerminalChannel` under a real pseudo-terminal, as the one thing that a person types into."""

import errno
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_interaction import Question
from silo_interaction.terminal import PROMPT, render

ASKER = Path(__file__).with_name("asker.py")
PATIENCE_S = 20.0


class Session:
    """A process that asks, and this side of the terminal it asks at."""

    def __init__(self, *, stdin: bool = True, stderr: bool = True, **spec: object) -> None:
        self.shown = b""
        self._screen, keyboard = pty.openpty()
        full = {"title": "Run jwt.sign", "who": "an agent", "facts": [], "danger": "", "timeout_s": PATIENCE_S}
        full |= {"times": 1, "controlling": stdin, "raw": False, "background": False} | spec
        self.process = subprocess.Popen(
            [sys.executable, str(ASKER), json.dumps(full)],
            stdin=keyboard if stdin else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=keyboard if stderr else subprocess.PIPE,
            start_new_session=True,
        )
        os.close(keyboard)

    def type(self, text: bytes) -> None:
        os.write(self._screen, text)

    def see(self, text: str, *, times: int = 1) -> None:
        """Wait until the terminal shows this."""
        deadline = time.monotonic() + PATIENCE_S
        while self.shown.count(text.encode()) < times:
            left = deadline - time.monotonic()
            assert left > 0, f"never shown: {text!r}; shown: {self.shown!r}"
            if select.select([self._screen], [], [], left)[0] and not self._read():
                raise AssertionError(f"closed before it showed {text!r}; shown: {self.shown!r}")

    def report(self) -> dict:
        """Wait for the end; what the process says of the answer."""
        output, errors = self.process.communicate(timeout=PATIENCE_S)
        while select.select([self._screen], [], [], 0)[0] and self._read():
            pass
        assert self.process.returncode == 0, (errors, self.shown)
        return json.loads(output)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        os.close(self._screen)

    def _read(self) -> bytes:
        try:
            data = os.read(self._screen, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the other side is closed
                raise
            return b""
        self.shown += data
        return data


@pytest.fixture
def start() -> Iterator[Callable[..., Session]]:
    sessions: list[Session] = []

    def make(**spec) -> Session:
        sessions.append(Session(**spec))
        return sessions[-1]

    yield make
    for session in sessions:
        session.close()


@pytest.mark.parametrize("typed", [b"y\n", b"yes\n", b" Y \n", b"YES\r"])
def test_yes_approves(start, typed):
    session = start()
    session.see(PROMPT)
    session.type(typed)
    report = session.report()
    assert report["answers"] == [[True, "approved at the terminal"]]
    assert report["terminal_restored"]
    assert report["blocking"]
    assert report["threads"] == 1


@pytest.mark.parametrize("typed", [b"\n", b"n\n", b"yep\n", b"y y\n", b"yes please\n", b"\x1b[Ay\n", b"\xd1\x83\n"])
def test_anything_but_a_yes_declines(start, typed):
    session = start()
    session.see(PROMPT)
    session.type(typed)
    report = session.report()
    assert report["answers"] == [[False, "declined at the terminal"]]
    assert report["interrupted"] == [False]


@pytest.mark.parametrize("typed", [b"\x03", b"y\x03"])
def test_ctrl_c_is_a_no_that_says_what_it_was_and_not_the_end_of_the_program(start, typed):
    session = start()
    session.see(PROMPT)
    session.type(typed)
    report = session.report()
    assert report["answers"] == [[False, "interrupted at the terminal"]]
    assert report["interrupted"] == [True]
    assert report["terminal_restored"]


@pytest.mark.parametrize("typed", [b"\x04", b"y\x04"])
def test_the_end_of_input_is_a_no(start, typed):
    session = start()
    session.see(PROMPT)
    session.type(typed)
    report = session.report()
    assert report["answers"][0][0] is False
    assert report["interrupted"] == [False]


def test_nobody_answering_in_time_is_an_error_that_leaves_nothing_behind(start):
    session = start(timeout_s=0.3)
    session.see(PROMPT)
    session.type(b"y")  # half an answer is none
    report = session.report()
    assert report["error"] == "no-answer"
    assert report["threads"] == 1
    assert report["terminal_restored"]
    assert session.shown.endswith(b"\r\n")


def test_a_yes_typed_before_the_question_does_not_count(start):
    session = start(timeout_s=1.0)
    session.type(b"y\ny\ny\n")
    session.see(PROMPT)
    assert session.report()["error"] == "no-answer"


def test_two_questions_at_once_are_asked_one_after_the_other(start):
    session = start(times=2)
    session.see(PROMPT)
    session.type(b"y\n")
    session.see(PROMPT, times=2)
    session.type(b"n\n")
    assert [answer[0] for answer in session.report()["answers"]] == [True, False]


def test_a_terminal_left_in_raw_mode_still_takes_an_answer_and_is_left_as_it_was(start):
    session = start(raw=True)
    session.see(PROMPT)
    session.type(b"y\r")
    report = session.report()
    assert report["answers"][0][0] is True
    assert report["terminal_restored"]


@pytest.mark.parametrize("streams", [{"stdin": False}, {"stderr": False}, {"stdin": False, "stderr": False}])
def test_a_redirected_stream_means_that_nobody_is_there(start, streams):
    session = start(**streams)
    report = session.report()
    assert report["error"] == "nobody-to-ask"
    assert b"Run jwt.sign" not in session.shown


def test_a_terminal_that_does_not_control_the_process_is_nobody(start):
    """Else whoever hands down a pseudo-terminal of its own, without a session, could answer."""
    session = start(controlling=False)
    assert session.report()["error"] == "nobody-to-ask"
    assert session.shown == b""


def test_a_background_job_does_not_ask(start):
    session = start(background=True)
    report = session.report()
    assert report["error"] == "nobody-to-ask"
    assert "background" in report["message"]


def test_all_of_a_long_and_hostile_question_is_shown(start):
    text = "\x1b[2J\x1b[H" + "a" * 9_990 + "END"
    session = start(facts=[["arguments", text]], danger="It can\u202ednes mail.")
    session.see(PROMPT)
    session.type(b"n\n")
    session.report()
    body = session.shown.decode()
    assert body.count("a" * 10) > 900
    assert "END" in body
    assert "<U+001B>[2J" in body
    assert "\x1b" not in body
    assert "\u202e" not in body
    assert "<U+202E>dnes" in body


# --- the text of a question -------------------------------------------------------------------------------------------

texts = st.text(max_size=200)
questions = st.builds(
    Question, title=texts, who=texts, facts=st.lists(st.tuples(texts, texts), max_size=3).map(tuple), danger=texts
)


@given(questions, st.integers(40, 200))
def test_no_text_can_pass_for_a_label_or_the_prompt(question, columns):
    lines = render(question, columns).splitlines()
    labels = [line for line in lines if line and not line.startswith("  | ")]
    assert len(labels) == 2 + len(question.facts) + bool(question.danger)
    assert not any(line.startswith(PROMPT.strip()) and not line.endswith(":") for line in labels)


@given(questions, st.integers(40, 200))
def test_nothing_but_printable_characters_reaches_the_terminal(question, columns):
    assert render(question, columns).replace("\n", "").isprintable()


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=500))
def test_every_character_of_a_plain_text_is_shown(text):
    shown = render(Question("t", "w", (("f", text),)), 60)
    after = shown.split("f:\n", 1)[1]
    assert "".join(line.removeprefix("  | ") for line in after.splitlines()) == text


def test_a_question_looks_like_this():
    question = Question(
        "Run github.close_issue",
        "claude-code through MCP",
        (("arguments", '{"repo": "acme/site",\n "number": 7}'), ("secrets", "GITHUB_TOKEN")),
        "Closes the issue for everyone.",
    )
    assert render(question, 80) == (
        "\n"
        "Question:\n"
        "  | Run github.close_issue\n"
        "From:\n"
        "  | claude-code through MCP\n"
        "arguments:\n"
        '  | {"repo": "acme/site",\n'
        '  |  "number": 7}\n'
        "secrets:\n"
        "  | GITHUB_TOKEN\n"
        "Danger:\n"
        "  | Closes the issue for everyone.\n"
    )
