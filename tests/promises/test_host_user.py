"""Promise 1, seen from the host: nothing that runs a call is the host's root, and a guest learns little of the machine.

`silo.sandbox.identity` says how. These tests pass whoever runs them; as root, they show more.
"""

import os
import sys
import time
from ast import literal_eval
from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from silo.model import Isolation
from silo.sandbox.backends.microvm.machine import MACHINES
from silo.sandbox.backends.microvm.qemu import Qemu, confine, filter_rules
from silo.sandbox.backends.namespace.procfs import VISIBLE
from silo.sandbox.identity import Identity, find_identity
from silo.sandbox.process import GuestProcess
from silo.sandbox.programs import find_program
from silo.sandbox.skill.base import GuestRequest
from silo.sandbox.skill.call import open_guest
from silo.testing import PATIENCE_S
from silo.testing.traces import processes

pytestmark = pytest.mark.anyio

UNUSED = 60000
"""Ids of people and services of the host are below; `silo.sandbox.identity` takes others."""


def ids(pid):
    """Return the user and group ids and the capabilities of a process, as the host sees them."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    users = {int(word) for name in ("Uid", "Gid") for word in status[name].split()}
    groups = {int(word) for word in status["Groups"].split()}
    return users, groups, int(status["CapPrm"], 16) | int(status["CapEff"], 16), status["NoNewPrivs"]


@pytest.fixture
async def running(backend, attacker):
    """The processes of a call that runs, by what they are: QEMU, or the guest's own."""
    name = "qemu-system" if backend.isolation is Isolation.MICROVM else "python3"
    seen = anyio.Event()
    async with anyio.create_task_group() as tasks, open_guest(backend, attacker, on_step=lambda _: None) as sandbox:

        async def call():
            request = GuestRequest("hold", {"name": "KEY", "seconds": 3600}, {"KEY": "value"})
            await sandbox.run(request, deadline=time.monotonic() + 3600, on_progress=lambda _: seen.set())

        tasks.start_soon(call)
        with anyio.fail_after(PATIENCE_S):
            await seen.wait()
        yield [pid for pid, found in processes().items() if found.startswith(name)]
        tasks.cancel_scope.cancel()


async def test_what_runs_a_call_is_not_root_for_the_host(running):
    """A past bug: a user namespace hides only from a program that it is root; QEMU had not even that everywhere."""
    assert running
    for pid in running:
        users, groups, capabilities, no_new_privileges = ids(pid)
        assert (capabilities, no_new_privileges) == (0, "1")
        if os.geteuid() == 0:
            assert len(users | groups) == 1, "user and group have one id, and there are no other groups"
            assert min(users) >= UNUSED
        else:
            assert 0 not in users
            assert Path(f"/proc/{pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()


BROKEN_OUT = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    done = libc.syscall(*(ctypes.c_long(number) for number in numbers))
    return "done" if done != -1 else errno.errorcode[ctypes.get_errno()]
def read(path):
    try:
        return open(path).read()
    except OSError as error:
        return errno.errorcode[error.errno]
results = {
    "keyctl": call(250, 0, -3, 0), "add_key": call(248, 0, 0, 0, 0, -3), "unshare": call(272, 0x10000000),
    "socket": call(41, 16, 3, 0), "bpf": call(321, 0, 0, 0), "getpid": call(39), "mbind": call(237, 0, 0, 0, 0, 0, 0),
    "keys": read("/proc/keys"), "key-users": read("/proc/key-users"), "uptime": bool(read("/proc/uptime")),
}
os.write(int(sys.argv[1]), repr(results).encode())
"""


async def test_what_breaks_out_of_a_guest_into_qemu_reaches_no_key_of_the_user_and_makes_no_namespace():
    """The confinement of QEMU, around another program. A past bug: `-sandbox on` alone allows all of these."""
    row = MACHINES["x86_64"]
    accelerator = next(each for each in row.accelerators if not each.device)
    qemu = Qemu(Path("/usr/bin/qemu"), find_program("bwrap"), "7.2.22", False, row, accelerator)
    prefix = Path(sys.base_prefix)
    python = {} if prefix.is_relative_to("/usr") else {str(prefix): prefix}
    for identity in (find_identity(), Identity()):
        reading, writing = os.pipe()
        program = [str(Path(sys.executable).resolve()), "-I", "-S", "-c", BROKEN_OUT, str(writing)]
        argv = confine(replace(qemu, identity=identity), program, memory_mib=64, binds=python, writable={})
        guest = await GuestProcess.start(argv, inherit=[writing], rules=filter_rules())
        os.close(writing)
        try:
            await guest.tie()
            told = await anyio.to_thread.run_sync(os.read, reading, 4096)
        finally:
            os.close(reading)
            await guest.end()
        assert told, guest.last_words()
        assert literal_eval(told.decode()) == {
            "keyctl": "EPERM", "add_key": "EPERM", "unshare": "EPERM", "socket": "EAFNOSUPPORT", "bpf": "EPERM",
            "keys": "EACCES", "key-users": "EACCES", "getpid": "done", "mbind": "done", "uptime": True,
        }  # fmt: skip


async def test_the_last_words_of_a_qemu_that_dies_are_its_own():
    """A shell that waits for it would add `Aborted`, and hide why (seen with KVM on a nested host)."""
    row = MACHINES["x86_64"]
    accelerator = next(each for each in row.accelerators if not each.device)
    qemu = Qemu(Path("/usr/bin/qemu"), find_program("bwrap"), "7.2.22", False, row, accelerator)
    for identity in (find_identity(), Identity()):
        program = ["/bin/sh", "-c", "echo chatter; echo an assertion failed >&2; kill -ABRT $$"]
        argv = confine(replace(qemu, identity=identity), program, memory_mib=64, binds={}, writable={})
        guest = await GuestProcess.start(argv, inherit=[], rules=filter_rules())
        await guest.tie()
        with anyio.fail_after(PATIENCE_S):
            while guest.pid in processes():
                await anyio.sleep(0.01)
        said = guest.last_words()
        await guest.end()
        assert said == "an assertion failed"


async def test_a_guest_learns_of_the_machine_what_programs_need_and_no_more(attack, backend):
    found = await attack("host_facts")
    if backend.isolation is Isolation.NAMESPACE:
        assert set(found["told"]) <= VISIBLE
        assert found["sys"] == []
        assert {"cpuinfo", "meminfo"} <= set(found["told"]), "the test would see nothing of anything"
    host = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert not any(host in text for text in found["beyond"].values())
    if backend.isolation is Isolation.NAMESPACE:
        assert found["beyond"] == {}
