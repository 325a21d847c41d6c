from __future__ import annotations

import os
from pathlib import Path

import pytest

from silo.catalog.builtin import Source, builtin_folder, builtin_sources, read_source, resolve_source
from silo.errors import FileRefused, SkillUnknown


def skill(folder: Path, text: str = "script") -> Path:
    folder.mkdir(parents=True)
    (folder / "skill.py").write_text(text)
    return folder / "skill.py"


@pytest.fixture
def builtins(tmp_path: Path) -> tuple[Source, ...]:
    for name in ("jwt", "table"):
        skill(tmp_path / "builtin" / name)
    (tmp_path / "builtin" / "notes").mkdir()
    return builtin_sources(tmp_path / "builtin")


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    folder = tmp_path / "cwd"
    folder.mkdir()
    return folder


def test_built_in_skills_are_the_folders_that_hold_one(builtins: tuple[Source, ...]):
    assert [(one.label, one.name) for one in builtins] == [("builtin:jwt", "jwt"), ("builtin:table", "table")]


def test_silos_own_skills_are_found():
    assert "jwt" in [one.name for one in builtin_sources(builtin_folder())]


def test_a_missing_folder_has_no_built_in_skills(tmp_path: Path):
    assert builtin_sources(tmp_path / "none") == ()


@pytest.mark.parametrize("name", ["jwt", "builtin:jwt"])
def test_a_folder_in_the_working_directory_does_not_take_a_built_in_skills_place(builtins, cwd: Path, name: str):
    skill(cwd / "jwt")
    assert resolve_source(name, builtins=builtins, cwd=cwd) == builtins[0]
    assert resolve_source("./jwt", builtins=builtins, cwd=cwd).script == cwd / "jwt" / "skill.py"


def test_a_path_is_a_folder_with_a_skill_or_a_script(builtins, cwd: Path):
    script = skill(cwd / "mine")
    (cwd / "tool-box.py").write_text("script")
    for named in ("mine", "./mine", str(cwd / "mine"), "mine/skill.py", str(script)):
        assert resolve_source(named, builtins=builtins, cwd=cwd) == Source(str(script), "mine", script)
    assert resolve_source("tool-box.py", builtins=builtins, cwd=cwd).name == "tool-box"


def test_what_is_neither_gets_the_nearest_names(builtins, cwd: Path):
    (cwd / "empty").mkdir()
    with pytest.raises(SkillUnknown) as caught:
        resolve_source("tabel", builtins=builtins, cwd=cwd)
    assert caught.value.hint == "did you mean 'table'?"
    with pytest.raises(SkillUnknown) as caught:
        resolve_source("zzz", builtins=builtins, cwd=cwd)
    assert "built-in are jwt, table" in caught.value.hint
    with pytest.raises(SkillUnknown, match=r"the folder 'empty' has no skill\.py"):
        resolve_source("empty", builtins=builtins, cwd=cwd)
    for named in ("missing.py", "builtin:mine", "skill.txt", "\x00", "x" * 5000):
        with pytest.raises(SkillUnknown):
            resolve_source(named, builtins=builtins, cwd=cwd)


def test_lock_and_manual_are_read_with_the_script(tmp_path: Path):
    script = skill(tmp_path / "mine", "text")
    source = Source(str(script), "mine", script)
    assert (read_source(source).script, read_source(source).lock, read_source(source).manual) == (b"text", None, None)
    (tmp_path / "mine" / "skill.py.lock").write_text("lock")
    (tmp_path / "mine" / "SKILL.md").write_text("manual")
    assert (read_source(source).lock, read_source(source).manual) == ("lock", "manual")


def test_a_script_of_another_name_has_a_lock_of_that_name_and_no_manual(tmp_path: Path):
    script = tmp_path / "tool.py"
    for name in ("tool.py", "tool.py.lock", "skill.py.lock", "SKILL.md"):
        (tmp_path / name).write_text(name)
    files = read_source(Source(str(script), "tool", script))
    assert (files.lock, files.manual) == ("tool.py.lock", None)


def test_what_is_no_small_regular_file_is_refused(tmp_path: Path):
    script = skill(tmp_path / "mine")
    source = Source(str(script), "mine", script)
    lock = tmp_path / "mine" / "skill.py.lock"
    lock.write_bytes(b"\xff")
    with pytest.raises(FileRefused, match="not UTF-8"):
        read_source(source)
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(FileRefused, match="not a regular file"):
        read_source(source)
    lock.unlink()
    lock.mkdir()
    with pytest.raises(FileRefused, match="not a regular file"):
        read_source(source)
    lock.rmdir()
    script.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(FileRefused, match="more than 1048576 bytes"):
        read_source(source)
    script.unlink()
    with pytest.raises(FileRefused, match="is gone"):
        read_source(source)
