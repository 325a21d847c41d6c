"""Waiting clones are rehearsed, stand still, serve one call, and end with the backend; with real microVMs."""

import contextlib
import os
import signal
import time
from pathlib import Path

import anyio
import pytest

from silo.errors import SkillRaised
from silo.sandbox.backends.microvm.backend import MicrovmBackend
from silo.sandbox.skill.base import GuestRequest
from silo.sandbox.skill.call import open_guest
from silo.testing import PATIENCE_S

pytestmark = pytest.mark.anyio

SCRIPT = '''
import os
from pathlib import Path
from silo import Skill

skill = Skill("probe")
warmed = []


@skill.warmup()
def warm() -> None:
    warmed.append(1)


@skill.tool()
def leave(mark: str) -> dict:
    """Say what is here, and leave something behind."""
    found = sorted(path.name for path in Path("/tmp").iterdir())
    Path("/tmp", mark).write_text(mark)
    return {"host": os.uname().nodename, "found": found, "random": os.urandom(8).hex()}


@skill.tool()
def fail() -> None:
    """Fail."""
    raise ValueError("as told")
'''

BUSY = '''
import threading, time
from silo import Skill

skill = Skill("probe")
turns = 0
warmed_at = 0.0


def spin() -> None:
    global turns
    while True:
        turns += 1


threading.Thread(target=spin, daemon=True).start()


@skill.warmup()
def warm() -> None:
    global warmed_at
    warmed_at = time.monotonic()


@skill.tool()
def clocks() -> dict:
    """Say what the guest's clocks show, and how well its timers keep time."""
    since_warmup, now = time.monotonic() - warmed_at, time.time()
    time.sleep(0.05)
    return {"since_warmup": since_warmup, "now": now, "slept": time.monotonic() - warmed_at - since_warmup}
'''

STILL_S = 3.0
"""How long a waiting clone is watched. The process of a guest whose processor runs takes all of it, or its share."""


@pytest.fixture
async def resident(cache, images, kernel_folder):
    async with MicrovmBackend(home=cache, images=images, kernel_folder=kernel_folder, warm=1) as backend:
        yield backend


async def call(backend, unit, tool="leave", **arguments):
    async with open_guest(backend, unit, on_step=print) as sandbox:
        return await sandbox.run(
            GuestRequest(tool, arguments), deadline=time.monotonic() + PATIENCE_S, on_progress=lambda progress: None
        )


def machines():
    """Return the ids of all processes that run for this one: bubblewrap, and QEMU in it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, fresh = set(), {os.getpid()}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh}
        found |= fresh
    return found


async def test_a_clone_that_waited_serves_one_call_and_no_second(resident, make_unit):
    unit = await make_unit(SCRIPT)
    replies = []
    for mark in ("a", "b", "c"):
        replies.append(await call(resident, unit, mark=mark))
        await resident.settle()
    kinds = [reply.facts["backend"].rpartition(", ")[2] for reply in replies]
    assert kinds == ["clone", "warm clone", "warm clone"]
    data = [reply.outcome.data for reply in replies]
    assert all(one["found"] == [] for one in data), "what one call left was seen by the next"
    assert len({one["host"] for one in data}) == len({one["random"] for one in data}) == 3


async def test_a_failed_call_does_not_spoil_the_next_clone(resident, make_unit):
    unit = await make_unit(SCRIPT)
    for _ in range(2):
        with pytest.raises(SkillRaised, match="as told"):
            await call(resident, unit, tool="fail")
        await resident.settle()
    assert (await call(resident, unit, mark="x")).outcome.data["found"] == []


async def test_a_clone_that_died_while_it_waited_is_replaced_unseen(resident, make_unit):
    unit = await make_unit(SCRIPT)
    before = machines()
    await call(resident, unit, mark="a")
    await resident.settle()
    waiting = machines() - before
    assert waiting
    for pid in waiting:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with anyio.fail_after(PATIENCE_S):
        while any(Path(f"/proc/{pid}").exists() for pid in waiting):  # not `machines`: orphans have another parent
            await anyio.sleep(0.01)
    assert (await call(resident, unit, mark="b")).outcome.data["found"] == []


def processor_s(pids):
    """Return the processor time that the processes have used so far, in seconds (`man 5 proc_pid_stat`)."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def test_nothing_runs_in_a_clone_before_its_call(resident, make_unit):
    """A thread that the skill starts when it is imported ran on in each waiting clone, for a quarter of an hour."""
    unit = await make_unit(BUSY)
    before = machines()
    await call(resident, unit, tool="clocks")
    await resident.settle()
    waiting = machines() - before
    assert waiting
    used = processor_s(waiting)
    await anyio.sleep(STILL_S)  # the period over which the processor time is measured
    assert processor_s(waiting) - used <= 0.02 * STILL_S


async def test_a_clone_that_stood_still_knows_the_time_and_its_own_clock_did_not_run(resident, make_unit):
    """Timers do not count the time of waiting, and the date is that of the call."""
    unit = await make_unit(BUSY)
    await call(resident, unit, tool="clocks")
    await resident.settle()
    await anyio.sleep(STILL_S)
    began = time.time()
    reply = await call(resident, unit, tool="clocks")
    assert reply.facts["backend"].endswith("warm clone")
    assert reply.outcome.data["since_warmup"] < STILL_S
    assert began - 0.5 < reply.outcome.data["now"] < time.time() + 0.5
    assert reply.outcome.data["slept"] >= 0.05


async def test_closing_the_backend_ends_the_clones_that_wait(cache, images, kernel_folder, make_unit):
    unit = await make_unit(SCRIPT)
    before = machines()
    async with MicrovmBackend(home=cache, images=images, kernel_folder=kernel_folder, warm=2) as backend:
        await call(backend, unit, mark="a")
        await backend.settle()
        assert machines() - before
    assert not machines() - before
