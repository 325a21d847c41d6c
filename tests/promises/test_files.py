"""Promise 1: a call sees no file of the host except its image, and nothing that it writes outlives it.

`silo.testing.conformance` shows that a call does not see what the one before left. Here a call tries to read and change
the host.
"""

import ctypes
import mmap
import os
import re
import secrets
import stat
import subprocess
import time
from pathlib import Path

import pytest

from silo.model import Isolation
from silo.sandbox.backends.microvm.backend import MicrovmBackend
from silo.sandbox.backends.microvm.memories import sealed_copy
from silo.sandbox.skill.base import GuestRequest
from silo.sandbox.skill.call import open_guest
from silo.testing.traces import processes

pytestmark = pytest.mark.anyio

MASTER_KEY = secrets.token_hex(32)

HARMLESS = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "stdin", "stdout", "stderr"}


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file of the host that anybody may read, and a key in silo's environment."""
    monkeypatch.setenv("SILO_MASTER_KEY", MASTER_KEY)
    path = tmp_path / "canary.txt"
    path.write_text(text := secrets.token_hex(16))
    path.chmod(0o644)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    return path, text


async def test_no_file_of_the_host_can_be_read(attack, canary):
    path, text = canary
    paths = [str(path), "/etc/shadow", "/etc/hostname", "/etc/machine-id", "/root/.bashrc", "/proc/1/environ"]
    # The image has no such files, by any path; process 1 is the guest's own.
    found = {place: content for place, content in (await attack("read", paths=paths)).items() if content}
    assert not any(place.endswith(tuple(paths[:5])) for place in found), found.keys()
    assert not any(text in content or MASTER_KEY in content for content in found.values())


async def test_no_process_of_the_host_shows(attack, canary):
    found = await attack("processes")
    everything = "\n".join(found.values())
    assert MASTER_KEY not in everything
    assert "SILO_HOME" not in everything
    assert str(Path.home()) == "/" or f"HOME={Path.home()}" not in everything
    assert {place.partition("/")[0] for place in found} <= {"1", "2"} | {
        place.partition("/")[0] for place in found if "python3" in found[place] or "Name:\tpython3" in found[place]
    }
    assert "qemu" not in everything
    assert "pytest" not in everything


async def test_a_guest_has_only_the_descriptors_and_devices_that_it_needs(attack, backend):
    seen = await attack("look")
    kinds = [re.sub(r"[\d:\[\]]+", "", target) for target in seen["descriptors"].values()]
    assert set(kinds) <= {"/memfdcall (deleted)", "pipe", "socket", "/dev/null", "/dev/vportp"}, seen["descriptors"]
    # The call, and with bubblewrap the leash: one end of an unused socket.
    assert kinds.count("socket") == (0 if backend.isolation is Isolation.MICROVM else 2)
    assert (
        kinds.count("/dev/vportp") <= 1 + 6
    )  # the call; stdout and stderr, as init opened them, as 1 and 2, and kept for the end marker
    opened = {Path(device).name for device in seen["devices"]}
    assert opened <= HARMLESS, opened - HARMLESS


async def test_a_guest_has_no_privilege_and_no_trace_of_the_users_environment(attack, canary, backend):
    seen = await attack("look")
    assert set(seen["environment"]) == {"HOME", "TMPDIR", "PATH", "LD_LIBRARY_PATH", "LANG", "TZ", "SILO_GUEST"}
    if backend.isolation is Isolation.NAMESPACE and os.geteuid() == 0:
        (user,) = set(seen["uid"])  # user and group ids, real and effective; no others
        assert user >= 60000, "an id that no user of the host has"
    else:
        assert set(seen["uid"]) == {1000}
    status = dict(line.split(":\t", 1) for line in seen["status"].splitlines() if ":\t" in line)
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert seen["hostname"] != os.uname().nodename
    assert seen["core"] == [0, 0]


async def test_what_all_calls_share_cannot_be_changed(attack):
    results = await attack(
        "write",
        paths=[
            "/skill/skill.py",
            "/skill/env/json.py",
            "/runtime/silo/guest/init.py",
            "/opt/python/bin/python3",
            "/etc/passwd",
            "/usr/lib/libc.so.6",
        ],
    )
    done = {what for what, outcome in results.items() if outcome == "done"}
    assert done == set()


async def test_code_that_starts_by_itself_never_starts(attack):
    """A wheel has its own `sitecustomize`, `usercustomize`, `.pth` and `json` (`tests/promises/poison`)."""
    assert (await attack("look"))["poisoned"] is None


async def test_what_a_call_plants_does_nothing_to_the_next(attack):
    planted = await attack("plant")
    assert all(place.startswith(("/tmp/", "/dev/shm/")) for place in planted), planted
    assert (await attack("look"))["poisoned"] is None


async def test_the_trees_and_templates_are_as_they_were(attack, attacker, cache):
    """Look from the host at what the attacker tried to change."""

    def look():
        places = [attacker.base.tree, attacker.layer.tree, attacker.runtime.tree, cache / "templates"]
        found = subprocess.run(
            ["find", *places, "-type", "f", "-not", "-name", ".*", "-printf", "%p %s %T@ %m\n"],
            capture_output=True,
            check=True,
        )
        return sorted(line for line in found.stdout.splitlines() if b"/." not in line)

    await attack("look")  # builds what is missing
    before = look()
    for tool, given in (("write", {"paths": ["/skill/skill.py"]}), ("plant", {}), ("fill", {"folder": "/tmp"})):
        await attack(tool, **given)
    assert look() == before


class TestTheMemoryOfATemplate:
    """QEMU before 8.2 opens it for writing, so it gets a sealed copy. This tests the kernel's seal."""

    @pytest.fixture
    def sealed(self, tmp_path):
        path = tmp_path / "memory"
        with path.open("wb") as file:
            file.truncate(1 << 20)
            file.seek(300_000)
            file.write(b"template" * 1000)
        descriptor = sealed_copy(path)
        yield path, descriptor
        os.close(descriptor)

    def test_the_copy_is_byte_for_byte_the_file(self, sealed):
        path, descriptor = sealed
        assert os.pread(descriptor, 1 << 20, 0) == path.read_bytes()

    def test_it_cannot_be_written_resized_or_unsealed(self, sealed):
        _, descriptor = sealed
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)  # as QEMU opens it
        try:
            for change in (
                lambda: os.pwrite(again, b"x", 0),
                lambda: os.pwrite(again, b"x", 1 << 20),
                lambda: os.ftruncate(again, 0),
                lambda: os.ftruncate(again, 2 << 20),
                lambda: mmap.mmap(again, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE),
            ):
                with pytest.raises(PermissionError):
                    change()
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.fallocate(again, 3, ctypes.c_long(0), ctypes.c_long(4096)) == -1  # punching a hole
        finally:
            os.close(again)

    def test_a_private_mapping_of_it_can_be_written_and_keeps_the_change_to_itself(self, sealed):
        _, descriptor = sealed
        with mmap.mmap(descriptor, 1 << 20, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as private:
            private[300_000:300_008] = b"changed!"
            assert os.pread(descriptor, 8, 300_000) == b"template"


async def test_qemu_sees_nothing_of_the_host_but_its_own_files(microvm: MicrovmBackend, attacker, cache):
    """An attacker who breaks out of the guest into QEMU is in a namespace without the user's files or a network."""
    async with open_guest(microvm, attacker, on_step=lambda _: None) as sandbox:
        await sandbox.run(GuestRequest("look", {}), deadline=time.monotonic() + 300, on_progress=lambda _: None)
        mine = [Path(f"/proc/{pid}") for pid, name in processes().items() if name.startswith("qemu-system")]
        assert len(mine) == 1
        for process in mine:
            assert (process / "environ").read_bytes() in (b"", b"PWD=/\0")
            for name in ("mnt", "net", "pid", "ipc", "uts"):  # and `test_host_user` shows which user it is
                assert (process / "ns" / name).readlink() != Path(f"/proc/self/ns/{name}").readlink(), name
            root = process / "root"
            assert not (root / str(cache).lstrip("/")).exists()
            assert not (root / "root").exists()
            assert not (root / "home").exists()
            status = (process / "status").read_text()
            assert "Seccomp:\t2" in status
            assert "NoNewPrivs:\t1" in status
            writable = []
            for descriptor in (process / "fd").iterdir():
                target = str(descriptor.readlink())
                flags = int((process / "fdinfo" / descriptor.name).read_text().split("flags:\t")[1].split()[0], 8)
                if target.startswith("/") and flags & os.O_ACCMODE and not target.startswith(("/dev/", "/memfd:")):
                    writable.append(target)
            assert writable == []
