from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from silo.catalog.header import read_header, refuse_not_yet
from silo.catalog.scaffold import scaffold, write_scaffold
from silo.errors import HeaderInvalid, UsageError


@pytest.mark.parametrize("secrets", [(), ("API_KEY", "B_2")])
def test_a_new_skill_passes_its_own_test(tmp_path: Path, secrets: tuple[str, ...]):
    folder = write_scaffold(tmp_path, "my-skill", secrets=secrets)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(folder),
            str(folder),
        ],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{1 + len(secrets)} passed" in done.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["SKILL.md", "skill.py", "test_skill.py"]


def test_its_header_declares_the_secrets_and_can_be_installed_now():
    header = read_header(scaffold("My-Skill", secrets=("KEY", "KEY"))["skill.py"].encode(), name="other")
    assert header.namespace == "my_skill"
    assert list(header.secrets) == ["KEY"]
    refuse_not_yet(header)


def test_it_runs_for_its_author(tmp_path: Path):
    folder = write_scaffold(tmp_path, "greeter")
    done = subprocess.run(
        [sys.executable, str(folder / "skill.py"), "hello", "--name", "Ada"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Hello, Ada!" in done.stdout


@pytest.mark.parametrize("secrets", [(), ("KEY",)])
def test_it_keeps_to_silos_own_style(tmp_path: Path, secrets: tuple[str, ...]):
    folder = write_scaffold(tmp_path, "greeter", secrets=secrets)
    for command in (["check", "--isolated", "--select", "E,F,I,UP,B"], ["format", "--check", "--isolated"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--line-length", "120", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_an_existing_folder_is_left_alone(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        write_scaffold(tmp_path, "mine")
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize("name", ["", "9lives", "silo", "a__b", "../evil", "/evil", "x" * 40, "a b/c", "naïve"])
def test_a_name_that_can_be_no_namespace_makes_nothing(tmp_path: Path, name: str):
    with pytest.raises(HeaderInvalid) as caught:
        write_scaffold(tmp_path / "here", name)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("secret", ["key", "A B", 'A"]\n# network = ["evil.example', ""])
def test_a_name_that_can_be_no_secret_is_refused(secret: str):
    with pytest.raises(HeaderInvalid):
        scaffold("mine", secrets=[secret])
