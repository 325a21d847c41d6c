"""Control groups: all of a guest's limits or no group. Uses plain folders, because real groups need privileges."""

import pytest

from silo.sandbox.backends.namespace import cgroup
from silo.sandbox.base import Limits


def test_a_group_that_can_be_made_only_in_part_is_not_made_at_all(tmp_path):
    (tmp_path / "pids").mkdir()
    with pytest.raises(FileNotFoundError):
        cgroup.make((tmp_path / "pids", tmp_path / "absent"), "guest", Limits())
    assert list((tmp_path / "pids").iterdir()) == []


def test_a_group_is_joined_in_every_folder_and_leaves_none(tmp_path):
    under = (tmp_path / "pids", tmp_path / "memory")
    for folder in under:
        folder.mkdir()
    group = cgroup.make(under, "guest", Limits())
    assert group.entries == tuple(folder / "guest" / "cgroup.procs" for folder in under)
    group.remove()
    assert [list(folder.iterdir()) for folder in under] == [[], []]


@pytest.mark.parametrize(
    ("name", "text"), [("memory.events", "low 0\noom_kill 3\n"), ("memory.oom_control", "under_oom 0\noom_kill 3\n")]
)
def test_what_the_kernel_killed_is_counted_in_both_versions(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert cgroup.ControlGroup((tmp_path,)).oom_kills() == 3


def test_a_group_without_a_count_has_killed_nothing(tmp_path):
    assert cgroup.ControlGroup((tmp_path,)).oom_kills() == 0
