"""What the microVM's probe says if no guest boots: the reason from the guest's own console."""

import pytest

from silo.sandbox.backends.microvm import kernel
from silo.sandbox.backends.microvm.backend import MicrovmBackend
from silo.sandbox.image import Images

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
