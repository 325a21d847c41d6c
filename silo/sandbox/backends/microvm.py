"""The microVM backend: each call in a clone of a template, with its own kernel, under QEMU.

Templates, clones and confinement are in `silo.sandbox.template` and `silo.sandbox.qemu`. Here is what makes a backend of them:
finding out what works on this machine, and handing out guests.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import anyio
import anyio.abc
import anyio.to_thread

from silo.errors import SandboxBroken, SandboxUnavailable, SiloError
from silo.model import Isolation
from silo.sandbox import kernel as kernels
from silo.sandbox import setup
from silo.sandbox.base import MIB, Description, GuestReply, GuestRequest, OnProgress, OnStep, Probe, Unit
from silo.sandbox.image import Images
from silo.sandbox.kernel import GuestKernel
from silo.sandbox.machine import Accelerator
from silo.sandbox.pool import WarmPool
from silo.sandbox.probes import ProbeMemory
from silo.sandbox.process import GuestProcess
from silo.sandbox.qemu import (
    Boot,
    Memory,
    Qemu,
    arguments,
    ask_version,
    can_map_read_only,
    confine,
    find_program,
    tsc_guess,
)
from silo.sandbox.sockets import open_sockets
from silo.sandbox.template import Clone, Templates

_TEMPLATE_S = 120.0
"""How long making a template may take beyond the caller's deadline for importing; emulated guests are slow to boot."""

_PROBE_MIB = 128
_PROBE_LINE = re.compile(rb"silo-probe-(\d) ([\d.]+)")

_CLOCK_NOISE = 0.05
"""The guest's clock and the host's are compared over two seconds on a busy machine; below that it proves nothing."""

_PROBE_S = {True: 8.0, False: 120.0}
"""How long a probe's guest may take to boot, with hardware virtualisation and without.

Without, 1.5 s were measured on a quiet machine and more than 40 s on one with ten other things to do. A guest that hangs there is rare,
and a failure would be remembered until the machine boots again."""


class MicrovmBackend:
    """Guests with their own kernel.

    Args:
        home: silo's state folder; templates and the memory of probes lie in it.
        images: the images that units are made of.
        kernel_folder: where guest kernels lie.
        warm: how many rehearsed clones to keep for each of the last skills called; 0 for a process that ends soon.
    """

    def __init__(self, *, home: Path, images: Images, kernel_folder: Path, warm: int = 0) -> None:
        self._home = home
        self._images = images
        self._kernel_folder = kernel_folder
        self._warm = warm
        self._probes = ProbeMemory(home / "run" / "probes.json")
        self._probing = anyio.Lock()
        self._probe: Probe | None = None
        self._templates: Templates | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self._pool: WarmPool | None = None

    @property
    def isolation(self) -> Isolation:
        """A guest has its own kernel."""
        return Isolation.MICROVM

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End guests that wait, and give their memory back."""
        if self._group is not None:
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)
        self._group = self._pool = None
        if self._templates is not None:
            self._templates.close()

    # --- what works here ----------------------------------------------------------------------------------------------

    async def probe(self, *, refresh: bool = False) -> Probe:
        """Boot a guest with each accelerator, best first, until one works."""
        async with self._probing:
            if self._probe is None or refresh:
                self._probe = await self._find_out(refresh=refresh)
            return self._probe

    async def _find_out(self, *, refresh: bool) -> Probe:
        host = setup.machine()
        if host is None:
            return Probe(self.isolation, works=False, detail="", missing=(f"no machine type for {platform.machine()}",))
        missing = [f"{program.name} is not installed ({program.purpose})" for program in setup.missing_programs(host)]
        kernel: GuestKernel | None = None
        try:
            kernel = kernels.find(self._kernel_folder)
            if kernel is None:
                missing.append("there is no guest kernel yet")
        except SandboxBroken as error:
            missing.append(str(error))
        binary, bwrap = find_program(host.binary), find_program("bwrap")
        if missing or kernel is None or binary is None or bwrap is None:
            return Probe(self.isolation, works=False, detail="", missing=tuple(missing), hint="run `silo setup`")
        version = await anyio.to_thread.run_sync(ask_version, binary)
        notes: list[str] = []
        for accelerator in host.accelerators:
            if accelerator.system not in ("", platform.system()):
                continue
            qemu = Qemu(binary, bwrap, version, can_map_read_only(version), host, accelerator, tsc_guess(accelerator))
            failure = _unusable_device(accelerator)
            if not failure:
                boot = await self._remembered_boot(qemu, kernel, refresh=refresh)
                failure, qemu = boot.failure, replace(qemu, tsc_khz=boot.tsc_khz)
            if failure:
                notes.append(f"{accelerator.name}: {failure}")
                continue
            self._templates = Templates(self._home / "templates", self._images, qemu, kernel)
            if self._group is not None and self._warm > 0:
                self._pool = WarmPool(self._templates, self._group, self._warm)
            return Probe(
                self.isolation,
                works=True,
                detail=f"QEMU {version}, {accelerator.name.upper()}, guest kernel {kernel.release}",
                notes=tuple(notes),
            )
        return Probe(
            self.isolation,
            works=False,
            detail=f"QEMU {version}, guest kernel {kernel.release}",
            missing=tuple(notes),
            hint="no accelerator boots a guest; the last line of each says why",
        )

    async def _remembered_boot(self, qemu: Qemu, kernel: GuestKernel, *, refresh: bool) -> _Boot:
        """How booting a guest with this QEMU went; tried once per boot of the host."""
        key = f"{qemu.binary}:{qemu.version}:{qemu.accelerator.name}:{kernel.digest}"
        remembered = None if refresh else _Boot.parse(self._probes.get(key))
        if remembered is None:
            remembered = await _try_to_boot(qemu, kernel)
            self._probes.put(key, remembered.text())
        return remembered

    async def _ready(self) -> Templates:
        probe = await self.probe()
        if self._templates is None:
            raise SandboxUnavailable(f"no microVM works here: {'; '.join(probe.missing)}", hint=probe.hint)
        return self._templates

    # --- guests -------------------------------------------------------------------------------------------------------

    async def describe(self, unit: Unit, *, deadline: float, on_step: OnStep) -> Description:
        """Make the unit's template, and return what the skill said of itself in it."""
        template = await (await self._ready()).get(unit, deadline=deadline, on_step=on_step)
        return Description(template.skill, self.isolation, template.timing)

    @contextlib.asynccontextmanager
    async def open(self, unit: Unit, *, on_step: OnStep) -> AsyncIterator[_Microvm]:
        """Take a clone that waits, or start one."""
        templates = await self._ready()
        template = await templates.get(unit, deadline=time.monotonic() + _TEMPLATE_S, on_step=on_step)
        pool = self._pool
        with pool.call() if pool is not None else contextlib.nullcontext():
            waiting = pool.take(template) if pool is not None else None
            if waiting is not None:
                try:
                    yield _Microvm(waiting.clone, "warm clone", self._probe)
                finally:
                    with anyio.CancelScope(shield=True):
                        waiting.released.set()
                        await waiting.gone.wait()
            else:
                async with templates.clone(unit, template) as clone:
                    yield _Microvm(clone, "clone", self._probe)
        if pool is not None:
            pool.refill(unit, template)

    async def settle(self) -> None:
        """Wait until the clones that are kept warm are ready; for benchmarks and tests."""
        if self._pool is not None:
            await self._pool.settle()

    def prune(self, keep: Iterable[Unit]) -> list[Path]:
        """Delete the templates of other units."""
        return self._templates.prune(keep) if self._templates is not None else []


class _Microvm:
    """A clone that is being restored or waits, for one call."""

    isolation = Isolation.MICROVM

    def __init__(self, clone: Clone, kind: str, probe: Probe | None) -> None:
        self._clone = clone
        self._facts = {"backend": f"{probe.detail.partition(', guest')[0]}, {kind}" if probe else kind}

    async def run(self, request: GuestRequest, *, deadline: float, on_progress: OnProgress) -> GuestReply:
        try:
            reply = await self._clone.link.run(request, deadline=deadline, on_progress=on_progress)
        except SiloError as error:
            if error.code == "sandbox-lost":
                raise SandboxBroken(
                    f"{error} ({self._clone.process.last_words()})",
                    hint="if QEMU or the kernel was just updated, `silo setup --repair` rebuilds the templates",
                ) from error
            raise
        return replace(reply, facts={**reply.facts, **self._facts})


def _unusable_device(accelerator: Accelerator) -> str:
    """Why the accelerator's device can't be opened, or an empty string."""
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
class _Boot:
    """How a probe's guest booted: why it did not, or the rate of its counter (see `tsc_guess`)."""

    failure: str
    tsc_khz: int | None

    def text(self) -> str:
        return f"{self.tsc_khz or 0}:{self.failure}"

    @classmethod
    def parse(cls, text: str | None) -> _Boot | None:
        rate, colon, failure = (text or "").partition(":")
        return cls(failure, int(rate) or None) if colon and rate.isdigit() else None


async def _try_to_boot(qemu: Qemu, kernel: GuestKernel) -> _Boot:
    """Boot the guest kernel until its first process speaks, and compare its clock with the host's.

    Opening `/dev/kvm`, even creating a VM, proves nothing: on nested hosts both work and a guest still does not run.
    """
    budget = _PROBE_S[qemu.accelerator.is_hardware]
    memory = os.memfd_create("probe", os.MFD_CLOEXEC)
    os.ftruncate(memory, _PROBE_MIB * MIB)
    try:
        async with open_sockets(console=True) as sockets:
            argv = arguments(
                qemu,
                memory=Memory(f"/proc/self/fd/{memory}", _PROBE_MIB, is_shared=True),
                disks={},
                ports=sockets.guest_ports,
                monitor=sockets.guest_monitor,
                console=sockets.guest_console,
                boot=Boot("/boot/vmlinuz", "/boot/initramfs", f"{qemu.kernel_arguments} silo.probe"),
                rtc=None,
            )
            binds = {"/boot/vmlinuz": kernel.image, "/boot/initramfs": kernel.initramfs}
            try:
                process = await GuestProcess.start(
                    confine(qemu, argv, memory_mib=_PROBE_MIB, binds=binds, writable={}),
                    inherit=(*sockets.for_guest(), memory),
                )
            except SiloError as error:
                return _Boot(str(error), None)
            try:
                sockets.close_guest_ends()
                await process.tie()
                with anyio.move_on_after(budget):
                    first = await sockets.console_line(_PROBE_LINE)
                    started = time.monotonic()
                    second = await sockets.console_line(_PROBE_LINE) if first and qemu.tsc_khz else None
                    if first is None:
                        return _Boot(f"QEMU ended: {process.last_words()}", None)
                    if second is None:
                        return _Boot("", qemu.tsc_khz)
                    guest_s = float(second.group(2)) - float(first.group(2))
                    return _Boot("", _corrected(qemu.tsc_khz, guest_s, time.monotonic() - started))
                return _Boot(f"a guest was started and did not run (no sign of life within {budget:.0f} s)", None)
            finally:
                await process.end()
    finally:
        os.close(memory)


def _corrected(khz: int | None, guest_s: float, host_s: float) -> int | None:
    """Correct the guessed rate by how much slower or faster the guest's clock runs; small differences are noise."""
    if khz is None or guest_s <= 0 or abs(guest_s / host_s - 1) < _CLOCK_NOISE:
        return khz
    return round(khz * guest_s / host_s)
