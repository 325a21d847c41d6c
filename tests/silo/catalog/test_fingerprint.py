from __future__ import annotations

from silo.catalog.store import fingerprint


def make_current(folder, target="v1"):
    folder.mkdir(exist_ok=True)
    (folder / ".next").symlink_to(target)
    (folder / ".next").replace(folder / "current")


def test_missing_folder_is_an_empty_one(tmp_path):
    assert fingerprint(tmp_path / "none") == fingerprint(tmp_path)


def test_install_replace_and_remove_each_change_the_fingerprint(tmp_path):
    seen = [fingerprint(tmp_path)]
    make_current(tmp_path / "jwt", "v1")
    seen.append(fingerprint(tmp_path))
    make_current(tmp_path / "jwt", "v2")
    seen.append(fingerprint(tmp_path))
    make_current(tmp_path / "table", "v1")
    seen.append(fingerprint(tmp_path))
    (tmp_path / "jwt" / "current").unlink()
    seen.append(fingerprint(tmp_path))
    assert len(set(seen)) == 5


def test_half_an_install_changes_nothing(tmp_path):
    make_current(tmp_path / "jwt")
    before = fingerprint(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "staging").mkdir()
    (tmp_path / "jwt" / "0123").mkdir()
    (tmp_path / "lock").touch()
    assert fingerprint(tmp_path) == before
