"""`silo approvals`: a store in which questions wait, the commands beside it, and a person at a real pseudo-terminal."""

import json
import os
import pty
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from silo_interaction import Answer, Question, WantedSecret

from silo.approvals.store import Decisions

FAKE = [sys.executable, "-W", "error", str(Path(__file__).with_name("fake_silo.py"))]
PATIENCE_S = 300.0
QUESTION = Question(
    "Run demo.guarded",
    "claude-code through MCP",
    (("tool", "demo.guarded"), ("does", "Ask a person first."), ("secrets", "none")),
    arguments=(("text", "a\x1b[2J\u202eb"), ("numbers", [1, 2])),
    changes=("The argument text is not what it was the last time.",),
    grace_s=600,
    group="demo.guarded",
)
ONCE = Question("Run demo.once", "codex through MCP", (("tool", "demo.once"),))
SECRET = Question("Type in DEMO_KEY for demo", "codex through MCP", wanted=WantedSecret("DEMO_KEY", "opens nothing"))


class Board:
    """A process that asks: its store, and the questions it put up."""

    def __init__(self, home: Path) -> None:
        self.decisions = Decisions(home)
        self._count = 0

    def ask(self, question: Question = QUESTION, subject: str = "demo.guarded") -> str:
        """Put a question up, and return its id."""
        self._count += 1
        posted, _, _ = self.decisions.post(
            f"{self._count:064x}", question, subject=subject, principal="mcp:test", stands_s=300.0, profile={}
        )
        return posted.id

    def agree(self, question: Question = QUESTION, *, grace: bool = False) -> str:
        number = self.ask(question)
        assert self._decide(number, Answer(approved=True, reason="approved", grace=grace)) == "decided"
        return number

    def refuse(self) -> str:
        number = self.ask()
        assert self._decide(number, Answer(approved=False, reason="no")) == "decided"
        return number

    def state(self, number: str) -> str:
        posted = self.decisions.get(number)
        assert posted is not None
        return posted.state

    def _decide(self, number: str, answer: Answer) -> str:
        posted = self.decisions.get(number)
        assert posted is not None
        return self.decisions.decide(number, posted.digest, answer, by="the approval page")


@pytest.fixture
def board(silo):
    board = Board(silo.home)
    yield board
    board.decisions.close()


def last_record(silo) -> dict:
    [record] = silo("audit", "show", "-n", "1", "--json").json["records"]
    return record


# --- list and show ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", "list", "show", "approve", "deny", "revoke", "pair"])
def test_help_is_on_stdout_and_reads_as_agreed(bare_silo, golden, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found = bare_silo("approvals", *command.split(), "--help")
    assert (found.status, found.err) == (0, "")
    golden(f"help-approvals{'-' if command else ''}{command}.txt", found.out)
    assert not bare_silo.home.exists()


def test_nothing_that_waits_is_an_empty_document_and_a_word_on_stderr(silo):
    assert silo("approvals", "list", "--json").json == {"questions": []}
    found = silo("approvals", "list")
    assert (found.status, found.out, found.err) == (0, "", "no question waits, and no approval counts\n")
    assert not (silo.home / "state.db").exists(), "looking must not make the store"


def test_the_list_has_what_waits_and_what_stands_and_how_long(silo, board):
    waiting, secret = board.ask(), board.ask(SECRET, "demo.keyed")
    once, again = board.agree(ONCE), board.agree(grace=True)
    refused = board.refuse()
    found = silo("approvals", "list")
    assert (found.status, found.err) == (0, "")
    header, *rows = [re.split(r"  +", line) for line in found.out.splitlines()]
    assert header == ["ID", "STATE", "LEFT", "TOOL", "FOR"]
    assert [[row[0], row[1], row[3], row[4]] for row in rows] == [
        [waiting, "waiting", "demo.guarded", "claude-code through MCP"],
        [secret, "waiting for a secret", "demo.keyed", "codex through MCP"],
        [once, "yes, once", "demo.guarded", "codex through MCP"],
        [again, "yes", "demo.guarded", "claude-code through MCP"],
        [refused, "denied", "demo.guarded", "claude-code through MCP"],
    ]
    assert all(re.fullmatch(r"\d+ min \d+ s", row[2]) for row in rows)
    assert rows[3][2] > "9"


def test_documents_are_sorted_and_read_as_agreed(silo, board, person, golden):
    numbers = [board.ask(), board.ask(SECRET, "demo.keyed"), board.agree(grace=True)]
    listed = silo("approvals", "list", "--json")
    assert (listed.status, listed.err) == (0, "")
    status, shown = person("show", numbers[0], "--json").leave()
    assert status == 0
    for name, out in (("list", listed.out), ("show", shown.replace("\r\n", "\n"))):
        json.loads(out, object_pairs_hook=_sorted)
        assert "\x1b" not in out
        text = re.sub(r'"left_s": \d+', '"left_s": LEFT', out)
        for place, number in enumerate(numbers):
            text = text.replace(number, f"ID{place}")
        golden(f"approvals-{name}.json", text)


def _sorted(pairs):
    assert [name for name, _ in pairs] == sorted(name for name, _ in pairs)


def test_a_question_is_shown_whole_as_at_the_terminal(board, person, golden):
    number = board.ask()
    status, shown = person("show", number[:6]).leave()
    assert status == 0
    text = shown.replace("\r\n", "\n")
    golden("approvals-show.txt", re.sub(r"\d+ min \d+ s", "LEFT", text.replace(number, "ID")))
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize("shell", ['"$@" | cat', '"$@" >"$SILO_HOME/seen"; s=$?; cat "$SILO_HOME/seen"; exit $s'])
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_what_is_asked_goes_into_no_pipe_and_no_file(silo, board, person, shell, words):
    """A past fault: an agent's shell could read the arguments of every question, also of another agent's."""
    for number in (board.ask(), board.ask(SECRET, "demo.keyed")):
        found = silo("approvals", "show", number, *words)
        assert (found.status, found.code, found.out) == (3, "approval-required", "")
        assert "standard output is not this session's terminal" in found.err
        _, shown = person("show", number, *words, shell=shell).leave()
        for text in (found.err, shown):
            assert "[approval-required]" in text
            assert "argument" not in text
            assert "numbers" not in text
        assert board.state(number) == "waiting"


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_the_list_has_no_arguments(silo, board, words):
    board.ask()
    found = silo("approvals", "list", *words)
    assert found.status == 0
    assert "demo.guarded" in found.out
    assert "argument" not in found.out
    assert "numbers" not in found.out


def test_of_a_question_that_was_decided_nothing_is_shown_that_was_forgotten(silo, board):
    found = silo("approvals", "show", board.refuse())
    assert found.status == 0
    assert ": denied, " in found.out
    assert "secrets" not in found.out
    assert "does not wait any more" in found.err
    assert silo("approvals", "show", board.agree(), "--json").json["question"]["arguments"] == []


@pytest.mark.parametrize("command", ["show", "approve", "deny", "revoke"])
def test_an_id_that_is_none_or_of_nothing_is_an_error_that_says_where_to_look(silo, board, command):
    board.ask()
    for word in ("0", "--", "nonsense", "ffffffffffffffff"):
        found = silo("approvals", command, word)
        assert (found.status, found.code, found.out) == (2, "usage", "")
        assert found.hint


def test_a_store_that_is_damaged_is_an_error_and_no_yes(silo, board):
    number = board.agree()
    board.decisions.close()
    (silo.home / "state.db").write_bytes(b"nonsense" * 1000)
    for command in ("list", "list --json", f"show {number}", f"approve {number}", f"deny {number}", "revoke --all"):
        found = silo("approvals", *command.split())
        assert (found.status, found.code, found.out) == (2, "state-unusable", ""), command


# --- deny and revoke --------------------------------------------------------------------------------------------------


def test_a_no_needs_no_terminal_and_is_on_the_record(silo, board):
    number = board.ask()
    found = silo("approvals", "deny", number[:8], "--reason", "use the test account")
    assert (found.status, found.out, found.err) == (0, "", "")
    posted = board.decisions.get(number)
    assert (posted.state, posted.reason) == ("denied", "declined with `silo approvals`: use the test account")
    record = last_record(silo)
    assert (record["event"], record["question"], record["tool"], record["verdict"]) == (
        *("approval", number, "demo.guarded", "denied"),
    )
    assert record["caller"]["kind"] == "cli"
    assert record["caller"]["client"]


def test_a_no_to_a_secret_takes_the_question_away(silo, board):
    number = board.ask(SECRET, "demo.keyed")
    assert silo("approvals", "deny", number).status == 0
    assert board.state(number) == "withdrawn"
    assert last_record(silo)["verdict"] == "denied"


@pytest.mark.parametrize("grace", [False, True])
def test_a_yes_that_was_taken_back_opens_nothing_any_more(silo, board, grace):
    number = board.agree(grace=grace)
    assert board.decisions.standing(f"{1:064x}") is not None
    found = silo("approvals", "revoke", number)
    assert (found.status, found.out, found.err) == (0, "", "")
    assert board.decisions.standing(f"{1:064x}") is None
    assert (last_record(silo)["question"], last_record(silo)["verdict"]) == (number, "revoked")
    again = silo("approvals", "revoke", number)
    assert (again.status, again.code) == (2, "usage")
    assert "nothing to revoke" in again.err


def test_all_of_them_are_taken_back_at_once_and_what_waits_goes_on_waiting(silo, board):
    waiting, yeses = board.ask(), {board.agree(), board.agree(ONCE), board.agree(grace=True)}
    assert silo("approvals", "revoke", "--all").status == 0
    assert [entry["id"] for entry in silo("approvals", "list", "--json").json["questions"]] == [waiting]
    records = silo("audit", "show", "-n", "3", "--json").json["records"]
    assert {(record["verdict"], record["question"]) for record in records} == {("revoked", number) for number in yeses}
    found = silo("approvals", "revoke", "--all")
    assert (found.status, found.out, found.err) == (0, "", "no approval counts\n")


def test_what_to_take_back_must_be_clear(silo, board):
    number = board.ask()
    for words in ([], [number, "--all"]):
        found = silo("approvals", "revoke", *words)
        assert (found.status, found.code) == (2, "usage")
    found = silo("approvals", "revoke", number)
    assert (found.status, found.code) == (2, "usage")
    assert f"silo approvals deny {number}" in found.hint
    assert board.state(number) == "waiting"


# --- approving without a person ---------------------------------------------------------------------------------------


def test_a_yes_without_a_terminal_is_refused_and_nothing_decided(silo, board):
    number = board.ask()
    for words in ([], ["--for-grace"]):
        found = silo("approvals", "approve", number, *words, stdin=b"y\n")
        assert (found.status, found.code, found.out) == (3, "approval-required", "")
        assert "only a person at a terminal can approve: standard input" in found.err
        assert "approval page" in found.hint
    assert board.state(number) == "waiting"


@pytest.mark.parametrize("option", ["--yes", "-y", "--force", "--no-input"])
def test_no_option_stands_in_for_a_person(silo, board, option):
    number = board.ask()
    found = silo("approvals", "approve", number, option)
    assert (found.status, found.code) == (2, "usage")
    assert board.state(number) == "waiting"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (Board.agree, "it was approved"),
        (Board.refuse, "it was denied"),
        (lambda board: _withdrawn(board), "the caller is gone"),
    ],
    ids=["approved", "denied", "withdrawn"],
)
def test_what_does_not_wait_can_neither_be_approved_nor_denied(silo, board, make, told):
    number = make(board)
    before = board.state(number)
    for command in ("approve", "deny"):
        found = silo("approvals", command, number)
        assert (found.status, found.code) == (2, "usage")
        assert f"does not wait any more: {told}" in found.err
        assert found.hint
    assert board.state(number) == before


def _withdrawn(board: Board) -> str:
    number = board.ask()
    board.decisions.withdraw(number, "gone")
    return number


def test_questions_of_a_process_that_ended_do_not_wait(silo, board):
    number = board.ask()
    board.decisions.close()
    assert silo("approvals", "list", "--json").json == {"questions": []}
    assert "the caller is gone" in silo("approvals", "approve", number).err


def test_a_secret_can_only_be_given_to_the_process_that_asks(silo, board):
    number = board.ask(SECRET, "demo.keyed")
    found = silo("approvals", "approve", number)
    assert (found.status, found.code) == (2, "usage")
    assert "silo vault add DEMO_KEY" in found.hint
    assert board.state(number) == "waiting"


def test_grace_is_only_given_where_it_is_offered(silo, board):
    found = silo("approvals", "approve", board.ask(ONCE), "--for-grace")
    assert (found.status, found.code) == (2, "usage")
    assert "--for-grace" in found.hint


def test_a_pairing_code_does_not_go_into_a_pipe_or_a_file(silo):
    found = silo("approvals", "pair")
    assert (found.status, found.code, found.out) == (3, "approval-required", "")
    assert "standard output is not this session's terminal" in found.err
    assert not (silo.home / "state.db").exists(), "a code was made"


# --- a person at a terminal -------------------------------------------------------------------------------------------


class Person:
    """Somebody at a terminal in which a command runs."""

    def __init__(self, silo, *command: str) -> None:
        self.shown = b""
        self.pid, self._screen = pty.fork()
        if self.pid == 0:  # the child, whose controlling terminal is the other end
            os.execve(command[0], command, {**silo.environ, "TERM": "xterm", "COLUMNS": "100"})

    def see(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while text.encode() not in self.shown:
            left = deadline - time.monotonic()
            assert left > 0, f"never shown: {text!r}; shown: {self.shown!r}"
            assert not select.select([self._screen], [], [], left)[0] or self._read(), f"{text!r} not in {self.shown!r}"

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def leave(self) -> tuple[int, str]:
        """Wait for the end of the command; return its status and its output."""
        deadline = time.monotonic() + PATIENCE_S
        while select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))[0] and self._read():
            pass
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status), self.shown.decode()

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._screen)

    def _read(self) -> bool:
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # EIO: the other end is closed
            return False
        self.shown += data
        return bool(data)


@pytest.fixture
def person(silo):
    """Run `silo approvals …` at a terminal, or through a shell line in which it is `"$@"`."""
    people = []

    def person(*words: str, group: str = "approvals", shell: str = "") -> Person:
        command = [*FAKE, group, *words]
        people.append(Person(silo, *(["/bin/sh", "-c", shell, "sh", *command] if shell else command)))
        return people[-1]

    yield person
    for one in people:
        one.close()


def test_a_person_sees_all_of_a_question_and_their_yes_counts_once(silo, board, person):
    number = board.ask()
    someone = person("approve", number[:6])
    someone.see("[y/N/g]")
    for part in (
        "Run demo.guarded",
        "claude-code through MCP",
        "argument numbers:",
        "<U+202E>",
        "not what it was the last",
    ):
        assert part.encode() in someone.shown
    someone.type("y\n")
    assert someone.leave()[0] == 0
    posted = board.decisions.use(f"{1:064x}")
    assert (posted.state, posted.reason, posted.grace) == ("approved", "approved at the terminal", False)
    assert board.decisions.use(f"{1:064x}") is None
    record = last_record(silo)
    assert (record["event"], record["question"], record["tool"], record["verdict"], record["grace"]) == (
        *("approval", number, "demo.guarded", "approved", False),
    )
    assert silo("approvals", "show", number, "--json").json["decided_by"] == "silo approvals"


@pytest.mark.parametrize(("words", "prompt", "typed"), [((), "[y/N/g]", "g\n"), (("--for-grace",), "[y/N]", "y\n")])
def test_a_yes_can_count_for_a_while(silo, board, person, words, prompt, typed):
    number = board.ask()
    someone = person("approve", number, *words)
    someone.see(prompt)
    assert b"10 minutes" in someone.shown
    someone.type(typed)
    assert someone.leave()[0] == 0
    assert [board.decisions.use(f"{1:064x}").grace for _ in range(3)] == [True] * 3
    assert board.decisions.get(number).reason == "approved at the terminal for 10 minutes"
    assert last_record(silo)["grace"] is True


@pytest.mark.parametrize(
    ("typed", "reason"),
    [("\n", "declined at the terminal"), ("n use staging\n", "declined at the terminal: use staging")],
)
def test_anything_but_a_yes_is_a_no_with_its_reason(silo, board, person, typed, reason):
    number = board.ask()
    someone = person("approve", number)
    someone.see("[y/N/g]")
    someone.type(typed)
    status, shown = someone.leave()
    assert status == 3
    assert "[denied]" in shown
    assert "silo: hint: " in shown
    posted = board.decisions.get(number)
    assert (posted.state, posted.reason) == ("denied", reason)
    assert last_record(silo)["verdict"] == "denied"


def test_ctrl_c_leaves_the_question_as_it_is(silo, board, person):
    number = board.ask()
    someone = person("approve", number)
    someone.see("[y/N/g]")
    someone.type("\x03")
    status, shown = someone.leave()
    assert status == 130
    assert "[interrupted]" in shown
    assert board.state(number) == "waiting"


def test_a_question_that_is_gone_before_the_answer_is_not_decided(silo, board, person):
    number = board.ask()
    someone = person("approve", number)
    someone.see("[y/N/g]")
    board.decisions.withdraw(number, "the call was ended")
    someone.type("y\n")
    status, shown = someone.leave()
    assert status == 2
    assert "does not wait any more: the caller is gone" in shown
    assert board.decisions.standing(f"{1:064x}") is None


def test_a_yes_counts_only_for_what_was_shown(silo, board, person):
    number = board.ask()
    someone = person("approve", number)
    someone.see("[y/N/g]")
    with sqlite3.connect(silo.home / "state.db") as db:
        db.execute("UPDATE questions SET digest = ? WHERE id = ?", ("0" * 64, number))
    db.close()
    someone.type("y\n")
    status, shown = someone.leave()
    assert status == 2
    assert "is not what was shown here any more, and nothing was decided" in shown
    assert f"silo approvals show {number}" in shown
    assert board.state(number) == "waiting"


@pytest.mark.parametrize(
    ("shell", "told"),
    [
        ('echo y | "$@"', "standard input is not this session's terminal"),
        ('"$@" 2>&1 | cat; exit 3', "standard error is not this session's terminal"),
        ('yes | "$@" --for-grace', "standard input is not this session's terminal"),
        ('set -m; "$@" & wait $!', "this runs in the background of its terminal"),
    ],
)
def test_only_a_person_in_the_foreground_can_say_yes(silo, board, person, shell, told):
    number = board.ask()
    status, shown = person("approve", number, shell=shell).leave()
    assert status == 3
    assert "[approval-required]" in shown
    assert told in shown
    assert "argument numbers" not in shown
    assert board.state(number) == "waiting"


def test_a_pairing_code_is_shown_to_a_person_and_works_once(silo, board, person):
    status, shown = person("pair").leave()
    assert status == 0
    [code] = re.findall(r"^([0-9A-Z]{4}-[0-9A-Z]{4})\r$", shown, re.MULTILINE)
    assert "for 5 minutes" in shown
    assert (last_record(silo)["event"], last_record(silo)["verdict"]) == ("approval", "code")
    assert code not in (silo.home / "audit.jsonl").read_text()
    assert board.decisions.redeem(code)
    assert not board.decisions.redeem(code)


@pytest.mark.parametrize(
    "shell", ['"$@" | cat; exit 3', 'code=$("$@"); status=$?; echo "<$code>"; exit $status', 'set -m; "$@" & wait $!']
)
def test_a_pairing_code_is_shown_to_nobody_else(silo, person, shell):
    status, shown = person("pair", shell=shell).leave()
    assert status == 3
    assert "[approval-required]" in shown
    assert not re.search(r"[0-9A-Z]{4}-[0-9A-Z]{4}", shown)
    assert not (silo.home / "state.db").exists()


# --- --headless -------------------------------------------------------------------------------------------------------


def test_headless_on_the_command_line_asks_nobody_even_at_a_terminal(silo, person):
    silo.environ["SILO_HEADLESS"] = "0"
    status, shown = person("demo.guarded", "--headless", group="run").leave()
    assert status == 3
    assert "SILO_APPROVAL_REQUIRED" in shown
    assert "[y/N" not in shown
    assert silo("run", "demo.echo", "text=hi", "--headless").status == 0


def test_a_headless_server_refuses_at_once_what_needs_a_person(silo):
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    messages = [
        {"id": 1, "method": "initialize", "params": client},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "demo__guarded", "arguments": {}}},
    ]
    with subprocess.Popen(
        [*FAKE, "mcp", "serve", "--headless", "--expose", "direct"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=silo.environ,
        text=True,
    ) as server:
        for message in messages:
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        server.stdin.flush()
        answers = {}
        while 2 not in answers:
            answer = json.loads(server.stdout.readline())
            answers[answer.get("id")] = answer
        _, errors = server.communicate(timeout=PATIENCE_S)
    result = answers[2]["result"]
    assert result["isError"]
    assert "SILO_APPROVAL_REQUIRED" in result["content"][0]["text"]
    assert (server.returncode, errors) == (0, "")
    with closing(Decisions(silo.home)) as decisions:
        assert decisions.all(standing=False) == []
