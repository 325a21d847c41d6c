"""The microVM backend: guests with their own kernel, under QEMU, booted or cloned from a template.

This module finds out what works on this machine, and hands out guests. `silo.sandbox.backends.microvm.template` makes
templates and clones, `silo.sandbox.backends.microvm.qemu` confines QEMU.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import anyio
import anyio.abc
import anyio.to_thread

from silo.errors import SandboxBroken, SandboxUnavailable
from silo.model import Isolation
from silo.sandbox.backends.microvm import kernel as kernels
from silo.sandbox.backends.microvm.guest import MicrovmGuest
from silo.sandbox.backends.microvm.host import machine, missing_programs
from silo.sandbox.backends.microvm.kernel import GuestKernel
from silo.sandbox.backends.microvm.pool import WarmPool
from silo.sandbox.backends.microvm.probe import ProbedBoot, try_to_boot, unusable_device
from silo.sandbox.backends.microvm.qemu import (
    Qemu,
    ask_version,
    can_map_read_only,
    filter_rules,
    find_firmware,
    tsc_guess,
)
from silo.sandbox.backends.microvm.template import Template, Templates
from silo.sandbox.base import GuestSpec, OnStep, Probe, Program, Ready
from silo.sandbox.identity import find_identity, try_to_confine, why_not
from silo.sandbox.image import Images
from silo.sandbox.probe_memory import ProbeMemory
from silo.sandbox.programs import find_program


@dataclass(frozen=True)
class _Works:
    """The QEMU and kernel that boot a guest on this machine."""

    qemu: Qemu
    kernel: GuestKernel


class MicrovmBackend:
    """Guests with their own kernel.

    Args:
        home: silo's state folder; templates and the memory of probes lie in it.
        images: the images that guests are made of.
        kernel_folder: where guest kernels lie.
        warm: how many rehearsed clones to keep for each recently used spec; 0 for a process that ends soon.
    """

    def __init__(self, *, home: Path, images: Images, kernel_folder: Path, warm: int = 0) -> None:
        self._home = home
        self._images = images
        self._kernel_folder = kernel_folder
        self._warm = warm
        self._probes = ProbeMemory(home / "run" / "probes.json")
        self._probing = anyio.Lock()
        self._found: tuple[Probe, _Works | None] | None = None
        self._made: list[tuple[_Works, Templates]] = []
        self._group: anyio.abc.TaskGroup | None = None
        self._pool: WarmPool | None = None

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return "microvm"

    @property
    def isolation(self) -> Isolation:
        """A guest has its own kernel."""
        return Isolation.MICROVM

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End waiting guests, and free their memory."""
        if self._group is not None:
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)
        self._group = self._pool = None
        while self._made:
            self._made.pop()[1].close()

    # --- what works here ----------------------------------------------------------------------------------------------

    async def probe(self, *, refresh: bool = False) -> Probe:
        """Boot a guest with each accelerator, best first, until one works."""
        return (await self._look(refresh=refresh))[0]

    async def _look(self, *, refresh: bool = False) -> tuple[Probe, _Works | None]:
        async with self._probing:
            if self._found is None or refresh:
                self._found = await self._find_out(refresh=refresh)
            return self._found

    async def _find_out(self, *, refresh: bool) -> tuple[Probe, _Works | None]:
        host = machine()
        if host is None:
            return self._works_not((f"no machine type for {platform.machine()}",)), None
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
            return self._works_not(tuple(missing), hint="run `silo setup`"), None
        try:
            identity = find_identity()
        except SandboxUnavailable as error:
            return self._works_not((error.message,), hint=error.hint), None
        failure = await anyio.to_thread.run_sync(try_to_confine, bwrap, identity.namespaces, filter_rules())
        if failure:
            return self._works_not((f"QEMU can't be confined: {failure}",), hint=why_not(failure)), None
        version = await anyio.to_thread.run_sync(ask_version, binary)
        # A missing firmware is among `missing` above, so it is found here.
        firmware = await anyio.to_thread.run_sync(find_firmware, binary, host.firmware) if host.firmware else None
        notes: list[str] = []
        for accelerator in host.accelerators:
            if accelerator.system not in ("", platform.system()):
                continue
            read_only = can_map_read_only(version)
            qemu = Qemu(
                binary, bwrap, version, read_only, host, accelerator, firmware, tsc_guess(accelerator), identity
            )
            failure = unusable_device(accelerator)
            if not failure:
                boot = await self._remembered_boot(qemu, kernel, refresh=refresh)
                failure, qemu = boot.failure, replace(qemu, tsc_khz=boot.tsc_khz)
            if failure:
                notes.append(f"{accelerator.name}: {failure}")
                continue
            detail = f"QEMU {version}, {accelerator.name.upper()}, guest kernel {kernel.release}, {identity.text}"
            probe = Probe(self.name, self.isolation, works=True, detail=detail, notes=tuple(notes))
            return probe, _Works(qemu, kernel)
        detail = f"QEMU {version}, guest kernel {kernel.release}"
        hint = "no accelerator boots a guest; the last line of each says why"
        return self._works_not(tuple(notes), detail=detail, hint=hint), None

    def _works_not(self, missing: tuple[str, ...], *, detail: str = "", hint: str = "") -> Probe:
        return Probe(self.name, self.isolation, works=False, detail=detail, missing=missing, hint=hint)

    async def _remembered_boot(self, qemu: Qemu, kernel: GuestKernel, *, refresh: bool) -> ProbedBoot:
        """Return how booting a guest with this QEMU went; tried once per boot of the host."""
        firmware = qemu.firmware.digest if qemu.firmware else ""
        key = f"{qemu.binary}:{qemu.version}:{qemu.accelerator.name}:{kernel.digest}:{firmware}"
        remembered = None if refresh else ProbedBoot.parse(self._probes.get(key))
        if remembered is None:
            remembered = await try_to_boot(qemu, kernel)
            self._probes.put(key, remembered.text())
        return remembered

    # --- guests -------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def start(self, spec: GuestSpec) -> AsyncIterator[MicrovmGuest]:
        """Boot a guest."""
        async with (await self._templates()).boot(spec) as guest:
            yield guest

    async def prepare(self, spec: GuestSpec, program: Program, *, deadline: float, on_step: OnStep) -> _Prepared:
        """Make the spec's template unless it exists."""
        templates = await self._templates()
        template = await templates.get(spec, program, deadline=deadline, on_step=on_step)
        return _Prepared(spec, program, template, templates, self._pool)

    async def settle(self) -> None:
        """Wait until all warm clones are ready; for benchmarks and tests."""
        if self._pool is not None:
            await self._pool.settle()

    async def prune(self, keep: Iterable[GuestSpec]) -> list[Path]:
        """Delete the templates of other specs. If no guest boots here, digests are unknown and nothing is deleted."""
        if (await self._look())[1] is None:
            return []
        templates = await self._templates()
        return await anyio.to_thread.run_sync(templates.prune, list(keep))

    async def _templates(self) -> Templates:
        """Return the templates for the QEMU and kernel that work here. A probe with another result makes new ones."""
        probe, works = await self._look()
        if works is None:
            raise SandboxUnavailable(f"no microVM works here: {'; '.join(probe.missing)}", hint=probe.hint)
        if not self._made or self._made[-1][0] != works:
            self._made.append((works, Templates(self._home / "templates", self._images, works.qemu, works.kernel)))
            if self._group is not None and self._warm > 0:
                self._pool = WarmPool(self._made[-1][1], self._group, self._warm)
        return self._made[-1][1]


@dataclass(frozen=True)
class _Prepared:
    """A template and its waiting clones."""

    spec: GuestSpec
    program: Program
    template: Template
    templates: Templates
    pool: WarmPool | None

    @property
    def ready(self) -> Ready:
        """The `Ready` of the template."""
        return self.template.ready

    @contextlib.asynccontextmanager
    async def start(self) -> AsyncIterator[MicrovmGuest]:
        """Take a waiting clone, or start one."""
        pool = self.pool
        with pool.call() if pool is not None else contextlib.nullcontext():
            waiting = await pool.take(self.program, self.template) if pool is not None else None
            if waiting is not None:
                try:
                    yield waiting.clone
                finally:
                    with anyio.CancelScope(shield=True):
                        waiting.released.set()
                        await waiting.gone.wait()
            else:
                async with self.templates.clone(self.spec, self.program, self.template) as clone:
                    yield clone
        if pool is not None:
            pool.refill(self.spec, self.program, self.template)
