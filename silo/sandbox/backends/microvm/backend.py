"""The microVM backend: each call in a clone of a template, with its own kernel, under QEMU.

Templates, clones and confinement are in `silo.sandbox.backends.microvm.template` and `silo.sandbox.backends.microvm.qemu`. Here is what makes a backend of them:
finding out what works on this machine, and handing out guests.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Self

import anyio
import anyio.abc
import anyio.to_thread

from silo.errors import SandboxBroken, SandboxLost, SandboxUnavailable
from silo.model import Isolation
from silo.sandbox.backends.microvm import kernel as kernels
from silo.sandbox.backends.microvm.host import machine, missing_programs
from silo.sandbox.backends.microvm.kernel import GuestKernel
from silo.sandbox.backends.microvm.pool import WarmPool
from silo.sandbox.backends.microvm.probe import ProbedBoot, try_to_boot, unusable_device
from silo.sandbox.backends.microvm.qemu import (
    Qemu,
    ask_version,
    can_map_read_only,
    find_firmware,
    tsc_guess,
)
from silo.sandbox.backends.microvm.template import Clone, Templates
from silo.sandbox.base import Description, GuestReply, GuestRequest, OnProgress, OnStep, Probe, Unit
from silo.sandbox.image import Images
from silo.sandbox.probe_memory import ProbeMemory
from silo.sandbox.programs import find_program

_TEMPLATE_S = 120.0
"""How long making a template may take beyond the caller's deadline for importing; emulated guests are slow to boot."""


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
    def name(self) -> str:
        """As the configuration names it."""
        return "microvm"

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
        host = machine()
        if host is None:
            return Probe(
                self.name,
                self.isolation,
                works=False,
                detail="",
                missing=(f"no machine type for {platform.machine()}",),
            )
        lacking = await anyio.to_thread.run_sync(missing_programs, host)
        missing = [
            f"{program.name} is not installed ({program.purpose}; Debian's package {program.package})"
            for program in lacking
        ]
        kernel: GuestKernel | None = None
        try:
            kernel = kernels.find(self._kernel_folder)
            if kernel is None:
                missing.append("there is no guest kernel yet")
        except SandboxBroken as error:
            missing.append(str(error))
        binary, bwrap = find_program(host.binary), find_program("bwrap")
        if missing or kernel is None or binary is None or bwrap is None:
            return Probe(
                self.name, self.isolation, works=False, detail="", missing=tuple(missing), hint="run `silo setup`"
            )
        version = await anyio.to_thread.run_sync(ask_version, binary)
        firmware = (
            await anyio.to_thread.run_sync(find_firmware, binary, host.firmware) if host.firmware else None
        )  # it is there: nothing is missing
        notes: list[str] = []
        for accelerator in host.accelerators:
            if accelerator.system not in ("", platform.system()):
                continue
            read_only = can_map_read_only(version)
            qemu = Qemu(binary, bwrap, version, read_only, host, accelerator, firmware, tsc_guess(accelerator))
            failure = unusable_device(accelerator)
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
                self.name,
                self.isolation,
                works=True,
                detail=f"QEMU {version}, {accelerator.name.upper()}, guest kernel {kernel.release}",
                notes=tuple(notes),
            )
        return Probe(
            self.name,
            self.isolation,
            works=False,
            detail=f"QEMU {version}, guest kernel {kernel.release}",
            missing=tuple(notes),
            hint="no accelerator boots a guest; the last line of each says why",
        )

    async def _remembered_boot(self, qemu: Qemu, kernel: GuestKernel, *, refresh: bool) -> ProbedBoot:
        """How booting a guest with this QEMU went; tried once per boot of the host."""
        firmware = qemu.firmware.digest if qemu.firmware else ""
        key = f"{qemu.binary}:{qemu.version}:{qemu.accelerator.name}:{kernel.digest}:{firmware}"
        remembered = None if refresh else ProbedBoot.parse(self._probes.get(key))
        if remembered is None:
            remembered = await try_to_boot(qemu, kernel)
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
        except SandboxLost as error:
            raise SandboxBroken(
                f"{error} ({self._clone.process.last_words()})",
                hint="if QEMU or the kernel was just updated, `silo setup --repair` rebuilds the templates",
            ) from error
        return replace(reply, facts={**reply.facts, **self._facts})
