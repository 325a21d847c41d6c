"""What differs between host architectures and accelerators, as data: machine types, devices, kernels, packages.

All hosts are Linux: QEMU is confined with bubblewrap, and a guest's memory is a memfd. Only x86_64 with TCG has been
run where silo is developed. The other rows follow the documentation of QEMU and Debian, and are unproven until `silo
doctor` has booted a guest with them.
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
        device: a file that silo must be able to open for reading and writing, or empty.
    """

    name: str
    options: str
    cpu: str
    device: str = ""
    is_hardware: bool = True


@dataclass(frozen=True)
class Machine:
    """A guest's machine for one architecture.

    Attributes:
        binary: QEMU's program.
        options: of `-machine`, without the memory backend.
        firmware: the file with which QEMU starts the machine (`-bios`), or empty if `-kernel` needs none. It is always
            named, because QEMU's default differs between distributions: `bios-microvm.bin` is a link to qboot in Debian
            12, and a SeaBIOS in Debian 13, which boots no kernel without option ROMs.
        firmware_package: Debian's and Ubuntu's package with that file.
        console: the guest's serial console, as in `console=`.
        kernel_packages: Debian's and Ubuntu's packages with a kernel for virtual machines, in order of preference.
        kernel_names: the name of the kernel's file in such a package.
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


# A boot translates more than 64 MiB of code; with a smaller cache it would discard code and translate it again.
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
            Accelerator("kvm", "", "host", device="/dev/kvm"),
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
            Accelerator("kvm", "", "host", device="/dev/kvm"),
            _TCG,
        ),
    ),
}

KERNEL_MODULES = ("virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "virtio_console")
"""The modules that a guest needs, in loading order; one that is built into the kernel is left out."""

KERNEL_ARGUMENTS = (
    "quiet loglevel=3 panic=-1 reboot=t random.trust_cpu=on mitigations=off ipv6.disable=1 audit=0 psi=0 tsc=reliable "
    "cgroup_disable=memory init_on_alloc=0 lsm=capability"
)
"""The kernel arguments that switch features off.

`mitigations=off`, `init_on_alloc=0` and `lsm=capability` drop protections of the guest's kernel from the guest's
programs. silo does not rely on these, and the host's own stay on. The others drop accounting and watchdogs, which a
guest that lives for seconds doesn't need, and whose code each emulated clone would have to translate.
"""
