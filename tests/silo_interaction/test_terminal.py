"""`TerminalChannel` in a process under a real pseudo-terminal, into which the tests type."""

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
from silo_interaction.question import WantedSecret
from silo_interaction.terminal import GRACE_PROMPT, KEEP_PROMPT, PROMPT, SECRET_PROMPT, render

ASKER = Path(__file__).with_name("asker.py")
PATIENCE_S = 300.0


class Session:
    """A process that asks, and the controlling side of its pseudo-terminal."""

    def __init__(self, *, stdin: bool = True, stderr: bool = True, **spec: object) -> None:
        self.shown = b""
        self._screen, keyboard = pty.openpty()
        full = {"title": "Run jwt.sign", "who": "an agent", "facts": [], "danger": "", "timeout_s": PATIENCE_S}
        full |= {
            "times": 1,
            "controlling": stdin,
            "raw": False,
            "background": False,
            "grace_s": 0,
            "wanted": None,
        } | spec
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
        """Wait until the process ends, and return what it reports about the answer."""
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


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        (b"n not on a Friday\n", "declined at the terminal: not on a Friday"),
        (b"No   wrong branch \n", "declined at the terminal: wrong branch"),
        (b"n \x1b[2J\xff\n", "declined at the terminal: <U+001B>[2J\ufffd"),
        (b"nope never\n", "declined at the terminal"),
        (b"n half a reason\x04", "declined at the terminal"),
    ],
)
def test_a_no_can_come_with_a_reason(start, typed, reason):
    session = start()
    session.see(PROMPT)
    session.type(typed)
    assert session.report()["answers"] == [[False, reason]]


def test_a_yes_for_a_while_is_offered_where_the_question_has_it(start):
    session = start(grace_s=600)
    session.see(GRACE_PROMPT)
    assert b"g: yes, and yes to the same for 10 minutes\r\n" in session.shown
    session.type(b"g\n")
    report = session.report()
    assert report["answers"] == [[True, "approved at the terminal for 10 minutes"]]
    assert report["grace"] == [True]


@pytest.mark.parametrize(
    ("grace_s", "typed", "approved"),
    [(600, b"y\n", True), (600, b"\n", False), (600, b"g please\n", False), (600, b"g\x04", False), (0, b"g\n", False)],
)
def test_nothing_but_g_is_a_yes_for_a_while(start, grace_s, typed, approved):
    session = start(grace_s=grace_s)
    session.see(GRACE_PROMPT if grace_s else PROMPT)
    session.type(typed)
    report = session.report()
    assert report["answers"][0][0] is approved
    assert report["grace"] == [False]


WANTED = {"name": "GITHUB_TOKEN", "description": "reads issues", "keeper": ""}
KEPT = WANTED | {"keeper": "the vault of this machine"}
SECRET = "correct horse \u00e9"


def test_a_secret_is_typed_in_without_being_shown(start):
    session = start(wanted=WANTED)
    session.see(SECRET_PROMPT)
    session.type(f"{SECRET}\n".encode())
    report = session.report()
    assert report["typed"] == [[SECRET, False]]
    assert report["answers"] == [[True, "typed in at the terminal"]]
    assert report["terminal_restored"]
    assert b"correct" not in session.shown
    assert PROMPT.encode() not in session.shown
    assert session.shown.endswith(b"\r\n")


@pytest.mark.parametrize(("typed", "keep"), [(b"y\n", True), (b"\n", False), (b"n\n", False), (b"\x04", False)])
def test_whether_a_secret_is_kept_is_asked_where_it_can_be(start, typed, keep):
    session = start(wanted=KEPT)
    session.see(SECRET_PROMPT)
    session.type(f"{SECRET}\n".encode())
    session.see(KEEP_PROMPT)
    session.type(typed)
    report = session.report()
    assert report["typed"] == [[SECRET, keep]]
    assert b"correct" not in session.shown
    assert report["terminal_restored"]


@pytest.mark.parametrize(
    ("typed", "interrupted"),
    [(b"\n", False), (b"\x04", False), (b"abc\x04", False), (b"\x03", True), (b"abc\x03", True)],
)
def test_no_secret_is_a_no(start, typed, interrupted):
    session = start(wanted=KEPT)
    session.see(SECRET_PROMPT)
    session.type(typed)
    report = session.report()
    assert report["answers"][0][0] is False
    assert report["typed"] == [[None, False]]
    assert report["interrupted"] == [interrupted]
    assert report["terminal_restored"]
    assert KEEP_PROMPT.encode() not in session.shown


def test_ctrl_c_after_the_secret_takes_it_back(start):
    session = start(wanted=KEPT)
    session.see(SECRET_PROMPT)
    session.type(f"{SECRET}\n".encode())
    session.see(KEEP_PROMPT)
    session.type(b"\x03")
    report = session.report()
    assert report["typed"] == [[None, False]]
    assert report["interrupted"] == [True]


def test_a_secret_that_the_terminal_cut_off_is_not_taken(start):
    session = start(wanted=WANTED)
    session.see(SECRET_PROMPT)
    session.type(b"x" * 5000)
    session.type(b"\n")
    assert session.report()["answers"] == [[False, "what was typed at the terminal is too long for a line"]]


def test_a_secret_that_is_no_text_is_not_taken(start):
    session = start(wanted=WANTED)
    session.see(SECRET_PROMPT)
    session.type(b"\xff\xfe\n")
    assert session.report()["answers"][0][0] is False


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
    """Otherwise a program could pass its own pseudo-terminal, without a session, and answer there."""
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
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
questions = st.builds(
    Question,
    title=texts,
    who=texts,
    facts=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    danger=texts,
    arguments=st.lists(st.tuples(texts, json_values), max_size=3).map(tuple),
    changes=st.lists(texts, max_size=3).map(tuple),
    wanted=st.none() | st.builds(WantedSecret, name=texts, description=texts, keeper=texts),
)


@given(questions, st.integers(40, 200))
def test_no_text_can_pass_for_a_label_or_the_prompt(question, columns):
    lines = render(question, columns).splitlines()
    labels = [line for line in lines if line and not line.startswith("  | ")]
    wanted = question.wanted
    asked_for = [] if wanted is None else [True, bool(wanted.description), bool(wanted.keeper)]
    parts = len(question.facts) + len(question.arguments) + bool(question.changes) + bool(question.danger)
    assert len(labels) == 2 + parts + sum(asked_for)
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


def test_arguments_changes_and_a_wanted_secret_look_like_this():
    question = Question(
        "Run github.close_issue",
        "claude-code through MCP",
        (("tool", "github.close_issue"),),
        arguments=(("number", 7), ("labels", ["a\nb"])),
        changes=("+ secret GITHUB_TOKEN", "one\ntwo"),
        wanted=WantedSecret("GITHUB_TOKEN", "reads issues", "the vault of this machine"),
    )
    assert render(question, 80) == (
        "\n"
        "Question:\n"
        "  | Run github.close_issue\n"
        "From:\n"
        "  | claude-code through MCP\n"
        "Changed since the last yes:\n"
        "  | + secret GITHUB_TOKEN\n"
        "  | one<U+000A>two\n"
        "tool:\n"
        "  | github.close_issue\n"
        "argument number:\n"
        "  | 7\n"
        "argument labels:\n"
        "  | [\n"
        '  |   "a\\nb"\n'
        "  | ]\n"
        "Secret to type in:\n"
        "  | GITHUB_TOKEN\n"
        "Described as:\n"
        "  | reads issues\n"
        "Where it can be kept:\n"
        "  | the vault of this machine\n"
    )
