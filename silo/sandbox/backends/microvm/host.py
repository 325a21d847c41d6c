"""What the host must have for microVMs: its row of the table of machines, and the programs and files it lacks."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass

from silo.sandbox.backends.microvm.machine import MACHINES, Machine
from silo.sandbox.backends.microvm.qemu import find_firmware
from silo.sandbox.programs import find_program

_ADMIN_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


@dataclass(frozen=True)
class HostProgram:
    """A program that silo starts, or a file that QEMU needs, and the Debian package that has it."""

    name: str
    package: str
    purpose: str


def machine(system: str | None = None, architecture: str | None = None) -> Machine | None:
    """Return a host's row of the table, or None if silo has no microVM for it. Without arguments, this host's."""
    if (system or platform.system()) != "Linux":
        return None
    name = architecture or platform.machine()
    return MACHINES.get({"arm64": "aarch64"}.get(name, name))


def no_machine() -> str:
    """Say why there is no row for this host."""
    if platform.system() != "Linux":
        return f"silo's sandboxes need Linux (bubblewrap, memfd), and this is {platform.system()}"
    return f"silo has no microVM for the architecture {platform.machine()!r}"


def programs(host: Machine) -> tuple[HostProgram, ...]:
    """Return the programs that the microVM and the namespace backend need."""
    return (
        HostProgram(host.binary, host.package, "runs microVMs"),
        HostProgram("bwrap", "bubblewrap", "confines QEMU, and is the namespace backend"),
        HostProgram("mke2fs", "e2fsprogs", "writes the images"),
    )


def missing_programs(host: Machine) -> tuple[HostProgram, ...]:
    """Return those of `programs` that are missing, and the firmware if QEMU lacks it. Starts QEMU; blocks."""
    missing = [
        program
        for program in programs(host)
        if find_program(program.name) is None and shutil.which(program.name, path=_ADMIN_PATH) is None
    ]
    binary = find_program(host.binary)
    if host.firmware and binary is not None and find_firmware(binary, host.firmware) is None:
        missing.append(HostProgram(host.firmware, host.firmware_package, "the firmware that starts a microVM"))
    return tuple(missing)
