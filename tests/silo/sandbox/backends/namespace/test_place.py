"""Where control groups can be made, found from what the kernel tells; and the scopes of a user's systemd.

systemd is a program that does what `systemd-run --scope` does: it runs the command in its own place.
"""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from silo.sandbox.backends.namespace.cgroup import Folders
from silo.sandbox.backends.namespace.place import Host, candidates, find_place
from silo.sandbox.backends.namespace.scope import UserManager
from silo.sandbox.base import Limits
from silo.sizes import MIB

LIMITS = Limits(memory_mib=40, processes=20)


@pytest.fixture
def host(tmp_path):
    """Write what the kernel tells: `host(mounts, own)`, with `@` for a folder of the test."""

    def make(mounts, own):
        lines = [
            f"{number} 20 0:{number} {root} {str(tmp_path) + point} rw,nosuid shared:1 - {kind} x {options}"
            for number, (root, point, kind, options) in enumerate(mounts, 30)
        ]
        (tmp_path / "mountinfo").write_text("1 0 8:1 / / rw - ext4 /dev/vda rw\n" + "".join(f"{x}\n" for x in lines))
        (tmp_path / "own").write_text(own)
        return Host(tmp_path / "mountinfo", tmp_path / "own", tmp_path / "run")

    return make


def unified(folder, *, enabled="memory pids", offered="cpu memory pids", is_root=False):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.subtree_control").write_text(enabled)
    (folder / "cgroup.controllers").write_text(offered)
    (folder / "cgroup.procs").write_text("")
    if not is_root:
        (folder / "cgroup.events").write_text("populated 1\n")


V2 = ("/", "/cg", "cgroup2", "rw,nsdelegate")


def test_the_nearest_folder_of_v2_that_hands_both_controllers_down_is_first(host, tmp_path):
    unified(tmp_path / "cg/user.slice/app.slice/my.scope", enabled="")
    (tmp_path / "cg/user.slice/app.slice/my.scope/cgroup.procs").write_text("99\n")
    unified(tmp_path / "cg/user.slice/app.slice")
    unified(tmp_path / "cg/user.slice", enabled="memory", offered="memory")
    unified(tmp_path / "cg", is_root=True)
    found = list(candidates(host([V2], "0::/user.slice/app.slice/my.scope\n")))
    assert found[:2] == [Folders((tmp_path / "cg/user.slice/app.slice",), 2), Folders((tmp_path / "cg",), 2)]


@pytest.mark.parametrize(("is_root", "inside", "told"), [(True, "1\n", True), (False, "", True), (False, "7\n", False)])
def test_a_group_that_is_ours_is_told_to_hand_down_unless_it_holds_processes(host, tmp_path, is_root, inside, told):
    """The root of all groups may do both; others are those of `Delegate=yes` with `DelegateSubgroup=`."""
    unified(tmp_path / "cg", enabled="", is_root=is_root)
    (tmp_path / "cg/cgroup.procs").write_text(inside)
    unified(tmp_path / "cg/mine", enabled="")
    (tmp_path / "cg/mine/cgroup.procs").write_text("8\n")
    found = list(candidates(host([V2], "0::/mine\n")))
    assert (Folders((tmp_path / "cg",), 2) in found) is told
    assert (tmp_path / "cg/cgroup.subtree_control").read_text() == ("+memory +pids" if told else "")
    assert (tmp_path / "cg/mine/cgroup.subtree_control").read_text() == ""


def test_without_delegation_the_reason_is_told(host, tmp_path):
    unified(tmp_path / "cg", enabled="cpu", offered="cpu")
    (tmp_path / "cg/cgroup.procs").write_text("1\n")
    found = list(candidates(host([V2], "0::/\n")))
    assert "no folder above" in found[0]
    place, failed = find_place(host([V2], "0::/\n"))
    assert place is None
    assert "not" in failed[0] or "no folder" in failed[0]


def test_a_mount_that_shows_a_part_of_the_groups_and_a_name_with_a_space_are_understood(host, tmp_path):
    unified(tmp_path / "c g/inner")
    mounts = [("/docker/1", "/c\\040g", "cgroup2", "rw")]
    assert next(iter(candidates(host(mounts, "0::/docker/1/inner\n")))) == Folders((tmp_path / "c g/inner",), 2)
    assert not any(isinstance(one, Folders) for one in candidates(host(mounts, "0::/elsewhere\n")))


def test_v1_needs_both_controllers_and_may_have_them_in_one_folder(host, tmp_path):
    for name in ("pids", "memory", "both"):
        (tmp_path / name).mkdir()
    own = "8:pids:/\n4:memory:/\n0::/\n"
    one, two = ("/", "/pids", "cgroup", "rw,pids"), ("/", "/memory", "cgroup", "rw,memory")
    assert next(iter(candidates(host([one, two], own)))) == Folders((tmp_path / "pids", tmp_path / "memory"), 1)
    assert not any(isinstance(each, Folders) for each in candidates(host([one], own)))
    both = ("/", "/both", "cgroup", "rw,memory,pids")
    assert next(iter(candidates(host([both], "4:pids,memory:/\n")))) == Folders((tmp_path / "both",), 1)


def test_a_machine_that_tells_nothing_has_no_place(tmp_path):
    nowhere = Host(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert find_place(nowhere) == (None, ("no cgroup file system with memory and pids is mounted",))


def test_a_place_that_takes_no_limits_is_not_used(host, tmp_path):
    """A plain folder has no `memory.max`; a guest there would have no bound."""
    unified(tmp_path / "cg")
    place, failed = find_place(host([V2], "0::/\n"))
    assert place is None
    assert "takes no limits" in failed[0]
    assert not [entry for entry in (tmp_path / "cg").iterdir() if entry.is_dir()]


# --- systemd ----------------------------------------------------------------------------------------------------------

SYSTEMD_RUN = """\
#!/bin/sh
[ "$1" = --version ] && echo "systemd 252 (252.1-1)" && exit
[ -d "$XDG_RUNTIME_DIR" ] || exit 9
echo "$@" > {log}
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


@pytest.fixture
def manager(tmp_path):
    """A systemd that puts a process where it is already, with these limits: `manager(memory, processes)`."""

    def make(memory, processes, has_policy=True):
        own = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
        group = tmp_path / (own[0] if own else "/").lstrip("/")
        group.mkdir(parents=True, exist_ok=True)
        (group / "memory.max").write_text(f"{memory}\n")
        (group / "pids.max").write_text(f"{processes}\n")
        (group / "memory.events").write_text("oom_kill 2\n")
        program = tmp_path / "systemd-run"
        program.write_text(SYSTEMD_RUN.format(log=tmp_path / "log"))
        program.chmod(0o755)
        return UserManager(program, tmp_path, tmp_path, 252, has_policy)

    return make


def start(place):
    command = place.make(LIMITS).command(["/usr/bin/env"])
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})


def test_a_scope_gets_the_limits_and_its_command_nothing_else(manager, tmp_path):
    done = start(manager(40 * MIB, 20))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == ["LC_ALL=C", "PATH=/usr/bin:/bin"], "no runtime folder for bubblewrap"
    said = (tmp_path / "log").read_text()
    assert said.startswith("--user --scope --quiet --collect --unit=silo-guest-")
    for limit in (f"MemoryMax={40 * MIB}", "MemorySwapMax=0", "TasksMax=20", "OOMPolicy=continue"):
        assert f"-p {limit} " in said
    start(manager(40 * MIB, 20, has_policy=False))
    assert "OOMPolicy" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("memory", "processes"), [("max", "20"), (40 * MIB, "max"), (41 * MIB, 20), ("", "")])
def test_a_limit_that_systemd_did_not_set_starts_nothing(manager, memory, processes):
    """systemd says nothing about a controller that it was not given."""
    done = start(manager(memory, processes))
    assert (done.returncode, done.stdout) == (71, "")
    assert "systemd set no limits" in done.stderr


def test_only_a_user_with_a_systemd_that_runs_is_offered_its_scopes(host, tmp_path, monkeypatch):
    unified(tmp_path / "cg", enabled="", offered="")
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    told = host([V2], "0::/\n")
    assert "this user has none that runs" in list(candidates(told))[-1]
    folder = tmp_path / "run/4321/systemd"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "private"))
        last = list(candidates(told))[-2:]
    if "systemd-run" in os.listdir("/usr/bin"):
        assert [each.has_policy for each in last if isinstance(each, UserManager)] == [True, False]
