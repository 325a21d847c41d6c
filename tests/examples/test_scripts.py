"""The example skills, run as programs."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from silo.sdk.skill import find_skill
from silo.testing import PATIENCE_S

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *arguments: str, bare: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a script; if `bare`, in a Python that can't import silo, as under `uv run --script`."""
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    environment = dict(os.environ)
    if bare:
        spec = importlib.util.find_spec("pydantic")
        assert spec is not None
        assert spec.origin is not None
        # -S leaves out the site folder, and with it the editable installs; PYTHONPATH adds the dependencies again.
        command.insert(1, "-S")
        environment["PYTHONPATH"] = str(Path(spec.origin).parents[1])
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE_S, check=False)


def test_the_smallest_skill_greets():
    done = run("hello/skill.py", "greet", "--name", "Ada")
    assert done.returncode == 0
    assert "Hello, Ada!" in done.stdout


@pytest.mark.parametrize("bare", [False, True])
def test_the_benchmarks_skill_runs_the_same_with_and_without_silo(bare):
    done = run("bench/httpx_pydantic/skill.py", "greet", "--name", "Ada", bare=bare)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["text"] == "Hello, Ada!"


def test_the_benchmarks_skill_offers_its_tool_to_silo(load_script):
    skill = find_skill(load_script("examples/bench/httpx_pydantic/skill.py"))
    assert list(skill.tools) == ["greet"]
    assert len(skill.warmups) == 1
