"""Promise 7: a call ends at its limits, and no process of it is left, also when silo itself is killed.

`silo.testing.conformance` tests deadline, memory, output, and what a cancelled call leaves. Here are the limits on a
guest's resources, and the death of silo.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from silo.errors import SandboxTimeout, SkillOutOfMemory
from silo.model import Isolation
from silo.sandbox.backends.namespace.backend import NamespaceBackend
from silo.sandbox.programs import find_program
from silo.sizes import MIB
from silo.testing import PATIENCE_S
from silo.testing.traces import adopting_orphans, processes

pytestmark = pytest.mark.anyio

PROGRAM = """
import sys, time
from pathlib import Path
import anyio
from silo.sandbox.backends.microvm.backend import MicrovmBackend
from silo.sandbox.backends.namespace.backend import NamespaceBackend
from silo.sandbox.base import Image, Limits
from silo.sandbox.skill.base import GuestRequest, Unit
from silo.sandbox.skill.call import open_guest
from silo.sandbox.image import Images

async def main(kind, what, cache, name, *digests_and_trees):
    images = [Image(d, Path(t)) for d, t in zip(digests_and_trees[::2], digests_and_trees[1::2])]
    limits = Limits(memory_mib=192, processes=48, scratch_mib=24, files_bytes=4 << 20)
    unit = Unit(name, *images, limits)
    cache = Path(cache)
    if kind == "microvm":
        warm = 2 if what == "waiting" else 0
        images = Images(cache / "images")
        backend = MicrovmBackend(home=cache, images=images, kernel_folder=cache / "kernel", warm=warm)
    else:
        backend = NamespaceBackend(allow_unlimited=["memory"])
    async with backend:
        async with open_guest(backend, unit, on_step=lambda _: None) as sandbox:
            tool, given = ("multiply", {}) if what == "multiplying" else ("hold", {"name": "KEY", "seconds": 3600})
            if what != "multiplying":
                request = GuestRequest(tool, given, {"KEY": "value"})
            else:
                request = GuestRequest(tool, given)
                print("running", flush=True)
            if what == "starting":
                print("running", flush=True)
            if what == "waiting":
                request = GuestRequest("look", {})
            deadline = time.monotonic() + 3600
            await sandbox.run(request, deadline=deadline, on_progress=lambda _: print("running", flush=True))
        print("running", flush=True)
        await anyio.sleep(3600)

anyio.run(main, *sys.argv[1:])
"""


@pytest.mark.parametrize("what", ["running", "multiplying", "waiting"])
async def test_when_silo_is_killed_its_guests_end_with_it(backend, attacker, attempt, cache, what):
    await attempt("look")  # makes the template
    if what == "waiting" and backend.isolation is not Isolation.MICROVM:
        return  # nothing waits there
    await _kill_silo(backend, attacker, cache, what, after_s=0.0)


async def test_when_silo_is_killed_while_a_guest_starts_it_ends_with_it(backend, attacker, attempt, cache):
    """Bubblewrap ties its child to its own life late; a kill before that left guests behind (a past bug)."""
    await attempt("look")
    for step in range(5):
        await _kill_silo(backend, attacker, cache, "starting", after_s=0.002 * step)


async def _kill_silo(backend, attacker, cache, what, *, after_s):
    """Run silo in its own process, kill that in the middle of a call, and check whether anything is left."""
    images = [
        part for image in (attacker.base, attacker.layer, attacker.runtime) for part in (image.digest, image.tree)
    ]
    with adopting_orphans():
        before = processes()
        silo = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, backend.isolation, what, cache, attacker.name, *images],
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        try:
            assert silo.stdout.readline() == b"running\n"
            with anyio.fail_after(PATIENCE_S):
                while what == "waiting" and sum("qemu" in name for name in processes().values()) < 2:
                    await anyio.sleep(0.02)
            assert what == "starting" or len(processes()) > len(before) + 1
            await anyio.sleep(after_s)
        finally:
            silo.send_signal(signal.SIGKILL)
            silo.wait()
            silo.stdout.close()
        deadline = time.monotonic() + PATIENCE_S
        while (left := processes()) != before and time.monotonic() < deadline:
            await anyio.sleep(0.02)
        for pid in left.keys() - before.keys():
            os.kill(pid, signal.SIGKILL)
        assert left == before


async def test_the_scratch_space_has_an_end(attack, attacker):
    for folder in ("/tmp", "/dev/shm"):
        written = await attack("fill", folder=folder)
        assert written <= attacker.limits.scratch_mib * MIB
        assert written >= attacker.limits.scratch_mib * MIB // 2


async def test_processes_and_threads_have_an_end(attack, attacker):
    """Also where silo is root and there is no control group (a past bug: 900 of 128): see `test_unlimited`."""
    started = await attack("multiply")
    assert 5 < started["processes"] < attacker.limits.processes
    assert 5 < started["threads"] < attacker.limits.processes


@pytest.fixture
async def bounded(backend):
    """The backend, if it bounds a guest's memory here. Where it can't, it starts nothing unless told to."""
    probe = await backend.probe()
    if any("memory has no limit" in note for note in probe.notes):
        unasked = await NamespaceBackend().probe()
        assert (unasked.works, "allow_unlimited" in unasked.hint) == (False, True)
        return None
    return backend


@pytest.mark.parametrize("where", ["itself", "memfd", "shared", "sysv"])
async def test_memory_has_an_end(attempt, bounded, where):
    """A past bug: without a control group, shared memory of a namespace guest has none (3 GiB in one of 256 MiB)."""
    if where == "itself" or bounded is not None:
        with pytest.raises(SkillOutOfMemory):
            await attempt("hoard", where=where)


async def test_memory_of_all_processes_together_has_an_end(attempt, bounded):
    """Twenty children of 60 MiB each in a guest of 192: some are killed, the host is fine, the call ends in time."""
    if bounded is None:
        return
    most = 0

    async def watch():
        nonlocal most
        while True:
            most = max(most, _taken_mib())
            await anyio.sleep(0.05)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        with pytest.raises((SandboxTimeout, SkillOutOfMemory)):
            await attempt("hoard", where="children", deadline_s=4)
        tasks.cancel_scope.cancel()
    assert 0 < most < 700, "more than the guest's memory and QEMU's own was taken"


def _taken_mib():
    """Return the memory of this process's descendants; the host's own figure would include other tests' guests."""
    total_kib = 0
    for pid in processes():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total_kib += int(line.split()[1])
    return total_kib // 1024


HALF_DEAD = """
import ctypes, sys, threading, time
from pathlib import Path
import anyio
from silo.sandbox.backends.microvm.machine import MACHINES
from silo.sandbox.process import GuestProcess
from silo.sandbox.backends.microvm.qemu import Qemu, confine

async def main():
    row = MACHINES["x86_64"]
    accelerator = next(each for each in row.accelerators if not each.device)
    qemu = Qemu(Path("/usr/bin/qemu"), Path(sys.argv[1]), "7.2.22", False, row, accelerator)
    many = {f"/many/{number}": Path("/dev/null") for number in range(400)}  # so that setting up takes a while
    argv = confine(qemu, ["/bin/sleep", "3600"], memory_mib=64, binds=many, writable={})
    if sys.argv[2] == "half dead":
        threading.Thread(target=time.sleep, args=(3600,)).start()
    guest = await GuestProcess.start(argv, inherit=[])
    print("starting", flush=True)
    if sys.argv[2] == "alive":
        await guest.tie()
        await anyio.sleep(3600)
    ctypes.CDLL(None).syscall(ctypes.c_long(60), ctypes.c_long(0))  # exit, of this thread alone (man 2 exit)

anyio.run(main)
"""


@pytest.mark.parametrize("silo_is", ["alive", "half dead"])
async def test_a_guest_of_which_only_half_of_silo_is_left_never_starts(silo_is):
    """A past bug: bubblewrap dies with silo's first thread, maybe before it has tied its child to itself.

    silo's other threads keep descriptors open for a while.
    """
    with adopting_orphans():
        before = processes()
        silo = subprocess.Popen(
            [sys.executable, "-c", HALF_DEAD, find_program("bwrap"), silo_is],
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        try:
            assert silo.stdout.readline() == b"starting\n"
            with anyio.fail_after(PATIENCE_S):
                while silo_is == "alive" and "sleep" not in processes().values():
                    await anyio.sleep(0.02)
            with anyio.move_on_after(1):
                while silo_is == "half dead":
                    assert "sleep" not in processes().values()
                    await anyio.sleep(0.02)
        finally:
            silo.kill()
            silo.wait()
            silo.stdout.close()
        deadline = time.monotonic() + PATIENCE_S
        while (left := processes()) != before and time.monotonic() < deadline:
            await anyio.sleep(0.02)
        for pid in left.keys() - before.keys():
            os.kill(pid, signal.SIGKILL)
        assert left == before
