"""What the microVM's probe says if no guest boots, or none in time, and how long that is believed."""

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from silo.sandbox.backends.microvm import host, kernel
from silo.sandbox.backends.microvm.backend import MicrovmBackend
from silo.sandbox.backends.microvm.machine import MACHINES, Accelerator
from silo.sandbox.backends.microvm.probe import Boots, ProbedBoot, try_to_boot
from silo.sandbox.backends.microvm.qemu import Qemu, can_map_read_only
from silo.sandbox.image import Images
from silo.sandbox.probe_memory import ProbeMemory
from silo.sandbox.skill.base import GuestRequest
from silo.sandbox.skill.call import open_guest
from silo.testing import PATIENCE_S

pytestmark = pytest.mark.anyio


@pytest.fixture
def broken_kernel(kernel_folder, tmp_path):
    """A kernel pack whose kernel boots and whose first program can't be run."""
    good = kernel.find(kernel_folder)
    assert good is not None
    folder = tmp_path / "kernel" / "broken"
    folder.mkdir(parents=True)
    kernel.write_pack(
        folder, release=good.release, image=good.image.read_bytes(), modules={}, busybox=b"not a program of any kind"
    )
    return folder.parent


async def test_a_failed_probe_keeps_what_the_guest_said_on_its_console(broken_kernel, tmp_path):
    backend = MicrovmBackend(home=tmp_path, images=Images(tmp_path / "images"), kernel_folder=broken_kernel)
    probe = await backend.probe()
    assert not probe.works
    emulated = next(reason for reason in probe.missing if reason.startswith("tcg: "))
    assert "its console said: " in emulated
    assert "Kernel panic" in emulated
    assert "\x1b" not in emulated
    assert "\n" not in emulated
    # The failure is remembered with its reason, for later processes.
    again = MicrovmBackend(home=tmp_path, images=Images(tmp_path / "images"), kernel_folder=broken_kernel)
    assert (await again.probe()).missing == probe.missing


KVM = Accelerator("kvm", "", "host")  # without a device, so that any machine will do
EMULATION = Accelerator("tcg", "", "max", is_hardware=False)


class Machine:
    """A machine on which guests boot as it is told, and its clock."""

    def __init__(self, home, kernel_folder):
        self.now = 1000.0
        self.kvm = ProbedBoot("a guest was started and did not run within 8 s", None, is_late=True)
        self.tried = []
        self._home = home
        self._kernel_folder = kernel_folder
        row = host.machine()
        assert row is not None
        self._row = replace(row, accelerators=(KVM, EMULATION))

    async def boot(self, qemu, kernel, budget_s):
        self.tried.append((qemu.accelerator.name, budget_s))
        return self.kvm if qemu.accelerator == KVM else ProbedBoot("", None)

    def process(self):
        """Return the backend of a silo that starts now."""
        return MicrovmBackend(
            home=self._home,
            images=Images(self._home / "images"),
            kernel_folder=self._kernel_folder,
            host=self._row,
            boot=self.boot,
            clock=lambda: self.now,
        )


def about_kvm(probe):
    return [note for note in probe.notes if note.startswith("kvm: ")]


@pytest.fixture
def busy(tmp_path, kernel_folder):
    """A machine with KVM that is too busy for a guest to boot in time."""
    return Machine(tmp_path, kernel_folder)


async def test_a_hardware_probe_that_was_late_means_emulation_for_a_minute_and_not_until_the_reboot(busy):
    assert "TCG" in (await busy.process().probe()).detail
    assert busy.tried == [("kvm", 8.0), ("tcg", 120.0)]
    busy.kvm = ProbedBoot("", None)
    busy.now += 59
    assert "TCG" in (await busy.process().probe()).detail
    busy.now += 2
    found = await busy.process().probe()
    assert "KVM" in found.detail
    assert not about_kvm(found)
    assert busy.tried[2:] == [("kvm", 8.0)]
    busy.now += 100_000
    await busy.process().probe()
    assert len(busy.tried) == 3, "what works is remembered until the reboot"


async def test_each_failure_is_remembered_longer_up_to_an_hour(tmp_path):
    row = MACHINES["x86_64"]
    qemu = Qemu(Path("/nowhere/qemu"), Path("/nowhere/bwrap"), "7.2.22", False, row, KVM)
    nothing = kernel.GuestKernel("6.1.0", "k" * 64, Path("/nowhere/vmlinuz"), Path("/nowhere/initramfs"))
    now, tried = 0.0, []

    async def boot(qemu, kernel, budget_s):
        tried.append(now)
        return ProbedBoot("it was too busy", None, is_late=True)

    boots = Boots(ProbeMemory(tmp_path / "probes.json"), boot, lambda: now)
    while now < 20_000:
        await boots.of(qemu, nothing, refresh=False, is_patient=False)
        now += 30
    waits = [later - earlier for earlier, later in pairwise(tried)]
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]
    await boots.of(qemu, nothing, refresh=True, is_patient=False)
    now += 60
    await boots.of(qemu, nothing, refresh=False, is_patient=False)
    assert tried[-1] - tried[-2] == 60, "a person who asks starts from the beginning"


async def test_a_late_probe_is_said_by_doctor_and_in_the_log_and_asking_again_gives_it_more_time(busy, caplog):
    found = await busy.process().probe()
    (note,) = about_kvm(found)
    assert note.startswith("kvm: a guest was started and did not run within 8 s")
    assert "`silo doctor --refresh` tries at once" in note
    (record,) = [record for record in caplog.records if record.name.startswith("silo.sandbox")]
    assert record.getMessage().startswith("KVM did not start a guest in time, so guests are slow, under TCG")
    busy.tried.clear()
    await busy.process().probe(refresh=True)
    assert busy.tried == [("kvm", 30.0), ("tcg", 120.0)]


async def test_hardware_that_refuses_at_once_is_a_note_and_no_warning(busy, caplog):
    busy.kvm = ProbedBoot("QEMU ended: no KVM", None)
    assert about_kvm(await busy.process().probe()) == ["kvm: QEMU ended: no KVM"]
    assert [record for record in caplog.records if record.name.startswith("silo.sandbox")] == []


async def test_a_process_that_stays_tries_again_without_letting_a_call_wait(busy):
    may_boot = anyio.Event()
    quick = busy.boot

    async def boot(qemu, kernel, budget_s):
        if busy.now > 1000:  # not the first time
            await may_boot.wait()
        return await quick(qemu, kernel, budget_s)

    busy.boot = boot
    async with busy.process() as resident:
        first = await resident.probe()
        busy.kvm = ProbedBoot("", None)
        busy.now += 61
        with anyio.fail_after(PATIENCE_S):
            assert await resident.probe() == first
            assert await resident.probe() == first
            may_boot.set()
            while "KVM" not in (await resident.probe()).detail:
                await anyio.sleep(0.01)
    assert busy.tried.count(("kvm", 30.0)) == 1, "nobody waits, so the guest gets more time"


async def test_a_call_says_that_it_was_emulated_only_because_kvm_was_late(
    cache, images, kernel_folder, make_unit, tmp_path
):
    """The result of a call has the note, so an agent's client sees it as well."""
    (tmp_path / "templates").symlink_to(cache / "templates")  # the memory of probes is another, the templates are not
    row = host.machine()
    assert row is not None
    emulated = next(each for each in row.accelerators if not each.is_hardware)

    async def boot(qemu, kernel, budget_s):
        if qemu.accelerator == KVM:
            return ProbedBoot("a guest was started and did not run within 8 s", None, is_late=True)
        return await try_to_boot(qemu, kernel, budget_s)

    unit = await make_unit(
        "from silo import Skill\nskill = Skill('probe')\n\n@skill.tool()\ndef go() -> None:\n    '''Go.'''\n"
    )
    facts = []
    for accelerators in ((KVM, emulated), (emulated,)):
        backend = MicrovmBackend(
            home=tmp_path,
            images=images,
            kernel_folder=kernel_folder,
            host=replace(row, accelerators=accelerators),
            boot=boot,
        )
        async with backend, open_guest(backend, unit, on_step=lambda _: None) as guest:
            request = GuestRequest("go", {})
            reply = await guest.run(request, deadline=time.monotonic() + PATIENCE_S, on_progress=lambda _: None)
            facts.append(reply.facts)
    late, plain = facts
    assert late["note"].startswith("KVM did not start a guest in time")
    assert "note" not in plain


@pytest.mark.parametrize("text", ["", "null", "[]", "3", "0:", "{}", '{"failure": 1, "tsc_khz": null}', '{"x": 1}'])
def test_a_memory_that_makes_no_sense_counts_as_none(text):
    assert ProbedBoot.parse(text) is None


def test_a_boot_is_read_as_it_was_written():
    for boot in (ProbedBoot("", 2_000_000), ProbedBoot('late: | "x"', None, True, 3, 77.5)):
        assert ProbedBoot.parse(boot.text()) == boot


async def test_doctor_says_how_much_memory_copies_of_templates_may_take(busy):
    found = await busy.process().probe()
    is_old = not can_map_read_only(found.detail.split()[1].rstrip(","))
    assert any("up to 512 MiB (`sandbox.template_memory_mib`)" in note for note in found.notes) == is_old
