"""Which commands share a terminal, and so what a person approved there. Each case has its own pseudo-terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from silo.cli.terminal import terminal_name

ASK = "from silo.cli.terminal import terminal_name; import os; os.write({out}, (terminal_name() + '\\n').encode())"


def names(command, times=1):
    """Run a shell command so often in a new terminal session; return what was written to descriptor 3."""
    ours, theirs = os.pipe()
    pid, screen = pty.fork()
    if pid == 0:
        os.dup2(theirs, 3, inheritable=True)
        os.execvp("bash", ["bash", "-c", "; ".join([command] * times) + "; exit"])
    os.close(theirs)
    with os.fdopen(ours) as said:
        found = said.read().splitlines()
    os.waitpid(pid, 0)
    os.close(screen)
    return found


PLAIN = f'{sys.executable} -c "{ASK.format(out=3)}"'


def test_commands_at_one_terminal_have_one_name_and_another_terminal_has_another():
    here, there = names(PLAIN, times=2), names(PLAIN)
    assert len(here) == 2
    assert len(set(here)) == 1
    assert len(here[0]) == 16
    assert set(here).isdisjoint(there)


@pytest.mark.parametrize("how", ["</dev/null", "2>/dev/null", "2>/dev/null </dev/null", "<&3 2>&3"])
def test_a_command_in_pipes_has_no_terminal(how):
    """An agent runs commands so, also one that a person started in a terminal."""
    assert names(f"{PLAIN} {how}") == [""]


def test_a_command_in_the_background_has_no_terminal():
    assert names(f"set -m; {PLAIN} & wait") == [""]


def test_a_command_in_a_session_of_its_own_has_no_terminal():
    assert names(f"setsid -w {PLAIN}") == [""]


def test_without_the_facts_of_linux_each_command_is_a_session_of_its_own(tmp_path):
    assert terminal_name(tmp_path) == ""
    ask = f'{sys.executable} -c "{ASK.format(out=3)}"'.replace("terminal_name()", "terminal_name(Path('/nowhere'))")
    assert names(ask.replace("import os;", "import os; from pathlib import Path;")) == [""]


def test_a_test_runner_is_no_terminal_either():
    done = subprocess.run([sys.executable, "-c", ASK.format(out=1)], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
