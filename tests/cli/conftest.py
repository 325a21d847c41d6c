"""The command line in-process, over a fake backend and a state folder in which the skill `demo` is installed."""

from __future__ import annotations

import difflib
import importlib.util
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from silo.cli.main import run

HERE = Path(__file__).parent
PASSED = ("PATH", "HOME", "UV_CACHE_DIR")
MASTER_KEY = "ab" * 32


def without_steps(err: str) -> str:
    """Leave out the lines about steps that took longer than a second: which these are depends on the machine."""
    return re.sub(r"^silo: (?!error|hint|warning).+ \.\.\.\n", "", err, flags=re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How one command ended; `err` is without steps."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def code(self) -> str:
        """The code in brackets of the error that was printed."""
        found = re.search(r"^silo: error: .* \[([a-z-]+)\]$", self.err, re.MULTILINE)
        return found.group(1) if found else ""

    @property
    def hint(self) -> str:
        found = re.search(r"^silo: hint: (.*)$", self.err, re.MULTILINE)
        return found.group(1) if found else ""


@pytest.fixture(scope="session")
def fake_silo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("silo_cli_tests_fake_silo", HERE / "fake_silo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def installed(fake_silo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder in which the command installed `demo`; tests work on copies of it."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "demo"
    source.mkdir()
    (source / "skill.py").write_text(fake_silo.SCRIPT)
    home = folder / "home"
    environ = {name: os.environ[name] for name in PASSED if name in os.environ}
    context = fake_silo.open_context({**environ, "SILO_HOME": str(home), "COLUMNS": "100"})
    assert run(["install", str(source), "--yes"], context) == 0
    return home


@pytest.fixture(name="without_steps", scope="session")
def without_steps_fixture() -> Callable[[str], str]:
    return without_steps


@pytest.fixture(autouse=True)
def _pinned_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


class Silo:
    """Runs commands; `home` is their state folder, `environ` their environment."""

    def __init__(self, fake_silo: ModuleType, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.environ = {name: os.environ[name] for name in PASSED if name in os.environ}
        self.environ |= {"SILO_HOME": str(home), "SILO_MASTER_KEY": MASTER_KEY}
        self.works = True
        self._fake_silo = fake_silo
        self._capsys = capsys

    def __call__(self, *arguments: str, stdin: bytes = b"", debug: bool = False) -> Outcome:
        self._capsys.readouterr()
        with io.TextIOWrapper(tempfile.TemporaryFile()) as text:  # a real file: a reader may wait for its descriptor
            text.buffer.write(stdin)
            text.buffer.seek(0)
            before, sys.stdin = sys.stdin, text
            try:
                status = run(arguments, self._fake_silo.open_context(self.environ, works=self.works), debug=debug)
            finally:
                sys.stdin = before
        out, err = self._capsys.readouterr()
        return Outcome(status, out, without_steps(err))


@pytest.fixture
def silo(fake_silo: ModuleType, installed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Silo:
    """The command line with `demo` installed."""
    shutil.copytree(installed, tmp_path / "home", symlinks=True)
    return Silo(fake_silo, tmp_path / "home", capsys)


@pytest.fixture
def bare_silo(fake_silo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Silo:
    """The command line with nothing installed, and no state folder yet."""
    return Silo(fake_silo, tmp_path / "home", capsys)


@pytest.fixture
def golden(tmp_path: Path) -> Callable[[str, str], None]:
    """Compare a text with a golden file, after removing what differs between machines and runs.

    `SILO_TEST_GOLDEN=write` rewrites the files; look at the difference before you commit it.
    """

    def check(name: str, text: str) -> None:
        path = HERE / "golden" / name
        text = _neutral(text, tmp_path)
        if os.environ.get("SILO_TEST_GOLDEN") == "write":
            path.write_text(text)
        expected = path.read_text()
        assert text == expected, "\n".join(difflib.unified_diff(expected.splitlines(), text.splitlines(), lineterm=""))

    return check


def _neutral(text: str, folder: Path) -> str:
    text = text.replace(str(folder), "FOLDER").replace(sys.executable, "PYTHON")
    text = re.sub(r"/\S*/demo/skill\.py", "SOURCE", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME", text)
    return re.sub(r"\b[0-9a-f]{64}\b", "SHA256", text)
