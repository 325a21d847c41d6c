"""Control groups that silo makes: all of a guest's limits or no group, and none that stays.

Most tests use plain folders, because real groups need privileges: a folder can be locked and deleted like a group's.
The last ones use real groups, where this machine has them.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from silo.sandbox.backends.namespace.cgroup import FolderGroup, Folders, count_oom_kills
from silo.sandbox.backends.namespace.place import Host, find_place
from silo.sandbox.base import Limits

LIMITS = Limits(memory_mib=40, processes=20)


@pytest.fixture
def places(tmp_path):
    """Two folders, as v1 has: `pids` and `memory`."""
    parents = (tmp_path / "pids", tmp_path / "memory")
    for folder in parents:
        folder.mkdir()
    return Folders(parents, 1)


def left(places):
    return [sorted(entry.name for entry in folder.iterdir()) for folder in places.parents]


def test_a_group_that_can_be_made_only_in_part_is_not_made_at_all(tmp_path):
    (tmp_path / "pids").mkdir()
    with pytest.raises(FileNotFoundError):
        Folders((tmp_path / "pids", tmp_path / "absent"), 1).make(LIMITS)
    assert list((tmp_path / "pids").iterdir()) == []


def test_a_group_is_joined_in_every_folder_and_leaves_none(places):
    group = places.make(LIMITS)
    assert [folder.parent for folder in group.folders] == list(places.parents)
    line = group.command(["bwrap", "-x"])
    assert [str(folder / "cgroup.procs") for folder in group.folders] == line[-4:-2]
    assert line[-2:] == ["bwrap", "-x"]
    group.remove()
    assert left(places) == [[], []]


def test_what_cannot_join_the_group_does_not_start(places, tmp_path):
    group = FolderGroup((tmp_path / "absent",), -1)
    done = subprocess.run(group.command(["/bin/echo", "started"]), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (71, b"")
    group = places.make(LIMITS)
    done = subprocess.run(group.command(["/bin/echo", "started"]), capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"started\n")
    assert all((folder / "cgroup.procs").read_text().strip().isdigit() for folder in group.folders)


@pytest.mark.parametrize(
    ("name", "text"), [("memory.events", "low 0\noom_kill 3\n"), ("memory.oom_control", "under_oom 0\noom_kill 3\n")]
)
def test_what_the_kernel_killed_is_counted_in_both_versions(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert count_oom_kills(tmp_path) == 3
    assert FolderGroup((tmp_path / "pids", tmp_path), -1).oom_kills(1) == 3


def test_a_group_without_a_count_has_killed_nothing(tmp_path):
    assert count_oom_kills(tmp_path) == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from silo.sandbox.backends.namespace.cgroup import Folders
from silo.sandbox.base import Limits
group = Folders(tuple(map(Path, sys.argv[2:])), 1).make(Limits())
print(group.folders[0].name, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
"""


def other_silo(how, parents):
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, how, *map(str, parents)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[5])},
        text=True,
    )


def test_groups_of_killed_silos_are_swept_and_those_in_use_are_not(places):
    for folder in places.parents:
        (folder / "silo-guest-of-somebody").mkdir()  # not a name that silo gives
        (folder / "user.slice").mkdir()
    with other_silo("killed", places.parents) as dead, other_silo("alive", places.parents) as alive:
        gone, used = dead.stdout.readline().strip(), alive.stdout.readline().strip()
        assert dead.wait() == -signal.SIGKILL
        own = places.make(LIMITS)
        half = places.parents[1] / "silo-guest-1-0123abcd"  # killed between two folders
        half.mkdir()
        assert gone in left(places)[0]
        places.sweep()
        expected = sorted(["silo-guest-of-somebody", "user.slice", used, own.folders[0].name])
        assert left(places) == [expected, expected]
        alive.stdin.close()
        alive.wait()
    places.sweep()
    assert used not in left(places)[0]
    own.remove()
    assert left(places) == [["silo-guest-of-somebody", "user.slice"]] * 2


def test_a_group_that_is_swept_while_it_is_made_is_made_again(places, monkeypatch):
    """Another silo can see a group before it is locked."""
    names = iter(["silo-guest-1-00000001", "silo-guest-1-00000002"])
    monkeypatch.setattr("silo.sandbox.backends.namespace.cgroup.new_name", lambda: next(names))
    real, calls = os.open, []

    def swept_first(path, *rest, **more):
        calls.append(path)
        if len(calls) == 1:
            Path(path).rmdir()
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", swept_first)
    group = places.make(LIMITS)
    assert group.folders[0].name == "silo-guest-1-00000002"
    group.remove()
    assert left(places) == [[], []]


# --- real groups ------------------------------------------------------------------------------------------------------


@pytest.fixture
def real():
    """The place that silo finds here; None if there is none, which is what `tests/promises/test_unlimited.py` tests."""
    place, failed = find_place(Host())
    assert place is not None or failed
    return place if isinstance(place, Folders) else None


def test_a_real_group_bounds_and_a_killed_silos_group_is_emptied_and_deleted(real):
    if real is None:
        return
    group = real.make(LIMITS)
    assert group.is_bounded(LIMITS)
    assert not group.is_bounded(Limits())
    sleeper = subprocess.Popen(group.command(["/bin/sleep", "3600"]))
    try:
        deadline = time.monotonic() + 30
        while str(sleeper.pid) not in (group.folders[-1] / "cgroup.procs").read_text().split():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.close(group.lock)  # as if this silo had been killed
        real.sweep()
        assert sleeper.wait(timeout=10) == -signal.SIGKILL
        assert not any(folder.exists() for folder in group.folders)
    finally:
        sleeper.kill()
        sleeper.wait()
