"""The folder of templates: several processes prune it at once, and nothing half-made is left.

The conformance suite tests the content of templates; here, those with a clock that isn't in the past are refused.
"""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from silo.errors import SandboxBroken
from silo.sandbox.backends.microvm.backend import MicrovmBackend
from silo.sandbox.backends.microvm.kernel import GuestKernel
from silo.sandbox.backends.microvm.machine import MACHINES
from silo.sandbox.backends.microvm.memories import Memories
from silo.sandbox.backends.microvm.qemu import Firmware, Qemu
from silo.sandbox.backends.microvm.template import Templates, host_facts
from silo.sandbox.image import Images
from silo.sandbox.skill.describe import SkillProgram
from silo.sizes import MIB
from silo.testing.fakes import fake_unit

PATIENCE_S = 300.0


@pytest.fixture
def templates(tmp_path):
    """Templates of a QEMU and a kernel that don't exist: nothing here starts them."""
    row = MACHINES["x86_64"]
    qemu = Qemu(Path("/nowhere/qemu"), Path("/nowhere/bwrap"), "7.2.22", False, row, row.accelerators[-1])
    kernel = GuestKernel("6.1.0", "k" * 64, Path("/nowhere/vmlinuz"), Path("/nowhere/initramfs"))
    return Templates(tmp_path / "templates", Images(tmp_path / "images"), qemu, kernel, Memories(0))


def test_two_who_prune_at_once_both_succeed(templates, tmp_path):
    for number in range(300):
        (tmp_path / "templates" / f"{number:032}").mkdir(parents=True)
    start = threading.Barrier(2)

    def prune():
        start.wait(PATIENCE_S)
        return len(templates.prune([]))

    with ThreadPoolExecutor(max_workers=2) as pool:
        counts = [done.result(PATIENCE_S) for done in [pool.submit(prune) for _ in range(2)]]
    assert sum(counts) == 300
    templates.prune([])
    assert list((tmp_path / "templates").iterdir()) == []


def test_a_template_is_made_anew_when_the_firmware_changes(tmp_path):
    row = MACHINES["x86_64"]
    kernel = GuestKernel("6.1.0", "k" * 64, Path("/nowhere/vmlinuz"), Path("/nowhere/initramfs"))
    digests = set()
    for contents in ("a", "b"):
        firmware = Firmware(Path("/nowhere/qboot.rom"), contents * 64)
        qemu = Qemu(Path("/nowhere/qemu"), Path("/nowhere/bwrap"), "7.2.22", False, row, row.accelerators[-1], firmware)
        one = Templates(tmp_path / "templates", Images(tmp_path / "images"), qemu, kernel, Memories(0))
        digests.add(one.digest(fake_unit("demo", "d" * 64).spec))
    assert len(digests) == 2


def test_only_templates_of_other_units_are_pruned(templates, tmp_path):
    unit, other = fake_unit("demo", "d" * 64).spec, fake_unit("other", "o" * 64).spec
    for one in (unit, other):
        (tmp_path / "templates" / templates.digest(one)[:32]).mkdir(parents=True)
    assert [path.name for path in templates.prune([unit])] == [templates.digest(other)[:32]]
    assert [path.name for path in (tmp_path / "templates").iterdir()] == [templates.digest(unit)[:32]]


@pytest.mark.anyio
async def test_a_template_whose_making_is_cancelled_leaves_no_folder(templates, tmp_path):
    steps = []

    def on_step(step):
        steps.append(step)
        scope.cancel()

    with anyio.fail_after(PATIENCE_S), anyio.CancelScope() as scope:
        await templates.get(
            fake_unit("demo", "d" * 64).spec,
            SkillProgram(),
            deadline=anyio.current_time() + PATIENCE_S,
            on_step=on_step,
        )
    assert scope.cancelled_caught
    assert steps == ["booting a microVM for 'demo'"]
    assert list((tmp_path / "templates").glob(".building-*")) == []


@pytest.mark.anyio
async def test_a_template_that_is_being_made_is_not_swept(templates, tmp_path):
    def on_step(step):
        assert templates.prune([]) == []
        assert len(list((tmp_path / "templates").glob(".building-*"))) == 1
        scope.cancel()

    with anyio.fail_after(PATIENCE_S), anyio.CancelScope() as scope:
        await templates.get(
            fake_unit("demo", "d" * 64).spec,
            SkillProgram(),
            deadline=anyio.current_time() + PATIENCE_S,
            on_step=on_step,
        )
    assert scope.cancelled_caught
    templates.prune([])
    assert list((tmp_path / "templates").iterdir()) == []


@pytest.mark.parametrize(("age_h", "is_found"), [(26.0, True), (23.0, False), (0.0, False), (-30.0, False)])
def test_a_template_whose_clock_is_not_in_the_past_any_more_is_made_anew(templates, tmp_path, age_h, is_found):
    """Somebody set the clock of this machine back, so a clone's clock would not jump, and its OpenSSL not reseed."""
    spec = fake_unit("demo", "d" * 64).spec
    folder = tmp_path / "templates" / templates.digest(spec)[:32]
    folder.mkdir(parents=True)
    with open(folder / "memory", "wb") as memory:
        memory.truncate(spec.limits.memory_mib * MIB)
    (folder / "state").write_bytes(b"state")
    facts = {"kept": {}, "timing": {}, "state_bytes": 5, "clock": time.time() - age_h * 3600}
    (folder / "template.json").write_text(json.dumps(facts))
    assert (templates.find(spec) is not None) == is_found


CLOCK = '''
from silo import Skill

skill = Skill("clock")


@skill.tool()
def nothing() -> None:
    """Do nothing."""
'''


class OnTime(SkillProgram):
    """A program whose guest has the right time, as one with a clock of its own would."""

    async def hold(self, guest, *, deadline):
        await super().hold(guest, deadline=deadline)
        return time.time()


@pytest.mark.anyio
async def test_qemu_complains_about_nothing_when_it_saves_a_guest_and_starts_a_clone_of_it(
    make_unit, tmp_path, images, kernel_folder
):
    """From 9.1 on, QEMU warned that `fd:` is deprecated for a file; it gets `file:` there."""
    unit = await make_unit(CLOCK, name="clock")
    said = []

    class Listening(SkillProgram):
        async def hold(self, guest, *, deadline):
            guest.end = listening_to(guest)
            return await super().hold(guest, deadline=deadline)

    def listening_to(guest):
        end = guest.end

        async def listen():
            said.append(guest.last_words())
            guest.end = end
            return await end()

        return listen

    async with MicrovmBackend(home=tmp_path, images=images, kernel_folder=kernel_folder) as backend:
        deadline = time.monotonic() + PATIENCE_S
        prepared = await backend.prepare(unit.spec, Listening(), deadline=deadline, on_step=lambda _: None)
        async with prepared.start() as clone:
            said.append(clone.last_words())
    assert said == ["it said nothing"] * 2


HARDWARE = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC
microcode\t: 0x1
cpu MHz\t\t: 2445.404
flags\t\t: fpu vme
"""


@pytest.mark.parametrize(
    ("cpuinfo", "kernel", "depends"),
    [
        (HARDWARE, "6.1.0-42-amd64 #1 SMP Debian 6.1.160-1", {True: True, False: False}),
        (HARDWARE, "6.1.0-41-amd64 #1 SMP Debian 6.1.159-1", {True: True, False: False}),
        (HARDWARE.replace("0x1", "0x2"), "6.1.0-41-amd64 #1 SMP Debian 6.1.158-1", {True: True, False: False}),
        (HARDWARE.replace("vme", "svm"), "6.1.0-41-amd64 #1 SMP Debian 6.1.158-1", {True: True, False: False}),
        (HARDWARE.replace("EPYC", "Ryzen"), "6.1.0-41-amd64 #1 SMP Debian 6.1.158-1", {True: True, False: True}),
        (HARDWARE.replace("2445", "1800"), "6.1.0-41-amd64 #1 SMP Debian 6.1.158-1", {True: False, False: False}),
    ],
    ids=["kernel", "kernel with the same release", "microcode", "flags", "model", "clock rate"],
)
def test_a_template_is_made_anew_when_the_host_changes_in_a_way_that_counts(cpuinfo, kernel, depends):
    for is_hardware, expected in depends.items():
        before = host_facts(HARDWARE, "6.1.0-41-amd64 #1 SMP Debian 6.1.158-1", is_hardware=is_hardware)
        assert (host_facts(cpuinfo, kernel, is_hardware=is_hardware) != before) is expected


@pytest.mark.anyio
async def test_a_template_whose_clock_is_not_behind_is_refused(make_unit, tmp_path, images, kernel_folder):
    """A guest whose clock is in the past becomes a template, although the clock of its machine shows the right time."""
    unit = await make_unit(CLOCK, name="clock")

    async def prepare(program):
        deadline = time.monotonic() + PATIENCE_S
        return await backend.prepare(unit.spec, program, deadline=deadline, on_step=lambda _: None)

    async with MicrovmBackend(home=tmp_path, images=images, kernel_folder=kernel_folder) as backend:
        with pytest.raises(SandboxBroken, match="the clock of a guest of 'clock' is not a day behind"):
            await prepare(OnTime())
        assert [path for path in (tmp_path / "templates").iterdir() if not path.name.startswith(".lock")] == []
        await prepare(SkillProgram())
        (facts,) = (tmp_path / "templates").glob("*/template.json")
        assert json.loads(facts.read_text())["clock"] < time.time() - 24 * 3600
