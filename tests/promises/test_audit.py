"""Promise 10: the audit log has every call and refusal, and reveals lines that were changed, dropped or reordered.

`tests/silo/audit/test_log.py` attacks the chain itself. Here whole runtimes and the real command line write the log, an
attacker edits it, and `silo audit verify` checks it.
"""

import os
import subprocess
import sys

import pytest

from silo.audit.log import read
from silo.errors import SiloError
from silo.runtime import Runtime
from silo.testing.fakes import FakeBackend, FakeImages

pytestmark = pytest.mark.anyio

SCRIPT = '# /// script\n# requires-python = ">=3.11"\n# [tool.silo]\n# namespace = "noted"\n# ///\n'

TOOL = {
    "name": "act",
    "description": "Act.",
    "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False},
    "output_schema": None,
    "require_approval": False,
    "time_to_live": 600,
    "secrets": None,
    "network": None,
    "title": None,
    "read_only": None,
    "destructive": None,
    "idempotent": None,
}

SAID = "a very private argument"


async def agree(plan):
    return True


@pytest.fixture
async def home(tmp_path):
    """A state folder whose audit log has an install, two calls and two refusals."""
    (tmp_path / "skill.py").write_text(SCRIPT)
    guarded = {**TOOL, "name": "guarded", "require_approval": True}
    backend = FakeBackend(
        described={"namespace": "noted", "summary": "", "instructions": None, "tools": [TOOL, guarded]}
    )
    environ = {name: os.environ[name] for name in ("PATH", "HOME")}
    runtime = Runtime(
        home=tmp_path / "home", environ=environ, backends=[backend], images=FakeImages(tmp_path / "images")
    )
    async with runtime as silo:
        await silo.install(str(tmp_path / "skill.py"), agree=agree)
        await silo.call("noted.act", {"text": SAID})
        await silo.call("noted.act", {})
        for tool, arguments in (("noted.guarded", {}), ("noted.act", {"text": 1})):
            with pytest.raises(SiloError):
                await silo.call(tool, arguments)
    return tmp_path / "home"


def verify(home):
    """Return the exit status of the real `silo audit verify`, and its output."""
    done = subprocess.run(
        [sys.executable, "-m", "silo", "audit", "verify"],
        env={"PATH": os.environ["PATH"], "SILO_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def test_calls_and_refusals_are_there_and_arguments_are_not(home):
    records = list(read(home))
    events = [record.event for record in records]
    assert events.count("call") == events.count("end") == 2
    assert events.count("refused") == 2
    refused = [record.to_json() for record in records if record.event == "refused"]
    assert {entry["outcome"] for entry in refused} == {"approval-required", "arguments-invalid"}
    assert SAID not in (home / "audit.jsonl").read_text()
    assert verify(home)[0] == 0


@pytest.mark.parametrize("attack", ["change", "drop", "swap", "cut", "forge", "empty"])
async def test_a_record_that_was_touched_is_found(home, attack):
    path = home / "audit.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) >= 6
    middle = len(lines) // 2
    if attack == "change":
        changed = lines[middle].replace("noted", "noteD", 1)
        assert changed != lines[middle]
        lines[middle] = changed
    elif attack == "drop":
        del lines[middle]
    elif attack == "swap":
        lines[middle - 1], lines[middle] = lines[middle], lines[middle - 1]
    elif attack == "cut":
        del lines[-2:]
    elif attack == "forge":
        lines.insert(middle, lines[middle])
    else:
        lines = []
    path.write_text("".join(lines))
    status, said = verify(home)
    assert status == 2, said
    assert "[audit-broken]" in said


async def test_where_no_record_can_be_written_no_call_runs(home, tmp_path):
    (home / "audit.jsonl").unlink()
    (home / "audit.jsonl").mkdir()
    backend = FakeBackend()
    environ = {name: os.environ[name] for name in ("PATH", "HOME")}
    async with Runtime(home=home, environ=environ, backends=[backend], images=FakeImages(tmp_path / "images")) as silo:
        with pytest.raises(SiloError) as caught:
            await silo.call("noted.act", {})
    assert caught.value.code == "audit-broken"
    assert backend.requests == []
