"""Finds out whether a guest boots on this machine, by booting one, and remembers it.

`silo.sandbox.backends.microvm.backend` decides which accelerators to try.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace

import anyio

from silo.errors import SiloError
from silo.sandbox.backends.microvm.kernel import GuestKernel
from silo.sandbox.backends.microvm.machine import Accelerator
from silo.sandbox.backends.microvm.qemu import Boot, Memory, Qemu, arguments, confine, filter_rules
from silo.sandbox.backends.microvm.sockets import Sockets, open_sockets
from silo.sandbox.probe_memory import ProbeMemory
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
"""How long a probe's guest may take to boot, with hardware virtualisation and without, while somebody waits for it.

Without it, a boot took 1.5 s on an idle machine and more than 40 s on one with ten other tasks.
"""

_PATIENT_S = {True: 30.0, False: 120.0}
"""As `_PROBE_S`, when nobody waits, or when a person asked to try again."""

_AGAIN_S = 60.0
_AGAIN_AT_MOST_S = 3600.0
"""How long a failure is remembered: at first, and at most. It doubles with every failure in a row."""


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
    """How a probe's guest booted.

    Attributes:
        failure: why it did not boot, or an empty string.
        tsc_khz: the rate of its counter (see `tsc_guess`).
        is_late: it failed only because its time was up; on a machine that is less busy, it may boot.
        failures: how often it has failed in a row.
        again_at: from when it has to be tried again, as a reading of `time.monotonic()` in seconds; None if it booted.
    """

    failure: str
    tsc_khz: int | None
    is_late: bool = False
    failures: int = 0
    again_at: float | None = None

    def text(self) -> str:
        """Return one line for the memory of probes."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str | None) -> ProbedBoot | None:
        """Read what `text` wrote; None for anything else."""
        try:
            found = cls(**json.loads(text or ""))
        except (ValueError, TypeError):
            return None
        is_sound = isinstance(found.failure, str) and all(
            value is None or isinstance(value, int | float) for value in (found.tsc_khz, found.failures, found.again_at)
        )
        return found if is_sound else None

    def is_over(self, now: float) -> bool:
        """Whether this is a failure that is to be tried again."""
        return self.again_at is not None and now >= self.again_at


TryBoot = Callable[[Qemu, GuestKernel, float], Awaitable[ProbedBoot]]
"""Boots a guest: `try_to_boot`."""


class Boots:
    """Remembers how the guests of probes booted: a success until the host reboots, a failure for some minutes.

    A failure can be the fault of the moment: the machine was too busy, or had too little memory. If it were remembered
    as long as a success, one such moment would mean emulation, or no microVMs at all, until the next reboot.

    Args:
        memory: where it is remembered, for all processes.
        boot: boots a guest.
        clock: the host's monotonic clock in seconds, which all processes share (`man 2 clock_gettime`).
    """

    def __init__(self, memory: ProbeMemory, boot: TryBoot, clock: Callable[[], float]) -> None:
        self._memory = memory
        self._boot = boot
        self._clock = clock

    async def of(self, qemu: Qemu, kernel: GuestKernel, *, refresh: bool, is_patient: bool) -> ProbedBoot:
        """Return how a guest boots with this QEMU and kernel.

        Args:
            refresh: try it, whatever is remembered.
            is_patient: give the guest more time.
        """
        firmware = qemu.firmware.digest if qemu.firmware else ""
        key = f"{qemu.binary}:{qemu.version}:{qemu.accelerator.name}:{kernel.digest}:{firmware}"
        remembered = ProbedBoot.parse(self._memory.get(key))
        if remembered is not None and not refresh and not remembered.is_over(self._clock()):
            return remembered
        budgets = _PATIENT_S if is_patient or refresh else _PROBE_S
        found = await self._boot(qemu, kernel, budgets[qemu.accelerator.is_hardware])
        if found.failure:
            before = remembered.failures if remembered is not None and not refresh else 0
            wait_s = min(_AGAIN_S * 2 ** min(before, 10), _AGAIN_AT_MOST_S)
            found = replace(found, failures=before + 1, again_at=self._clock() + wait_s)
        self._memory.put(key, found.text())
        return found


async def try_to_boot(qemu: Qemu, kernel: GuestKernel, budget_s: float) -> ProbedBoot:
    """Boot the guest kernel until its first process prints a line, and compare its clock with the host's.

    Args:
        budget_s: how long that may take.

    Opening `/dev/kvm`, or even creating a VM, is no proof: on nested hosts both can work and a guest still not run.
    """
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
                with anyio.move_on_after(budget_s):
                    first = await sockets.console_line(_PROBE_LINE)
                    started = time.monotonic()
                    second = await sockets.console_line(_PROBE_LINE) if first and qemu.tsc_khz else None
                    if first is None:
                        return ProbedBoot(f"QEMU ended: {process.last_words()}{_said(sockets)}", None)
                    if second is None:
                        return ProbedBoot("", qemu.tsc_khz)
                    guest_s = float(second.group(2)) - float(first.group(2))
                    return ProbedBoot("", _corrected(qemu.tsc_khz, guest_s, time.monotonic() - started))
                late = f"a guest was started and did not run within {budget_s:.0f} s{_said(sockets)}"
                return ProbedBoot(late, None, is_late=True)
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
