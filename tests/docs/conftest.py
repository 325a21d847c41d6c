"""What the tests of the documentation share: the pages, and the follower of tutorials."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def _load(path: Path) -> ModuleType:
    """Load a file that is no part of a package; with `--import-mode=importlib` no folder of tests is on `sys.path`."""
    name = f"silo_docs_tests_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def walkthrough() -> ModuleType:
    return _load(REPOSITORY / "tests/docs/walkthrough.py")


@pytest.fixture(scope="session")
def generate() -> ModuleType:
    return _load(REPOSITORY / "docs/generate.py")


@pytest.fixture(scope="session")
def pages() -> dict[str, str]:
    """Every Markdown file that people read, by its path in the repository."""
    found = [
        *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *sorted((REPOSITORY / "docs").rglob("*.md")),
        *sorted(REPOSITORY.glob("skills/*/SKILL.md")),
        REPOSITORY / "vault/README.md",
        REPOSITORY / "interaction/README.md",
    ]
    return {path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8") for path in found}


@pytest.fixture(scope="session")
def committed_or_new(repository) -> list[str]:
    """Every text file that is in the repository or about to be, without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "docs", "README.md", "tests/docs"],
        cwd=repository, capture_output=True, check=True, text=True,
    )  # fmt: skip
    return [name for name in listed.stdout.split("\0") if name]
