"""`silo demo`, as a newcomer runs it: with only QEMU and a guest kernel; and it leaves nothing behind."""

from __future__ import annotations

import platform
import signal
import subprocess
import threading
from pathlib import Path

import pytest

PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def newcomer(new_silo):
    """The silo of a user with an empty home folder and no settings."""
    silo = new_silo()
    for name in ("SILO_HOME", "SILO_MASTER_KEY"):
        del silo.environ[name]
    return silo


@pytest.fixture(scope="module")
def done(newcomer):
    return newcomer.run("demo", "--json")


def test_demo_shows_answers_that_a_kernel_of_their_own_computed(done):
    told = done.json
    assert set(told) == {
        *("protocol", "tools", "answers", "host_kernel", "guest_kernel", "isolation", "timing_s", "secret", "total_s")
    }
    assert told["host_kernel"] == platform.release()
    assert told["guest_kernel"] not in ("", told["host_kernel"])
    assert told["isolation"] == "microvm"
    assert {"jwt__sign", "table__query", "silo_search", "silo_execute"} <= set(told["tools"])
    assert told["answers"]["sign"]["token"].count(".") == 2
    assert told["answers"]["verify"]["claims"]["sub"] == "ada"
    assert told["timing_s"]["total"] > 0


def test_demo_looks_for_its_secret_in_processes_and_files_and_finds_none(done):
    secret = done.json["secret"]
    assert secret["found"] == []
    assert secret["looks"] > 10
    assert secret["processes"] > 3
    assert secret["files"] > 100


def test_demo_tells_its_story_on_stderr_and_its_document_on_stdout(done):
    assert done.out.startswith("{")
    for words in ("silo vault add JWT_KEY", "silo install jwt", "silo mcp serve", "kernel of the guest"):
        assert words in done.err
        assert words not in done.out


def test_demo_leaves_nothing_in_the_temporary_folder_and_no_skill_at_home(done, newcomer):
    assert list(Path(newcomer.environ["TMPDIR"]).iterdir()) == []
    state = Path(newcomer.environ["HOME"]) / ".silo"
    assert not any((state / name).exists() for name in ("skills", "credentials.silo", "images", "templates"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_demo_that_is_told_to_end_takes_its_commands_and_its_folder_along(new_silo, processes, number):
    silo = new_silo()
    process = silo.start("demo", stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        # The line comes from the command that the demo started, so there is one.
        while (line := process.stderr.readline()) and b"reading jwt" not in line:
            pass
        assert line, "the demo ended before it could be told to"
        below = processes.below(process.pid)
        assert below
        process.send_signal(number)
        process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else 128 + number)
    assert [one for one in below if one.is_alive()] == []
    assert list(Path(silo.environ["TMPDIR"]).iterdir()) == []


def test_bench_that_is_told_to_end_takes_its_guests_and_its_folder_along(new_silo, processes):
    silo = new_silo()
    process = silo.start("bench", "call", "--runs", "3", stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    watchdog = threading.Timer(PATIENCE_S, process.kill)  # a line that never comes fails the test
    watchdog.start()
    try:
        # Once the work has begun, a signal ends it, not the process.
        while (line := process.stderr.readline()) == b"silo: loading the benchmark ...\n":
            pass
        assert line.startswith(b"silo: "), "it ended before it could be told to"
        below = processes.below(process.pid)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert [one for one in below if one.is_alive()] == []
    left = [path.name for path in Path(silo.environ["TMPDIR"]).iterdir()]
    assert [name for name in left if not name.startswith("uv-")] == []  # uv keeps the files that it locks
