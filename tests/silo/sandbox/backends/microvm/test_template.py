"""The folder of templates: several processes prune it at once, and nothing half-made is left.

The conformance suite tests the content of templates.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from silo.sandbox.backends.microvm.kernel import GuestKernel
from silo.sandbox.backends.microvm.machine import MACHINES
from silo.sandbox.backends.microvm.qemu import Firmware, Qemu
from silo.sandbox.backends.microvm.template import Templates
from silo.sandbox.image import Images
from silo.sandbox.skill.describe import SkillProgram
from silo.testing.fakes import fake_unit

PATIENCE_S = 300.0


@pytest.fixture
def templates(tmp_path):
    """Templates of a QEMU and a kernel that don't exist: nothing here starts them."""
    row = MACHINES["x86_64"]
    qemu = Qemu(Path("/nowhere/qemu"), Path("/nowhere/bwrap"), "7.2.22", False, row, row.accelerators[-1])
    kernel = GuestKernel("6.1.0", "k" * 64, Path("/nowhere/vmlinuz"), Path("/nowhere/initramfs"))
    return Templates(tmp_path / "templates", Images(tmp_path / "images"), qemu, kernel)


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
        one = Templates(tmp_path / "templates", Images(tmp_path / "images"), qemu, kernel)
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
