"""Finds out whether a guest boots on this machine, by booting one. `backend` decides which accelerators to try."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

import anyio

from silo.errors import SiloError
from silo.sandbox.backends.microvm.kernel import GuestKernel
from silo.sandbox.backends.microvm.machine import Accelerator
from silo.sandbox.backends.microvm.qemu import Boot, Memory, Qemu, arguments, confine, filter_rules
from silo.sandbox.backends.microvm.sockets import Sockets, open_sockets
from silo.sandbox.process import GuestProcess
from silo.sizes import MIB

_PROBE_MIB = 128
_PROBE_LINE = re.compile(rb"silo-probe-(\d) ([\d.]+)")

_CONSOLE_LINES = 4
_CONSOLE_CHARS = 400
"""How much of a failed guest's console an error quotes; the last lines of a boot fit."""

_CLOCK_NOISE = 0.05
"""The clocks of guest and host are compared over two seconds on a busy machine; a smaller difference proves nothing."""

_PROBE_S = {True: 8.0, False: 120.0}
"""How long a probe's guest may take to boot, with hardware virtualisation and without.

Without it, a boot took 1.5 s on an idle machine and more than 40 s on one with ten other tasks. The limit is generous
because hangs are rare, and silo would remember a failure until the machine boots again.
"""


def unusable_device(accelerator: Accelerator) -> str:
    """Return why the accelerator's device can't be opened, or an empty string."""
    if not accelerator.device:
        return ""
    try:
        os.close(os.open(accelerator.device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"{accelerator.device} does not exist (no hardware virtualisation, or its module is not loaded)"
    except PermissionError:
        return f"{accelerator.device} may not be opened: add yourself to the group 'kvm' and log in again"
    except OSError as error:
        return f"{accelerator.device}: {error.strerror}"
    return ""


@dataclass(frozen=True)
class ProbedBoot:
    """How a probe's guest booted: why it did not, or the rate of its counter (see `tsc_guess`)."""

    failure: str
    tsc_khz: int | None

    def text(self) -> str:
        """Return one line for the memory of probes."""
        return f"{self.tsc_khz or 0}:{self.failure}"

    @classmethod
    def parse(cls, text: str | None) -> ProbedBoot | None:
        """Read what `text` wrote; None for anything else."""
        rate, colon, failure = (text or "").partition(":")
        return cls(failure, int(rate) or None) if colon and rate.isdigit() else None


async def try_to_boot(qemu: Qemu, kernel: GuestKernel) -> ProbedBoot:
    """Boot the guest kernel until its first process prints a line, and compare its clock with the host's.

    Opening `/dev/kvm`, or even creating a VM, is no proof: on nested hosts both can work and a guest still not run.
    """
    budget = _PROBE_S[qemu.accelerator.is_hardware]
    memory = os.memfd_create("probe", os.MFD_CLOEXEC)
    os.ftruncate(memory, _PROBE_MIB * MIB)
    try:
        async with open_sockets((), console=True) as sockets:
            argv = arguments(
                qemu,
                memory=Memory(f"/proc/self/fd/{memory}", _PROBE_MIB, is_shared=True),
                disks={},
                ports=sockets.guest_ports,
                monitor=sockets.guest_monitor,
                console=sockets.guest_console,
                boot=Boot("/boot/vmlinuz", "/boot/initramfs", f"{qemu.kernel_arguments} silo.probe"),
            )
            binds = {"/boot/vmlinuz": kernel.image, "/boot/initramfs": kernel.initramfs}
            try:
                process = await GuestProcess.start(
                    confine(qemu, argv, memory_mib=_PROBE_MIB, binds=binds, writable={}),
                    inherit=(*sockets.for_guest(), memory),
                    rules=filter_rules(),
                )
            except SiloError as error:
                return ProbedBoot(str(error), None)
            try:
                sockets.close_guest_ends()
                await process.tie()
                with anyio.move_on_after(budget):
                    first = await sockets.console_line(_PROBE_LINE)
                    started = time.monotonic()
                    second = await sockets.console_line(_PROBE_LINE) if first and qemu.tsc_khz else None
                    if first is None:
                        return ProbedBoot(f"QEMU ended: {process.last_words()}{_said(sockets)}", None)
                    if second is None:
                        return ProbedBoot("", qemu.tsc_khz)
                    guest_s = float(second.group(2)) - float(first.group(2))
                    return ProbedBoot("", _corrected(qemu.tsc_khz, guest_s, time.monotonic() - started))
                return ProbedBoot(f"a guest was started and did not run within {budget:.0f} s{_said(sockets)}", None)
            finally:
                await process.end()
    finally:
        os.close(memory)


def _said(sockets: Sockets) -> str:
    """Return the console of a probe's guest as one line: its kernel's panic, else the last lines."""
    lines = [line.strip() for line in sockets.console_text().splitlines() if line.strip()]
    panic = next((number for number, line in enumerate(lines) if "Kernel panic" in line), None)
    # After a panic comes a stack trace, which would hide the reason.
    told = lines[-_CONSOLE_LINES:] if panic is None else lines[panic : panic + 1]
    said = " | ".join(told)[:_CONSOLE_CHARS]
    return f"; its console said: {said}" if said else "; its console said nothing"


def _corrected(khz: int | None, guest_s: float, host_s: float) -> int | None:
    """Correct the guessed rate by the measured speed of the guest's clock; small differences are noise."""
    if khz is None or guest_s <= 0 or abs(guest_s / host_s - 1) < _CLOCK_NOISE:
        return khz
    return round(khz * guest_s / host_s)
