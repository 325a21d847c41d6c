"""What a guest gets of silo: a copy of four parts, which must work with the standard library alone."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import silo
from silo.testing import PATIENCE_S

REPO = Path(__file__).parents[2]
PARTS = ("__init__.py", "version.py", "sdk", "wire")

PROGRAM = """
import io, json, sys
sys.path.insert(0, sys.argv[1])
from silo import Skill, require_secret
from silo.sdk.describe import describe
from silo.sdk.invoke import invoke, rehearse, warm
import silo.sdk.author

skill = Skill("s")

@skill.tool()
async def work(n: int) -> dict[str, int]:
    return {"n": n + len(require_secret("A"))}

describe(skill, summary="")
warm(skill)
rehearse(skill)
document = io.BytesIO(b'{"arguments": {"n": 1}, "secrets": {"A": "xx"}}')
outcome = invoke(skill, "work", document, (), lambda *report: None)
files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
print(json.dumps({"data": outcome.data, "files": files, "stdlib": sorted(sys.stdlib_module_names)}))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "silo").mkdir()
    for part in PARTS:
        source = REPO / "silo" / part
        if source.is_dir():
            shutil.copytree(source, tmp_path / "silo" / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / "silo" / part)
    return tmp_path


def test_a_call_runs_on_the_copied_parts_and_the_standard_library_alone(copy: Path):
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", PROGRAM, copy],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["data"] == {"n": 3}
    strangers = {
        name for name in found["files"] if name.partition(".")[0] not in {*found["stdlib"], "silo", "__main__"}
    }
    assert strangers == set()
    assert all(
        Path(file).is_relative_to(copy) for name, file in found["files"].items() if name.partition(".")[0] == "silo"
    )


def test_importing_silo_does_not_load_what_only_a_call_needs():
    heavy = ("asyncio", "argparse", "json", "tempfile", "decimal", "socket")
    program = f"import sys, silo; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(REPO)!r}); {program}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_all_that_silo_names_is_there():
    assert all(hasattr(silo, name) for name in silo.__all__)


def test_the_version_is_that_of_the_distribution():
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert silo.__version__ == project["version"]
