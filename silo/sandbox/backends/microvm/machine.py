"""What differs between host architectures and accelerators, as data: machine types, devices, kernels, packages.

Only x86_64 with TCG has been run where silo is developed; the other rows are what QEMU's and Debian's documentation
says, and count for nothing until `silo doctor` has booted a guest with them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Accelerator:
    """A way for QEMU to run guest code.

    Attributes:
        name: as in `-accel NAME`.
        options: appended to it.
        cpu: the CPU model; a template works only with the one that it was made with.
        device: a file that must be there and open for reading and writing, or empty.
        system: `platform.system()` of the hosts that have it, or empty for all.
    """

    name: str
    options: str
    cpu: str
    device: str = ""
    system: str = ""
    is_hardware: bool = True


@dataclass(frozen=True)
class Machine:
    """How a guest's machine looks for one architecture.

    Attributes:
        binary: QEMU's program.
        options: of `-machine`, without the memory backend.
        firmware: the file that QEMU is told to start the machine with (`-bios`), or empty where `-kernel` needs none.
            It is always named: what QEMU takes by itself differs from one distribution to the next (`bios-microvm.bin`
            is a link to qboot in Debian 12 and a SeaBIOS in Debian 13, which boots no kernel without option ROMs).
        firmware_package: Debian's and Ubuntu's package with that file.
        console: the guest's serial console, as in `console=`.
        kernel_packages: Debian's and Ubuntu's packages with a kernel for virtual machines, in order of preference.
        kernel_names: how the kernel's file is called inside such a package.
        accelerators: in order of preference.
    """

    binary: str
    package: str
    options: str
    console: str
    kernel_packages: tuple[str, ...]
    kernel_names: tuple[str, ...]
    accelerators: tuple[Accelerator, ...]
    firmware: str = ""
    firmware_package: str = ""


# A boot translates more than 64 MiB of code, and would throw it away and translate again.
_TCG = Accelerator("tcg", "tb-size=256", "max", is_hardware=False)

# The legacy timer (pit) must stay on under TCG, and ACPI too: Debian's cloud kernel has no
# CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES.
MACHINES: dict[str, Machine] = {
    "x86_64": Machine(
        binary="qemu-system-x86_64",
        package="qemu-system-x86",
        options="microvm,acpi=on,pit=on,pic=on,rtc=on,isa-serial=on,x-option-roms=off,usb=off,graphics=off",
        console="ttyS0",
        kernel_packages=("linux-image-cloud-amd64", "linux-image-virtual"),
        kernel_names=("vmlinuz",),
        accelerators=(
            Accelerator("kvm", "", "host", device="/dev/kvm", system="Linux"),
            Accelerator("hvf", "", "host", system="Darwin"),
            _TCG,
        ),
        firmware="qboot.rom",
        firmware_package="qemu-system-data",
    ),
    "aarch64": Machine(
        binary="qemu-system-aarch64",
        package="qemu-system-arm",
        options="virt,gic-version=max",
        console="ttyAMA0",
        kernel_packages=("linux-image-cloud-arm64", "linux-image-virtual"),
        kernel_names=("vmlinuz",),
        accelerators=(
            Accelerator("kvm", "", "host", device="/dev/kvm", system="Linux"),
            Accelerator("hvf", "", "host", system="Darwin"),
            _TCG,
        ),
    ),
}

KERNEL_MODULES = ("virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "virtio_console")
"""What a guest needs, in the order of loading; a module that the kernel has built in is left out."""

KERNEL_ARGUMENTS = (
    "quiet loglevel=3 panic=-1 reboot=t random.trust_cpu=on mitigations=off ipv6.disable=1 audit=0 psi=0 tsc=reliable "
    "cgroup_disable=memory init_on_alloc=0 lsm=capability"
)
"""What is switched off.

`mitigations=off`, `init_on_alloc=0`, `lsm=capability`: they protect a guest's kernel from the guest's programs, which
silo does not rely on; the host's own are the host's. The others leave out accounting and watchdogs that a guest of
seconds has no use for, and whose code each emulated clone would have to translate.
"""
