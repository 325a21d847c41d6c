"""What `silo setup` finds missing on this machine. The fixture `kernel_folder` fetches a kernel once for all tests."""

from dataclasses import replace

import pytest

from silo.sandbox.backends.microvm import host as hosts


def test_a_machine_without_its_firmware_lacks_it_and_setup_installs_its_package(tmp_path):
    """QEMU is installed, but its firmware for microVMs is not, as on distributions with separate packages."""
    host = hosts.machine()
    assert host is not None
    host = replace(host, firmware="silo-test.rom", firmware_package="silo-test-firmware")
    missing = hosts.missing_programs(host)
    assert [(each.name, each.package) for each in missing] == [("silo-test.rom", "silo-test-firmware")]


@pytest.mark.parametrize("architecture", ["x86_64", "arm64", "aarch64"])
def test_a_host_that_is_no_linux_is_offered_no_microvm(architecture):
    """QEMU for macOS would lack bubblewrap and memfd, so a row for it could not work."""
    assert hosts.machine("Darwin", architecture) is None
    assert hosts.machine("Linux", architecture) is not None


def test_a_machine_with_everything_lacks_nothing():
    host = hosts.machine()
    assert host is not None
    assert hosts.missing_programs(host) == ()
