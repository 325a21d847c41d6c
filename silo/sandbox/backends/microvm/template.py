"""Templates: a guest that has booted and imported its skill, stopped and saved, and the clones that are started from it.

A template is a folder with `memory` (the guest's memory, a sparse file), `state` (its devices) and `template.json`. It is written
under a temporary name and renamed when a clone of it has answered, so that one that is there works. Which clone serves which
call is `silo.sandbox.backends.microvm.backend`'s.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from silo.errors import SandboxBroken, SkillFailed
from silo.sandbox.backends.microvm.kernel import GuestKernel
from silo.sandbox.backends.microvm.machine import KERNEL_ARGUMENTS
from silo.sandbox.backends.microvm.qemu import Boot, Memory, Qemu, arguments, confine, rtc_base
from silo.sandbox.backends.microvm.qmp import Monitor
from silo.sandbox.backends.microvm.sockets import open_sockets
from silo.sandbox.base import MIB, Limits, OnStep, Unit
from silo.sandbox.build_cache import BuildCache
from silo.sandbox.image import Images
from silo.sandbox.process import GuestProcess
from silo.sandbox.skill.link import GuestLink

_FORMAT = "silo-template-v1"
"""Part of every digest; counts up when the same inputs would give another snapshot."""

_CLOCK_BEHIND_S = 26 * 3600
"""How far in the past a template's clock stands. A clone's then jumps by more than any OpenSSL waits before it reseeds
(an hour), also if it is made at once; see `silo.guest.init`."""

_REHEARSAL_S = 30.0
_KEPT_MEMORIES = 16
"""Sealed copies of templates' memory that one process keeps (60 to 100 MiB each), for QEMU before 8.2."""

_DISKS = {"base": "/disk/base", "layer": "/disk/layer", "runtime": "/disk/runtime"}


@dataclass(frozen=True)
class Template:
    """A template that works.

    Attributes:
        skill: what the skill said of itself, as `silo.wire.messages.Described.skill`.
        timing: seconds of boot, import, warmup, save and the first clone, when it was made.
        facts: the guest's kernel and Python.
    """

    digest: str
    folder: Path
    skill: Mapping[str, Any]
    timing: Mapping[str, float]
    facts: Mapping[str, str]


@dataclass
class Clone:
    """A guest restored from a template: its link and its process."""

    link: GuestLink
    process: GuestProcess
    timing: dict[str, float]


class Templates:
    """The templates under one folder, for one QEMU and one guest kernel."""

    def __init__(self, folder: Path, images: Images, qemu: Qemu, kernel: GuestKernel) -> None:
        self._folder = folder
        self._cache = BuildCache(folder)
        self._images = images
        self._qemu = qemu
        self._kernel = kernel
        self._memories: OrderedDict[str, int] = OrderedDict()
        self._building: dict[str, anyio.Lock] = {}

    def digest(self, unit: Unit) -> str:
        """What a template depends on: the unit, and all that a snapshot would not survive a change of."""
        qemu = self._qemu
        parts = [_FORMAT, unit.digest, self._kernel.digest, qemu.version, qemu.machine.options, KERNEL_ARGUMENTS]
        parts += [qemu.accelerator.name, qemu.accelerator.cpu, qemu.firmware.digest if qemu.firmware else ""]
        parts.append(_cpu_of_host(with_flags=qemu.accelerator.is_hardware))
        return sha256("\0".join(parts).encode()).hexdigest()

    def find(self, unit: Unit) -> Template | None:
        """Return the unit's template if there is one that is whole."""
        digest = self.digest(unit)
        folder = self._folder / digest[:32]
        try:
            facts = json.loads((folder / "template.json").read_text())
            memory, state = (folder / "memory").stat(), (folder / "state").stat()
        except (OSError, ValueError):
            return None
        if memory.st_size != unit.limits.memory_mib * MIB or state.st_size != facts["state_bytes"]:
            return None
        return Template(digest, folder, facts["skill"], facts["timing"], facts["facts"])

    async def get(self, unit: Unit, *, deadline: float, on_step: OnStep) -> Template:
        """Return the unit's template, making it if there is none. Two at once: one makes it, the other waits.

        Raises: as `silo.sandbox.base.Backend.describe`.
        """
        found = self.find(unit)
        if found is not None:
            return found
        digest = self.digest(unit)
        async with self._building.setdefault(digest, anyio.Lock()), self._cache.wait_locked(digest[:32]):
            found = self.find(unit)
            return found or await self._make(unit, digest, deadline, on_step)

    async def _make(self, unit: Unit, digest: str, deadline: float, on_step: OnStep) -> Template:
        building = self._cache.building(digest[:32])
        try:
            on_step(f"booting a microVM for '{unit.name}'")
            facts = await self._boot_and_save(unit, building, deadline, on_step)
            (building / "template.json").write_text(json.dumps(facts, sort_keys=True))
            candidate = Template(digest, building, facts["skill"], facts["timing"], facts["facts"])
            on_step("trying a clone of it")
            started = time.monotonic()
            async with self.clone(unit, candidate) as clone:
                await clone.link.rehearse(deadline=time.monotonic() + _REHEARSAL_S)
            self._forget_memory(digest)
            facts["timing"]["first_clone"] = round(time.monotonic() - started, 4)
            (building / "template.json").write_text(json.dumps(facts, sort_keys=True))
            target = self._folder / digest[:32]
            await anyio.to_thread.run_sync(_put_in_place, building, target)
        finally:
            self._forget_memory(digest)
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(building, ignore_errors=True))
        found = self.find(unit)
        if found is None:
            raise SandboxBroken(f"the template of '{unit.name}' is damaged", hint="is the disk full? try again")
        return found

    async def _boot_and_save(self, unit: Unit, folder: Path, deadline: float, on_step: OnStep) -> dict[str, Any]:
        """Boot a guest, wait until its skill is imported, and save it into `folder`; return the facts for template.json."""
        started = time.monotonic()
        memory, state = folder / "memory", folder / "state"
        await anyio.to_thread.run_sync(_make_sparse, memory, unit.limits.memory_mib * MIB)
        disks = await anyio.to_thread.run_sync(self._disks, unit)
        state_fd = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            async with open_sockets(console=True) as sockets:
                argv = arguments(
                    self._qemu,
                    memory=Memory("/memory", unit.limits.memory_mib, is_shared=True),
                    disks=_DISKS,
                    ports=sockets.guest_ports,
                    monitor=sockets.guest_monitor,
                    console=sockets.guest_console,
                    boot=Boot("/boot/vmlinuz", "/boot/initramfs", self._kernel_arguments(unit.limits)),
                    rtc=rtc_base(time.time() - _CLOCK_BEHIND_S),
                )
                binds = {"/boot/vmlinuz": self._kernel.image, "/boot/initramfs": self._kernel.initramfs, **disks}
                process = await GuestProcess.start(
                    confine(
                        self._qemu, argv, memory_mib=unit.limits.memory_mib, binds=binds, writable={"/memory": memory}
                    ),
                    inherit=sockets.for_guest(),
                )
                link = GuestLink(sockets.descriptors(), unit.limits, name=unit.name)
                try:
                    sockets.close_guest_ends()
                    await process.tie()
                    monitor = Monitor(sockets.monitor)
                    try:
                        described = await link.describe(deadline=deadline)
                    except SkillFailed as error:
                        if error.code == "sandbox-lost" and _is_full(folder):
                            # The memory's file is sparse; QEMU maps it, so it gets no error for a page that finds no room: it dies.
                            raise SandboxBroken(
                                f"the disk with {folder.parent} is full (No space left on device): the memory of a guest of "
                                f"'{unit.name}' takes up to "
                                f"{unit.limits.memory_mib} MiB there",
                                hint="see the free space with `df -h`, make room, then try again",
                            ) from error
                        raise _with_console(error, sockets.console_text(), process.last_words()) from error
                    ready = time.monotonic()
                    on_step("saving it as the template")
                    await _save(monitor, state_fd)
                    facts = dict(link.facts)
                finally:
                    await process.end()
                    link.close()
        finally:
            os.close(state_fd)
        await anyio.to_thread.run_sync(_settle, memory, state)
        saved = time.monotonic()
        timing = {
            "boot": round(ready - started - described.import_s - described.warmup_s, 4),
            "import": round(described.import_s, 4),
            "warmup": round(described.warmup_s, 4),
            "save": round(saved - ready, 4),
        }
        return {"skill": described.skill, "timing": timing, "facts": facts, "state_bytes": state.stat().st_size}

    def _kernel_arguments(self, limits: Limits) -> str:
        return f"{self._qemu.kernel_arguments} silo.processes={limits.processes} silo.scratch_mib={limits.scratch_mib}"

    def _disks(self, unit: Unit) -> dict[str, Path]:
        images = {"base": unit.base, "layer": unit.layer, "runtime": unit.runtime}
        return {_DISKS[name]: self._images.disk(image) for name, image in images.items()}

    @contextlib.asynccontextmanager
    async def clone(self, unit: Unit, template: Template) -> AsyncIterator[Clone]:
        """Start a guest from a template; when this returns, it is being restored, and the call may be sent.

        Raises:
            SandboxBroken: QEMU did not start.
        """
        started = time.monotonic()
        memory, inherit, binds = await self._private_memory(unit, template)
        disks = await anyio.to_thread.run_sync(self._disks, unit)
        state = os.open(template.folder / "state", os.O_RDONLY | os.O_CLOEXEC)
        try:
            async with open_sockets(console=False) as sockets:
                argv = arguments(
                    self._qemu,
                    memory=memory,
                    disks=_DISKS,
                    ports=sockets.guest_ports,
                    monitor=sockets.guest_monitor,
                    console=None,
                    boot=None,
                    rtc=None,
                )
                process = await GuestProcess.start(
                    confine(self._qemu, argv, memory_mib=unit.limits.memory_mib, binds={**disks, **binds}, writable={}),
                    inherit=(*sockets.for_guest(), state, *inherit),
                )
                link = GuestLink(sockets.descriptors(), unit.limits, name=unit.name)
                try:
                    sockets.close_guest_ends()
                    await process.tie()
                    monitor = Monitor(sockets.monitor)
                    monitor.send("qmp_capabilities")
                    monitor.send("migrate-set-capabilities", capabilities=_IGNORE_SHARED)
                    monitor.send("migrate-incoming", uri=f"fd:{state}")
                    link.facts.update(template.facts)
                    await link.resume(f"{unit.name.replace('_', '-')}-{os.urandom(4).hex()}")
                    yield Clone(link, process, {"start": time.monotonic() - started})
                finally:
                    await process.end()
                    link.close()
        finally:
            os.close(state)

    async def _private_memory(self, unit: Unit, template: Template) -> tuple[Memory, tuple[int, ...], dict[str, Path]]:
        """How a clone gets the template's memory without being able to change it.

        QEMU before 8.2 opens the file read-write even for a private mapping. It gets a sealed copy in memory, which can be
        opened so but not written (`man 2 memfd_create`, F_SEAL_WRITE); newer ones map the file itself, bound read-only.
        """
        mib = unit.limits.memory_mib
        if self._qemu.can_map_read_only:
            path = template.folder / "memory"
            return Memory("/memory", mib, is_shared=False, is_read_only=True), (), {"/memory": path}
        descriptor = self._memories.get(template.digest)
        if descriptor is None:
            descriptor = await anyio.to_thread.run_sync(sealed_copy, template.folder / "memory")
            known = self._memories.setdefault(template.digest, descriptor)
            if known != descriptor:  # another call of the same skill was faster
                os.close(descriptor)
                descriptor = known
        self._memories.move_to_end(template.digest)
        while len(self._memories) > _KEPT_MEMORIES:
            _, oldest = self._memories.popitem(last=False)
            os.close(oldest)
        return Memory(f"/proc/self/fd/{descriptor}", mib, is_shared=False), (descriptor,), {}

    def _forget_memory(self, digest: str) -> None:
        descriptor = self._memories.pop(digest, None)
        if descriptor is not None:
            os.close(descriptor)

    def prune(self, keep: Iterable[Unit]) -> list[Path]:
        """Delete the templates of units that are not in `keep`, and what processes that were killed left; return which templates.

        One that is being made is left alone. Only while no install is under way (`silo.catalog.store.SkillStore.no_install_in_progress`): the template
        that it has just made belongs to a unit of which no list can know yet.
        """
        wanted = {self.digest(unit)[:32] for unit in keep}
        unwanted = [name for name in self._cache.names() if name not in wanted]
        gone = [self._folder / name for name in unwanted if self._cache.discard(name)]
        self._cache.sweep()
        return gone

    def close(self) -> None:
        """Give the memory back that was kept for clones."""
        while self._memories:
            _, descriptor = self._memories.popitem()
            os.close(descriptor)


_IGNORE_SHARED = [{"capability": "x-ignore-shared", "state": True}]


async def _save(monitor: Monitor, state_fd: int) -> None:
    """Write the state of the guest's devices; its memory is in the file already.

    The migration itself stops the guest. It must not be stopped before, or the saved state says `paused` and each clone would wait
    for a `cont` that costs a round trip.
    """
    await monitor.execute("qmp_capabilities")
    await monitor.execute("migrate-set-capabilities", capabilities=_IGNORE_SHARED)
    await monitor.execute("getfd", descriptor=state_fd, fdname="state")
    await monitor.execute("migrate", uri="fd:state")
    while True:
        status = (await monitor.execute("query-migrate"))["status"]
        if status == "completed":
            break
        if status in ("failed", "cancelled"):
            raise SandboxBroken("QEMU could not save the guest", hint="is the disk full? try again; then `silo doctor`")
        await anyio.sleep(0.01)  # QEMU has no event for it unless the capability `events` is on, which older ones lack
    await monitor.execute("quit")


def _make_sparse(path: Path, size_bytes: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size_bytes)


def _put_in_place(building: Path, target: Path) -> None:
    if target.exists():  # damaged: `find` refused it
        target.rename(building / "damaged")
    building.rename(target)


def _settle(memory: Path, state: Path) -> None:
    """Put a template's files safely on the disk."""
    for path in (memory, state):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
            os.fchmod(descriptor, 0o400)
        finally:
            os.close(descriptor)


def sealed_copy(path: Path) -> int:
    """Copy a sparse file into a memfd, data only, and seal it against every change; return its descriptor."""
    copy = os.memfd_create("template", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(source).st_size
        os.ftruncate(copy, size)
        at = 0
        while True:
            try:
                start = os.lseek(source, at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                break
            at = os.lseek(source, start, os.SEEK_HOLE)
            os.lseek(copy, start, os.SEEK_SET)
            while start < at:
                start += os.sendfile(copy, source, start, at - start)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(copy)
        raise
    finally:
        os.close(source)
    return copy


def _is_full(folder: Path) -> bool:
    """Whether not even a page of a guest's memory finds room there."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < 64 * 1024


def _with_console(error: SkillFailed, console: str, last_words: str) -> SkillFailed:
    """Add what the guest's kernel and QEMU said to an error that would otherwise only say 'lost' or 'late'."""
    said = console.strip() or last_words
    if error.code in ("sandbox-lost", "timeout") and said:
        error.stderr = f"{error.stderr}\n{said[-2000:]}".strip()
    return error


def _cpu_of_host(*, with_flags: bool) -> str:
    """What a snapshot depends on: the host's CPU model, for its counter's rate; under hardware virtualisation its flags too."""
    wanted = ("model name", "flags", "Features") if with_flags else ("model name",)
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"
    return "\n".join(sorted({line for line in text.splitlines() if line.startswith(wanted)}))
