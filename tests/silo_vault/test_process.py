import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KEY = "wipe-me-0123456789abcdef"


class Hardened:
    """A process that called `harden` and waits."""

    def __init__(self, environ: dict[str, str]) -> None:
        program = [sys.executable, str(Path(__file__).with_name("hardened.py"))]
        self.process = subprocess.Popen(program, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.report: dict[str, Any] = json.loads(self.process.stdout.readline())


@pytest.fixture
def hardened() -> Iterator[Hardened]:
    # Other names that start or end alike, and the same value again: only the variable itself is erased.
    run = Hardened(
        {
            "BEFORE": "x",
            "MY_SILO_MASTER_KEY": "mine",
            "SILO_MASTER_KEY": KEY,
            "SILO_MASTER_KEY_OLD": "old",
            "AFTER": "y",
        }
    )
    yield run
    run.process.communicate()
    assert run.process.returncode == 0


def test_the_key_is_returned_once(hardened):
    assert hardened.report["first"] == KEY
    assert hardened.report["second"] is None


def test_the_key_is_in_no_environment_any_more(hardened):
    report = hardened.report
    assert KEY in report["block_before"]
    assert not report["in_environ"]
    assert not report["in_posix"]
    assert KEY not in report["block"]
    assert KEY not in report["child"]


def test_a_neighbour_does_not_find_the_key_in_proc(hardened):
    """The attack: read the environment of another process of the same user."""
    try:
        block = Path(f"/proc/{hardened.process.pid}/environ").read_bytes()
    except PermissionError:
        return  # an ordinary user gets this; root can read it, and finds it erased
    assert KEY.encode() not in block
    assert b"SILO_MASTER_KEY=" not in block.replace(b"MY_SILO_MASTER_KEY=", b"")


def test_the_other_variables_stay(hardened):
    kept = dict(line.split("=", 1) for line in hardened.report["child"].splitlines())
    assert {
        "BEFORE": "x",
        "MY_SILO_MASTER_KEY": "mine",
        "SILO_MASTER_KEY_OLD": "old",
        "AFTER": "y",
    }.items() <= kept.items()


def test_the_process_leaves_no_core_and_cannot_be_traced(hardened):
    assert hardened.report["dumpable"] == 0
    assert hardened.report["core"] == [0, 0]
    assert hardened.report["child_core"] == "0"


def test_without_the_variable_the_process_is_closed_all_the_same():
    run = Hardened({"PATH": "/usr/bin:/bin"})
    run.process.communicate()
    assert run.report["first"] is None
    assert run.report["dumpable"] == 0


def test_importing_the_vault_loads_neither_cryptography_nor_keyring():
    code = (
        "import sys, silo_vault; print([m for m in ('cryptography', 'keyring', 'secretstorage') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.strip() == b"[]"
