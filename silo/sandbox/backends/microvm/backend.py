"""The microVM backend: guests with their own kernel, under QEMU, booted or cloned from a template.

This module finds out what works on this machine, and hands out guests. `silo.sandbox.backends.microvm.template` makes
templates and clones, `silo.sandbox.backends.microvm.qemu` confines QEMU.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import anyio
import anyio.abc
import anyio.to_thread

from silo.errors import SandboxBroken, SandboxUnavailable, SiloError
from silo.model import Isolation
from silo.sandbox.backends.microvm import kernel as kernels
from silo.sandbox.backends.microvm.guest import MicrovmGuest
from silo.sandbox.backends.microvm.host import machine, missing_programs, no_machine
from silo.sandbox.backends.microvm.kernel import GuestKernel
from silo.sandbox.backends.microvm.machine import Machine
from silo.sandbox.backends.microvm.memories import Memories
from silo.sandbox.backends.microvm.pool import WarmPool
from silo.sandbox.backends.microvm.probe import Boots, TryBoot, try_to_boot, unusable_device
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
from silo.sizes import MIB

_log = logging.getLogger(__name__)

TEMPLATE_MEMORY_MIB = 512
"""Room for the copies of three or four templates; the same number of skills has waiting clones (`pool`)."""


@dataclass(frozen=True)
class _Works:
    """The QEMU and kernel that boot a guest on this machine."""

    qemu: Qemu
    kernel: GuestKernel


@dataclass(frozen=True)
class _Found:
    """What a look at this machine found.

    Attributes:
        again_at: from when to look again, as a reading of the monotonic clock in seconds; None if all is well.
        note: why guests are slower than they should be, for whoever reads the result of a call; or empty.
    """

    probe: Probe
    works: _Works | None
    again_at: float | None = None
    note: str = ""


class MicrovmBackend:
    """Guests with their own kernel.

    Args:
        home: silo's state folder; templates and the memory of probes lie in it.
        images: the images that guests are made of.
        kernel_folder: where guest kernels lie.
        warm: how many rehearsed clones to keep for each recently used spec; 0 for a process that ends soon.
        template_memory_mib: how much memory copies of templates may take, if this QEMU needs such copies.
        host: the kind of machine, if it is not to be the one that fits this host.
        boot: boots a guest to find out whether that works.
        clock: the host's monotonic clock in seconds.
    """

    def __init__(
        self,
        *,
        home: Path,
        images: Images,
        kernel_folder: Path,
        warm: int = 0,
        template_memory_mib: int = TEMPLATE_MEMORY_MIB,
        host: Machine | None = None,
        boot: TryBoot = try_to_boot,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._home = home
        self._images = images
        self._kernel_folder = kernel_folder
        self._warm = warm
        self._template_memory_mib = template_memory_mib
        self._memories = Memories(template_memory_mib * MIB)
        self._host = machine() if host is None else host
        self._clock = clock
        self._boots = Boots(ProbeMemory(home / "run" / "probes.json"), boot, clock)
        self._probing = anyio.Lock()
        self._found: _Found | None = None
        self._is_looking_again = False
        self._templates_of: tuple[_Works, Templates] | None = None
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
        self._group.start_soon(self._memories.forget_unused)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End waiting guests, and free their memory."""
        if self._group is not None:
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)
        self._group = self._pool = None
        self._memories.close()

    # --- what works here ----------------------------------------------------------------------------------------------

    async def probe(self, *, refresh: bool = False) -> Probe:
        """Boot a guest with each accelerator, best first, until one works."""
        return (await self._look(refresh=refresh)).probe

    async def _look(self, *, refresh: bool = False) -> _Found:
        """Return what was found on this machine; look again if it is time to.

        If guests run meanwhile, only slower than they could, nobody waits for that: it happens in the background.
        """
        async with self._probing:
            found = self._found
            is_over = found is not None and found.again_at is not None and self._clock() >= found.again_at
            if found is None or refresh or (is_over and (found.works is None or self._group is None)):
                found = self._found = await self._find_out(refresh=refresh, is_patient=refresh)
            elif is_over and self._group is not None and not self._is_looking_again:
                self._is_looking_again = True
                self._group.start_soon(self._look_again)
            return found

    async def _look_again(self) -> None:
        try:
            self._found = await self._find_out(refresh=False, is_patient=True)
        except (SiloError, OSError):  # what was found before still counts
            _log.exception("could not find out again which accelerators work")
        finally:
            self._is_looking_again = False

    async def _find_out(self, *, refresh: bool, is_patient: bool) -> _Found:
        host = self._host
        if host is None:
            return _Found(self._works_not((no_machine(),)), None)
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
            # Looked for anew each time: it is quick, and somebody may be installing it.
            return _Found(self._works_not(tuple(missing), hint="run `silo setup`"), None, again_at=self._clock())
        try:
            identity = find_identity()
        except SandboxUnavailable as error:
            return _Found(self._works_not((error.message,), hint=error.hint), None, again_at=self._clock())
        failure = await anyio.to_thread.run_sync(try_to_confine, bwrap, identity.namespaces, filter_rules())
        if failure:
            probe = self._works_not((f"QEMU can't be confined: {failure}",), hint=why_not(failure))
            return _Found(probe, None, again_at=self._clock())
        version = await anyio.to_thread.run_sync(ask_version, binary)
        # A missing firmware is among `missing` above, so it is found here.
        firmware = await anyio.to_thread.run_sync(find_firmware, binary, host.firmware) if host.firmware else None
        notes: list[str] = []
        late: list[str] = []
        again: list[float] = []
        for accelerator in host.accelerators:
            read_only = can_map_read_only(version)
            qemu = Qemu(
                binary, bwrap, version, read_only, host, accelerator, firmware, tsc_guess(accelerator), identity
            )
            failure = unusable_device(accelerator)
            if not failure:
                boot = await self._boots.of(qemu, kernel, refresh=refresh, is_patient=is_patient)
                failure, qemu = boot.failure, replace(qemu, tsc_khz=boot.tsc_khz)
                if boot.again_at is not None:
                    again.append(boot.again_at)
                if boot.is_late:
                    late.append(accelerator.name.upper())
                    failure += "; silo tries again after some minutes, and `silo doctor --refresh` tries at once"
            if failure:
                notes.append(f"{accelerator.name}: {failure}")
                continue
            note = ""
            if late:
                note = (
                    f"{' and '.join(late)} did not start a guest in time, so guests are slow, under "
                    f"{accelerator.name.upper()}; silo tries again after some minutes, `silo doctor --refresh` at once"
                )
                _log.warning("%s", note)
            if not read_only:
                notes.append(
                    f"QEMU {version} can't map a template read-only, so each process that stays keeps copies of "
                    f"templates in memory, up to {self._template_memory_mib} MiB (`sandbox.template_memory_mib`); "
                    "QEMU 8.2 and later need none"
                )
            detail = f"QEMU {version}, {accelerator.name.upper()}, guest kernel {kernel.release}, {identity.text}"
            probe = Probe(self.name, self.isolation, works=True, detail=detail, notes=tuple(notes))
            return _Found(probe, _Works(qemu, kernel), again_at=min(again, default=None), note=note)
        detail = f"QEMU {version}, guest kernel {kernel.release}"
        hint = "no accelerator boots a guest; the last line of each says why"
        return _Found(
            self._works_not(tuple(notes), detail=detail, hint=hint), None, again_at=min(again, default=self._clock())
        )

    def _works_not(self, missing: tuple[str, ...], *, detail: str = "", hint: str = "") -> Probe:
        return Probe(self.name, self.isolation, works=False, detail=detail, missing=missing, hint=hint)

    # --- guests -------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def start(self, spec: GuestSpec) -> AsyncIterator[MicrovmGuest]:
        """Boot a guest."""
        found, templates = await self._templates()
        async with templates.boot(spec) as guest:
            guest.note = found.note
            yield guest

    async def prepare(self, spec: GuestSpec, program: Program, *, deadline: float, on_step: OnStep) -> _Prepared:
        """Make the spec's template unless it exists."""
        found, templates = await self._templates()
        template = await templates.get(spec, program, deadline=deadline, on_step=on_step)
        return _Prepared(spec, program, template, templates, self._pool, found.note)

    async def settle(self) -> None:
        """Wait until all warm clones are ready; for benchmarks and tests."""
        if self._pool is not None:
            await self._pool.settle()

    async def prune(self, keep: Iterable[GuestSpec]) -> list[Path]:
        """Delete the templates of other specs. If no guest boots here, digests are unknown and nothing is deleted."""
        if (await self._look()).works is None:
            return []
        _, templates = await self._templates()
        return await anyio.to_thread.run_sync(templates.prune, list(keep))

    async def _templates(self) -> tuple[_Found, Templates]:
        """Return the templates for the QEMU and kernel that work here. A probe with another result makes new ones."""
        found = await self._look()
        works = found.works
        if works is None:
            raise SandboxUnavailable(f"no microVM works here: {'; '.join(found.probe.missing)}", hint=found.probe.hint)
        if self._templates_of is None or self._templates_of[0] != works:
            folder = self._home / "templates"
            templates = Templates(folder, self._images, works.qemu, works.kernel, self._memories)
            self._templates_of = (works, templates)
            if self._group is not None and self._warm > 0:
                self._pool = WarmPool(templates, self._group, self._warm)
        return found, self._templates_of[1]


@dataclass(frozen=True)
class _Prepared:
    """A template and its waiting clones."""

    spec: GuestSpec
    program: Program
    template: Template
    templates: Templates
    pool: WarmPool | None
    note: str

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
                waiting.clone.note = self.note
                try:
                    yield waiting.clone
                finally:
                    with anyio.CancelScope(shield=True):
                        waiting.released.set()
                        await waiting.gone.wait()
            else:
                async with self.templates.clone(self.spec, self.program, self.template) as clone:
                    clone.note = self.note
                    yield clone
        if pool is not None:
            pool.refill(self.spec, self.program, self.template)
