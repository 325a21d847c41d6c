"""`silo` as a process: signals, streams, exit statuses, and a person at a real pseudo-terminal."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

FAKE = [sys.executable, "-W", "error", str(Path(__file__).with_name("fake_silo.py"))]
REAL = [sys.executable, "-W", "error", "-m", "silo"]
PATIENCE_S = 300.0
SECRET = "correct horse battery staple"


@pytest.fixture
def start(silo):
    """Start a command with pipes, in the state folder of `silo`; it is gone after the test."""
    started = []

    def start(command, *arguments, **options):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process = subprocess.Popen([*command, *arguments], env=silo.environ, text=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def ended(start, without_steps):
    """Run a command to its end; what it said on stderr is without steps."""

    def ended(command, *arguments, stdin="", **options):
        process = start(command, *arguments, **options)
        out, err = process.communicate(stdin, timeout=PATIENCE_S)
        return process.returncode, out, without_steps(err)

    return ended


@pytest.mark.parametrize(
    ("number", "status", "told"),
    [(signal.SIGINT, 130, "[interrupted]"), (signal.SIGTERM, 143, ""), (signal.SIGHUP, 129, "")],
)
def test_a_signal_ends_the_call_and_its_guest(start, silo, without_steps, number, status, told):
    process = start(FAKE, "run", "demo.hanging")
    while (line := process.stderr.readline()) != "hanging\n":
        assert without_steps(line) == "", line
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (status, "")
    assert without_steps(err).startswith("the guest is gone\n")
    assert told in err
    assert "Traceback" not in err
    assert silo("audit", "show", "-n", "1", "--json").json["records"][0]["outcome"] == "interrupted"


def test_ctrl_c_while_a_pipe_is_read_ends_at_once(start, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    process = start(FAKE, "run", "demo.echo", f"data=@{tmp_path / 'pipe'}")
    with open(tmp_path / "pipe", "w"):  # opens once the command has opened it, and reads
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (130, "")
    assert "[interrupted]" in err


def test_who_stops_reading_gets_no_complaint(start, without_steps):
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = start(FAKE, "inspect", "demo", "--json", stdout=write_end)
    os.close(write_end)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, without_steps(err)) == (141, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_is_full_is_an_error_and_no_bug(ended, silo, unbuffered):
    """Also without a buffer, as in containers: there it fails at another place, and even if nothing is written."""
    silo.environ["PYTHONUNBUFFERED"] = unbuffered
    for command in ("list", "audit show --json", "config show", "run --help", "--version"):
        status, out, err = ended(["sh", "-c", 'exec "$@" >/dev/full', "sh", *REAL], *command.split())
        assert (status, out) == (2, ""), err
        assert "can't write to standard output: No space left on device [usage]" in err
        assert err.count("\n") == 2  # the error, its hint, and no complaint of Python's at exit


def test_a_closed_input_is_an_empty_one(ended):
    status, out, err = ended(["sh", "-c", 'exec "$@" <&-', "sh", *REAL], "vault", "add", "KEY")
    assert (status, out) == (2, "")
    assert "[usage]" in err


def test_no_file_takes_the_place_of_a_closed_output(ended, silo):
    """A file of the vault that is opened as descriptor 1 or 2 would get what is printed."""
    silo.environ["VALUE"] = SECRET
    closed = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *REAL]
    assert ended(closed, "vault", "add", "KEY", "--from-env", "VALUE") == (0, "", "")
    assert ended(closed, "vault", "list") == (0, "", "")
    assert ended(closed, "vault", "add", "no name", "--from-env", "VALUE") == (2, "", "")
    assert ended(REAL, "vault", "list") == (0, "KEY\n", "")


def test_python_m_silo_is_silo(ended):
    status, out, err = ended(REAL, "--version")
    assert (status, err) == (0, "")
    assert out.startswith("silo 0.")
    assert ended(REAL, "lsit")[0] == 2


def test_errors_leave_stdout_empty(ended):
    status, out, err = ended(REAL, "run", "nothing.there", "--json")
    assert (status, out) == (2, "")
    assert err.splitlines()[0].endswith("[skill-unknown]")
    assert err.splitlines()[1].startswith("silo: hint: ")


@pytest.mark.parametrize("options", [[], ["--expose", "direct"]])
def test_mcp_serve_answers_with_nothing_but_protocol_and_leaves_with_its_client(start, options):
    process = start(REAL, "mcp", "serve", *options)
    client = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}

    def send(**message):
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        process.stdin.flush()

    send(id=1, method="initialize", params=client)
    assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "silo"
    send(method="notifications/initialized")
    send(id=2, method="tools/list")
    tools = json.loads(process.stdout.readline())["result"]["tools"]
    assert {"silo_search", "silo_execute", "demo__echo"} <= {tool["name"] for tool in tools}
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (0, "", "")


def test_the_first_thing_that_silo_does_is_to_hide_its_key(start, silo, without_steps):
    process = start(REAL, "vault", "add", "KEY")  # waits for standard input, with the vault's key in memory
    key = silo.environ["SILO_MASTER_KEY"].encode()
    block = Path(f"/proc/{process.pid}/environ")
    deadline = time.monotonic() + PATIENCE_S
    while key in _read(block):
        assert time.monotonic() < deadline, "the key is still in the environment that others can read"
    _, err = process.communicate(SECRET, timeout=PATIENCE_S)
    assert (process.returncode, without_steps(err)) == (0, "")
    assert silo("vault", "list").out == "KEY\n"


def test_debug_is_not_taken_for_a_misspelt_setting(ended, silo):
    silo.environ["SILO_DEBUG"] = "1"
    status, out, err = ended(REAL, "list", "--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["skills"][0]["namespace"] == "demo"


def test_completion_scripts_know_the_commands(ended, silo):
    silo.environ |= {"_SILO_COMPLETE": "complete_bash", "COMP_WORDS": "silo uni", "COMP_CWORD": "1"}
    assert ended(REAL) == (0, "uninstall\n", "")


# --- a person at a terminal -------------------------------------------------------------------------------------------


class Person:
    """Somebody at a terminal in which a command runs."""

    def __init__(self, silo, *command):
        self.shown = b""
        pid, self._screen = pty.fork()
        if pid == 0:  # the child, whose controlling terminal is the other end
            environ = {**silo.environ, "TERM": "xterm", "COLUMNS": "100"}
            os.execve(sys.executable, [*FAKE, *command], environ)
        self._pid = pid

    def see(self, text):
        deadline = time.monotonic() + PATIENCE_S
        while text.encode() not in self.shown:
            left = deadline - time.monotonic()
            assert left > 0, f"never shown: {text!r}; shown: {self.shown!r}"
            assert not select.select([self._screen], [], [], left)[0] or self._read(), f"{text!r} not in {self.shown!r}"

    def look(self, *, for_s):
        """Look at the screen for so long."""
        deadline = time.monotonic() + for_s
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._screen], [], [], left)[0]:
                self._read()

    def type(self, text):
        os.write(self._screen, text.encode())

    def leave(self):
        """Wait for the end of the command; return its status and all that was shown."""
        deadline = time.monotonic() + PATIENCE_S
        while select.select([self._screen], [], [], deadline - time.monotonic())[0] and self._read():
            pass
        _, status = os.waitpid(self._pid, 0)
        os.close(self._screen)
        return os.waitstatus_to_exitcode(status), self.shown.decode()

    def _read(self):
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # EIO: the other end is closed
            return False
        self.shown += data
        return bool(data)


def test_a_person_can_agree_to_a_guarded_call(silo):
    person = Person(silo, "run", "demo.guarded")
    person.see("Run demo.guarded")
    person.see("[y/N/g]")
    person.type("y\n")
    status, shown = person.leave()
    assert status == 0
    assert "guarded ran" in shown


@pytest.mark.parametrize("typed", ["n\n", "\n", "\x04"], ids=["no", "empty", "ctrl-d"])
def test_a_person_can_refuse_a_guarded_call(silo, typed):
    person = Person(silo, "run", "demo.guarded")
    person.see("[y/N/g]")
    person.type(typed)
    status, shown = person.leave()
    assert status == 3
    assert "[denied]" in shown
    assert "guarded ran" not in shown


def test_ctrl_c_at_the_question_is_an_interruption_and_no_call(silo):
    person = Person(silo, "run", "demo.guarded")
    person.see("[y/N/g]")
    person.type("\x03")
    status, shown = person.leave()
    assert status == 130
    assert "[interrupted]" in shown
    assert "guarded ran" not in shown
    [record] = silo("audit", "show", "-n", "1", "--json").json["records"]
    assert (record["event"], record["outcome"]) == ("refused", "interrupted")


def test_install_shows_all_that_a_skill_wants_before_it_asks(bare_silo, fake_silo, tmp_path):
    source = tmp_path / "demo"
    source.mkdir()
    (source / "skill.py").write_text(fake_silo.SCRIPT)
    person = Person(bare_silo, "install", str(source))
    person.see("[y/N]")
    for fact in (
        "Install demo",
        "DEMO_KEY, handed to the skill over STDIN: A key that opens nothing.",
        "network:\r\n  | none",
        "256 MiB of memory, 30 s for a call",
        "as each tool says",
    ):
        assert fact.encode() in person.shown, fact
    assert str(source) in re.sub(r"\r\n  \|\s*", "", person.shown.decode())  # a long path goes on in the next line
    person.type("y\n")
    status, shown = person.leave()
    assert status == 0
    assert "installed demo" in shown


def test_ctrl_c_at_the_question_of_an_install_is_an_interruption_and_nothing_is_installed(
    bare_silo, fake_silo, tmp_path
):
    source = tmp_path / "demo"
    source.mkdir()
    (source / "skill.py").write_text(fake_silo.SCRIPT)
    person = Person(bare_silo, "install", str(source))
    person.see("[y/N]")
    person.type("\x03")
    status, shown = person.leave()
    assert status == 130
    assert "[interrupted]" in shown
    assert bare_silo("list", "--json").json["skills"] == []


def test_a_new_version_is_asked_for_with_what_is_different(silo, fake_silo, tmp_path):
    source = tmp_path / "demo"
    source.mkdir()
    script = fake_silo.SCRIPT.replace("DEMO_KEY", "OTHER_KEY").replace(
        'namespace = "demo"', 'namespace = "demo"\n# memory_mib = 512'
    )
    (source / "skill.py").write_text(script)
    person = Person(silo, "install", str(source))
    person.see("[y/N]")
    for change in (
        "script: 2 lines added, 1 removed",
        "+ secret OTHER_KEY",
        "- secret DEMO_KEY",
        "memory: 256 MiB, now 512 MiB",
    ):
        assert change.encode() in person.shown, person.shown
    person.type("\n")
    status, shown = person.leave()
    assert status == 3
    assert "[denied]" in shown
    assert silo("list", "--json").json["skills"][0]["header"]["memory_mib"] == 256


def test_a_secret_is_typed_twice_and_never_shown(silo):
    person = Person(silo, "vault", "add", "KEY")
    person.see("Value of KEY: ")
    person.type(f"{SECRET}\n")
    person.see("The same again: ")
    person.type(f"{SECRET}\n")
    status, shown = person.leave()
    assert status == 0, shown
    assert SECRET not in shown
    assert silo("vault", "list").out == "KEY\n"


def test_two_values_that_differ_are_not_stored(silo):
    person = Person(silo, "vault", "add", "KEY")
    person.see("Value of KEY: ")
    person.type("one\n")
    person.see("The same again: ")
    person.type("two\n")
    status, shown = person.leave()
    assert status == 2
    assert "differ" in shown
    assert silo("vault", "list").out == ""


def test_setup_does_nothing_without_an_explicit_yes(bare_silo):
    person = Person(bare_silo, "setup")
    person.see("Do it? [y/N]")
    person.type("\n")
    status, shown = person.leave()
    assert status == 3
    assert "[denied]" in shown
    assert not (bare_silo.home / "kernel").exists()


def test_ctrl_c_at_a_prompt_exits_with_130(silo):
    person = Person(silo, "vault", "add", "KEY")
    person.see("Value of KEY: ")
    person.type("\x03")
    assert person.leave()[0] == 130


def test_a_long_call_shows_a_spinner_that_goes_away(silo):
    person = Person(silo, "run", "demo.hanging")
    person.see("waiting")
    person.type("\x03")
    status, shown = person.leave()
    assert status == 130
    assert "\x1b[?25h" in shown, "the cursor must be visible again"


def test_an_answer_on_a_terminal_can_do_nothing_to_it(silo):
    status, shown = Person(silo, "run", "demo.hostile").leave()
    assert status == 0
    assert "a<U+001B>[2Jb<U+202E>" in shown


def _read(path):
    try:
        return path.read_bytes()
    except PermissionError:  # hidden altogether: this test does not run as root
        return b""


# --- long work is announced -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("audit", "show"), "reading the audit log"),
        (("audit", "summary"), "reading the audit log"),
        (("audit", "verify"), "checking the audit log"),
    ],
)
def test_who_reads_a_log_that_takes_long_is_told_so_meanwhile(start, silo, words, said):
    log = silo.home / "audit.jsonl"
    records = log.read_bytes()
    log.unlink()
    os.mkfifo(log)
    process = start(REAL, *words)
    with log.open("wb") as slow:  # opens once the command reads
        assert process.stderr.readline() == f"silo: {said} ...\n"
        slow.write(records)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_who_waits_for_a_server_that_holds_the_key_of_the_vault_is_told_so(start, silo, tmp_path):
    (silo.home / "silo.toml").touch(mode=0o600)
    (silo.home / "silo.toml").write_text('[hashicorp]\nkey = "transit"\n')
    (tmp_path / "value").write_text(SECRET)
    with socket.create_server(("127.0.0.1", 0)) as silent, (tmp_path / "value").open() as value:
        silo.environ |= {"VAULT_ADDR": f"http://127.0.0.1:{silent.getsockname()[1]}", "VAULT_TOKEN": "s.x"}
        process = start(REAL, "vault", "add", "KEY", stdin=value)
        assert process.stderr.readline() == "silo: opening the vault ...\n"
        process.kill()
        process.communicate()


def test_a_benchmark_says_what_it_does_while_it_does_it(start):
    process = start(REAL, "bench", "vault", "--secrets", "100000", "--runs", "3", "--json")
    said = process.stderr.readline()
    while said == "silo: loading the benchmark ...\n":  # on a slow machine
        said = process.stderr.readline()
    assert said == "silo: making vaults of 100000 secrets ...\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (130, "")


def test_nothing_is_told_of_a_vault_while_a_person_is_typing_a_value(bare_silo):
    """A line or a spinner in the midst of a prompt would be in the way."""
    person = Person(bare_silo, "vault", "add", "KEY")
    person.see("Value of KEY:")
    shown = len(person.shown)
    person.look(for_s=1.5)
    assert person.shown[shown:].strip() == b""
    person.type(f"{SECRET}\n")
    person.see("The same again:")
    person.type(f"{SECRET}\n")
    assert person.leave()[0] == 0
