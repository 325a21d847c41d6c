from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from silo.catalog.interpreter import choose_interpreter, inspect_interpreter
from silo.catalog.uv import Uv
from silo.errors import DependencyUnavailable
from silo.model import Interpreter

pytestmark = pytest.mark.anyio


def fake(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


async def test_the_interpreter_that_runs_silo_comes_first(index):
    chosen = await choose_interpreter(">=3.11", index.uv)
    assert chosen.version == ".".join(str(part) for part in sys.version_info[:3])
    assert chosen.stdlib.joinpath("os.py").is_file()
    assert str(chosen.executable) == os.path.realpath(sys._base_executable)


async def test_a_python_of_an_environment_gives_the_facts_of_its_base(interpreter):
    assert await inspect_interpreter(Path(sys.executable), os.environ) == interpreter


async def test_no_fitting_interpreter_says_what_there_is(index, interpreter):
    with pytest.raises(DependencyUnavailable) as caught:
        await choose_interpreter(">=3.99", index.uv)
    assert ">=3.99" in caught.value.message
    assert interpreter.version in caught.value.message
    assert "uv python install" in caught.value.hint


async def test_a_python_too_old_for_the_guest_is_not_taken(index):
    uv = Uv({**index.environ, "PATH": str(index.root)})
    with pytest.raises(DependencyUnavailable, match=r">=3\.11"):
        await choose_interpreter("<3.11", uv)


def answering(path: Path, interpreter: Interpreter, version: str) -> Path:
    facts = {
        "implementation": "cpython",
        "executable": str(interpreter.executable),
        "version": version,
        "stdlib": str(interpreter.stdlib),
        "platstdlib": str(interpreter.platstdlib),
        "abi": "cpython-398-x86_64-linux-gnu",
        "final": True,
    }
    return fake(path, f"echo '{json.dumps(facts)}'")


async def test_another_interpreter_is_taken_where_uv_finds_one_that_fits(tmp_path: Path, interpreter):
    found = answering(tmp_path / "python", interpreter, "3.98.1")
    uv = Uv({"PATH": os.environ["PATH"]}, binary=str(fake(tmp_path / "uv", f"echo {found}")))
    chosen = await choose_interpreter("==3.98.*", uv)
    assert (chosen.version, chosen.abi) == ("3.98.1", "cpython-398-x86_64-linux-gnu")


async def test_what_uv_finds_is_asked_itself(tmp_path: Path, interpreter):
    found = answering(tmp_path / "python", interpreter, "3.97.0")
    uv = Uv({"PATH": os.environ["PATH"]}, binary=str(fake(tmp_path / "uv", f"echo {found}")))
    with pytest.raises(DependencyUnavailable):
        await choose_interpreter("==3.98.*", uv)


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "echo '{}'", "echo '[]'", "kill -9 $$"])
async def test_what_is_no_python_is_none(tmp_path: Path, script: str):
    assert await inspect_interpreter(fake(tmp_path / "python", script), os.environ) is None


async def test_a_missing_interpreter_is_none(tmp_path: Path):
    assert await inspect_interpreter(tmp_path / "python", os.environ) is None


async def test_settings_for_python_do_not_reach_the_interpreter(tmp_path: Path):
    seen = tmp_path / "seen"
    python = fake(tmp_path / "python", f"env > {seen}; exit 1")
    await inspect_interpreter(python, {**os.environ, "PYTHONPATH": "/evil", "LD_PRELOAD": "", "SILO_MASTER_KEY": "k"})
    names = {line.split("=", 1)[0] for line in seen.read_text().splitlines()}
    assert not names & {"PYTHONPATH", "LD_PRELOAD", "SILO_MASTER_KEY"}
