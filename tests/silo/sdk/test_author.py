"""`skill.run()`: the script runs in its own process, as for its author."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from silo.testing import PATIENCE_S

REPO = Path(__file__).parents[3]

SCRIPT = '''"""Works on things."""
from __future__ import annotations
from datetime import date
from typing import Annotated, Any
from silo import AgentResponse, File, Range, Skill, report_progress, require_secret

skill = Skill("things")

@skill.tool()
def echo(
    text: str = "", count: int = 0, ratio: float = 0.0, flag: bool = False, tags: list[str] = [],
    table: dict[str, int] = {},
    day: date | None = None, either: int | str = 0, anything: Any = None, small_number: Annotated[int, Range(le=9)] = 0,
) -> dict:
    """Echo what came: 100%.

    Args:
        text: goes in and comes out.
    """
    return {k: v for k, v in locals().items() if v not in ("", 0, 0.0, False, [], {}, None)}

@skill.tool()
async def read(document: File, others: list[File] = []) -> str:
    """Read a file."""
    report_progress(1, 2, "half")
    return f"{document.name} {document.media_type} {document.text()} {[f.name for f in others]}"

@skill.tool(secrets=["TOKEN"])
def token() -> str:
    return require_secret("TOKEN") * 2

@skill.tool()
def undeclared(name: str) -> str:
    return require_secret(name)

@skill.tool()
def fails() -> None:
    raise ValueError("as it should")

@skill.tool()
def reports() -> AgentResponse:
    return AgentResponse(status="error", error_message="no such thing")

@skill.tool()
def draw() -> File:
    return File(b"PNG", "image/png", "a.png")

if __name__ == "__main__":
    skill.run()
'''


class Author:
    def __init__(self, folder: Path) -> None:
        self.script = folder / "things.py"
        self.script.write_text(SCRIPT, encoding="utf-8")
        self.folder = folder

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", self.script, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO), "TMPDIR": str(self.folder)},
            timeout=PATIENCE_S,
        )


@pytest.fixture
def author(tmp_path: Path) -> Author:
    return Author(tmp_path)


def test_a_tool_runs_and_says_that_it_is_not_isolated(author: Author):
    done = author.run("echo", "--text", "hello")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"text": "hello"})
    assert "things.echo runs WITHOUT silo's isolation" in done.stderr


def test_values_are_json_where_the_tool_wants_no_text(author: Author):
    done = author.run(
        "echo", "--text", "12", "--count", "-3", "--ratio=1", "--flag", "--tags", '["a", "b"]', "--table", '{"a": 1}',
        "--day", "2024-02-29", "--either", "7", "--anything", "[1", "--small-number", "9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "text": "12", "count": -3, "ratio": 1.0, "flag": True, "tags": ["a", "b"], "table": {"a": 1},
        "day": "2024-02-29",
        "either": 7, "anything": "[1", "small_number": 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["echo", "--count", "many"], "arguments.count must be an integer, not a string [arguments-invalid]"),
        (["echo", "--small_number", "10"], "arguments.small_number must be at most 9"),
        (["echo", "--day", "soon"], "arguments.day must be a string of the format 'date'"),
        (["echo", "--tex", "x"], "unrecognized arguments: --tex"),
        (["read"], "the following arguments are required: --document"),
        (["read", "--document", "missing.txt"], "can't read the file 'missing.txt': No such file or directory"),
        (["ecko"], "no tool 'ecko'; did you mean echo? [tool-unknown]"),
        (["zzz"], "it has echo, read"),
        ([], "usage: things.py TOOL"),
    ],
)
def test_wrong_use_is_explained_and_exits_2(author: Author, arguments: list[str], said: str):
    done = author.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_help_lists_the_tools_with_their_first_line(author: Author):
    done = author.run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  echo        Echo what came: 100%.\n  read        Read a file.\n  token\n" in done.stdout
    assert "without silo's isolation" in done.stdout


def test_help_of_a_tool_lists_its_parameters(author: Author):
    done = author.run("echo", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--text TEXT" in done.stdout
    assert "goes in and comes out." in done.stdout
    assert "--small-number NUMBER" in done.stdout


def test_files_are_read_from_paths(author: Author):
    (author.folder / "a.csv").write_text("x,y")
    done = author.run("read", "--document", "a.csv", "--others", '["a.csv"]')
    assert (done.returncode, done.stdout) == (0, "a.csv text/csv x,y ['a.csv']\n")
    assert "silo: progress: 1/2 half" in done.stderr


def test_files_that_come_out_are_saved_and_told(author: Author):
    done = author.run("draw")
    assert (done.returncode, done.stdout) == (0, "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("silo: file: ")
    assert line.endswith("a.png (image/png, 3 bytes)")
    assert Path(line.removeprefix("silo: file: ").partition(" (")[0]).read_bytes() == b"PNG"


def test_secrets_come_as_json_on_stdin(author: Author):
    done = author.run("token", stdin='{"TOKEN": "x"}')
    assert (done.returncode, done.stdout) == (0, "xx\n")


def test_a_secret_that_is_not_on_stdin_is_missed_with_how_to_give_it(author: Author):
    done = author.run("token", stdin="{}")
    assert done.returncode == 1
    assert """echo '{"TOKEN": "..."}' | things.py token""" in done.stderr


def test_a_secret_beyond_those_of_the_tool_is_refused_even_if_stdin_has_it(author: Author):
    script = author.script.read_text().replace('secrets=["TOKEN"]', "secrets=[]")
    author.script.write_text(script)
    done = author.run("token", stdin='{"TOKEN": "hunter2"}')
    assert done.returncode == 1
    assert "[secret-undeclared]" in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("stdin", ["TOKEN=hunter2", '["hunter2"]', '{"TOKEN": ["hunter2"]}'])
def test_secrets_that_are_not_an_object_of_texts_are_refused_and_not_shown(author: Author, stdin: str):
    done = author.run("token", stdin=stdin)
    assert done.returncode == 2
    assert "one JSON object" in done.stderr
    assert "hunter2" not in done.stderr


def test_a_tool_without_secrets_does_not_wait_for_stdin(author: Author):
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, author.script, "echo", "--text", "a"],
            stdin=reader,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPO)},
            timeout=PATIENCE_S,
        )
    finally:
        os.close(reader)
        os.close(writer)
    assert done.returncode == 0


def test_an_exception_exits_1_with_the_skills_own_traceback(author: Author):
    done = author.run("fails")
    assert (done.returncode, done.stdout) == (1, "")
    assert "silo: error: ValueError: as it should [skill-exception]" in done.stderr
    assert "in fails\n" in done.stderr
    assert "invoke.py" not in done.stderr


def test_a_reported_failure_exits_1_with_its_text_as_the_result(author: Author):
    done = author.run("reports")
    assert (done.returncode, done.stdout) == (1, "no such thing\n")


def test_importing_the_script_runs_nothing(author: Author):
    done = subprocess.run(
        [sys.executable, "-c", "import things; print(things.skill)"],
        capture_output=True,
        text=True,
        cwd=author.folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{REPO}:{author.folder}"},
        timeout=PATIENCE_S,
    )
    assert done.stdout == "<Skill things: echo, read, token, undeclared, fails, reports, draw>\n"
    assert done.stderr == ""
