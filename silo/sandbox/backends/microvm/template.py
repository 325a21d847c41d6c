"""Templates, i.e. saved guests whose program has started up, and the clones that are started from them.

A template is a folder with `memory` (the guest's memory, a sparse file), `state` (its devices) and `template.json`. It
is written under a temporary name, and renamed after a clone of it has answered, so every template that exists works.
Guests that are booted and not cloned start here as well. `silo.sandbox.backends.microvm.backend` decides which kind of
guest a call gets.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import anyio
import anyio.to_thread

from silo.errors import SandboxBroken, SandboxLost, SandboxTimeout, SkillFailed
from silo.sandbox.backends.microvm.guest import MicrovmGuest
from silo.sandbox.backends.microvm.kernel import GuestKernel
from silo.sandbox.backends.microvm.machine import KERNEL_ARGUMENTS
from silo.sandbox.backends.microvm.memories import Memories
from silo.sandbox.backends.microvm.qemu import Boot, Memory, Qemu, arguments, confine, filter_rules
from silo.sandbox.backends.microvm.qmp import Monitor
from silo.sandbox.backends.microvm.sockets import Sockets, open_sockets
from silo.sandbox.base import GuestSpec, Limits, OnStep, Program, Ready
from silo.sandbox.build_cache import BuildCache
from silo.sandbox.image import Images
from silo.sandbox.process import GuestProcess
from silo.sizes import MIB

_FORMAT = "silo-template-v3"
"""Part of every digest; incremented if the same inputs give another snapshot."""

_CLOCK_BEHIND_S = 26 * 3600
"""How far in the past a template's clock is. So a clone's clock, even of a clone that is made at once, jumps by more
than the hour after which OpenSSL reseeds at the latest; see `silo.guest.init`."""

_CLOCK_BEHIND_AT_LEAST_S = 24 * 3600
"""How far in the past a template's clock must be when it is saved, and when a clone of it is started."""

_REHEARSAL_S = 30.0

_SERIALS = {"/": "base", "/skill": "layer", "/runtime": "runtime"}
"""The serial numbers of the disks, by their mount points in the guest (see `silo.sandbox.backends.microvm.kernel`)."""


@dataclass(frozen=True)
class Template:
    """A template that works.

    Attributes:
        ready: what its program kept, and the seconds that boot, start-up, save and the first clone took.
    """

    digest: str
    folder: Path
    ready: Ready


class Templates:
    """The templates under one folder, for one QEMU and one guest kernel."""

    def __init__(self, folder: Path, images: Images, qemu: Qemu, kernel: GuestKernel, memories: Memories) -> None:
        self._folder = folder
        self._cache = BuildCache(folder)
        self._images = images
        self._qemu = qemu
        self._kernel = kernel
        self._memories = memories
        self._building: dict[str, anyio.Lock] = {}

    def digest(self, spec: GuestSpec) -> str:
        """Hash what a template depends on: the spec, and everything whose change would make the snapshot unusable."""
        qemu = self._qemu
        parts = [_FORMAT, spec.digest, self._kernel.digest, qemu.version, qemu.machine.options, KERNEL_ARGUMENTS]
        parts += [qemu.accelerator.name, qemu.accelerator.cpu, qemu.firmware.digest if qemu.firmware else ""]
        parts.append(host_facts(_cpuinfo(), _host_kernel(), is_hardware=qemu.accelerator.is_hardware))
        return sha256("\0".join(parts).encode()).hexdigest()

    def find(self, spec: GuestSpec) -> Template | None:
        """Return the spec's template if it exists, is undamaged, and has a clock that is in the past."""
        digest = self.digest(spec)
        folder = self._folder / digest[:32]
        try:
            facts = json.loads((folder / "template.json").read_text())
            memory, state = (folder / "memory").stat(), (folder / "state").stat()
        except (OSError, ValueError):
            return None
        if memory.st_size != spec.limits.memory_mib * MIB or state.st_size != facts["state_bytes"]:
            return None
        if not _is_behind(facts["clock"]):  # this machine's clock was set back since the template was made
            return None
        return Template(digest, folder, Ready(facts["kept"], facts["timing"]))

    async def get(self, spec: GuestSpec, program: Program, *, deadline: float, on_step: OnStep) -> Template:
        """Return the spec's template; make it if there is none. If two tasks try at once, one makes it, one waits.

        Raises: as `silo.sandbox.base.Preparing.prepare`.
        """
        found = self.find(spec)
        if found is not None:
            return found
        digest = self.digest(spec)
        async with self._building.setdefault(digest, anyio.Lock()), self._cache.wait_locked(digest[:32]):
            found = self.find(spec)
            return found or await self._make(spec, program, digest, deadline, on_step)

    async def _make(self, spec: GuestSpec, program: Program, digest: str, deadline: float, on_step: OnStep) -> Template:
        building = self._cache.building(digest[:32])
        try:
            on_step(f"booting a microVM for '{spec.name}'")
            ready, clock = await self._boot_and_save(spec, program, building, deadline, on_step)
            on_step("trying a clone of it")
            started = time.monotonic()
            async with self.clone(spec, program, Template(digest, building, ready)) as clone:
                await program.rehearse(clone, deadline=time.monotonic() + _REHEARSAL_S)
            timing = {**ready.timing, "first_clone": round(time.monotonic() - started, 4)}
            state_bytes = (building / "state").stat().st_size
            facts = {"kept": ready.kept, "timing": timing, "state_bytes": state_bytes, "clock": clock}
            (building / "template.json").write_text(json.dumps(facts, sort_keys=True))
            target = self._folder / digest[:32]
            await anyio.to_thread.run_sync(_put_in_place, building, target)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(building, ignore_errors=True))
        found = self.find(spec)
        if found is None:
            raise SandboxBroken(f"the template of '{spec.name}' is damaged", hint="is the disk full? try again")
        return found

    async def _boot_and_save(
        self, spec: GuestSpec, program: Program, folder: Path, deadline: float, on_step: OnStep
    ) -> tuple[Ready, float]:
        """Boot a guest, wait until its program has started up, hold it, and save it into `folder`.

        Returns what the program kept, and the guest's clock in seconds since the epoch.
        """
        started = time.monotonic()
        memory, state = folder / "memory", folder / "state"
        await anyio.to_thread.run_sync(_make_sparse, memory, spec.limits.memory_mib * MIB)
        state_fd = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            booting = self._boot(
                spec,
                Memory("/memory", spec.limits.memory_mib, is_shared=True),
                writable={"/memory": memory},
                clock_s=int(time.time()) - _CLOCK_BEHIND_S,
            )
            async with booting as (guest, sockets):
                try:
                    ready = await program.start_up(guest, deadline=deadline)
                    clock = await program.hold(guest, deadline=deadline)
                except SkillFailed as error:
                    if isinstance(error, SandboxLost) and _is_full(folder):
                        # The memory's file is sparse and QEMU maps it. So QEMU gets no error for a page that does not
                        # fit on the disk; it dies.
                        raise SandboxBroken(
                            f"the disk with {folder.parent} is full (No space left on device): "
                            f"the memory of a guest of '{spec.name}' takes up to {spec.limits.memory_mib} MiB there",
                            hint="see the free space with `df -h`, make room, then try again",
                        ) from error
                    raise _with_console(error, sockets.console_text(), guest.last_words()) from error
                if not _is_behind(clock):
                    raise SandboxBroken(
                        f"the clock of a guest of '{spec.name}' is not a day behind this machine's, "
                        "so OpenSSL would make the same random numbers in each of its clones",
                        hint="the guest kernel did not keep the time that silo set; "
                        "`silo setup --repair` fetches a kernel anew",
                    )
                started_up = time.monotonic()
                on_step("saving it as the template")
                await _save(guest.monitor, self._qemu, state_fd)
        finally:
            os.close(state_fd)
        await anyio.to_thread.run_sync(_settle, memory, state)
        boot = started_up - started - sum(ready.timing.values())
        timing = {"boot": boot, **ready.timing, "save": time.monotonic() - started_up}
        return Ready(ready.kept, {phase: round(seconds, 4) for phase, seconds in timing.items()}), clock

    @contextlib.asynccontextmanager
    async def boot(self, spec: GuestSpec) -> AsyncIterator[MicrovmGuest]:
        """Boot a guest that isn't saved; its memory isn't in a file.

        Raises:
            SandboxBroken: QEMU did not start.
        """
        mib = spec.limits.memory_mib
        descriptor = os.memfd_create("guest", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, mib * MIB)
            memory = Memory(f"/proc/self/fd/{descriptor}", mib, is_shared=True)
            async with self._boot(spec, memory, inherit=(descriptor,)) as (guest, _):
                yield guest
        finally:
            os.close(descriptor)

    @contextlib.asynccontextmanager
    async def _boot(
        self,
        spec: GuestSpec,
        memory: Memory,
        *,
        clock_s: int | None = None,
        writable: Mapping[str, Path] | None = None,
        inherit: tuple[int, ...] = (),
    ) -> AsyncIterator[tuple[MicrovmGuest, Sockets]]:
        """Boot a guest; `clock_s` is the time that its clock gets, in seconds since the epoch, if not the right one."""
        disks = await anyio.to_thread.run_sync(self._disks, spec)
        async with open_sockets(spec.streams, console=True) as sockets:
            argv = arguments(
                self._qemu,
                memory=memory,
                disks=_seen(disks),
                ports=sockets.guest_ports,
                monitor=sockets.guest_monitor,
                console=sockets.guest_console,
                boot=Boot("/boot/vmlinuz", "/boot/initramfs", self._kernel_arguments(spec.limits, clock_s)),
            )
            binds = {"/boot/vmlinuz": self._kernel.image, "/boot/initramfs": self._kernel.initramfs, **_binds(disks)}
            process = await GuestProcess.start(
                confine(self._qemu, argv, memory_mib=spec.limits.memory_mib, binds=binds, writable=writable or {}),
                inherit=(*sockets.for_guest(), *inherit),
                rules=filter_rules(),
            )
            guest = MicrovmGuest(
                spec, sockets.host_ports, process, self._qemu, Monitor(sockets.monitor), kind="booted", kept=None
            )
            try:
                sockets.close_guest_ends()
                await process.tie()
                yield guest, sockets
            finally:
                await guest.end()

    def _kernel_arguments(self, limits: Limits, clock_s: int | None) -> str:
        own = f"silo.processes={limits.processes} silo.scratch_mib={limits.scratch_mib}"
        # Init sets it. Setting the machine's clock (`-rtc base=`) would not do: a guest under KVM reads the host's
        # clock, and has a driver for the other one only by chance.
        clock = "" if clock_s is None else f" silo.clock={clock_s}"
        return f"{self._qemu.kernel_arguments} {own}{clock}"

    def _disks(self, spec: GuestSpec) -> dict[str, Path]:
        """Return the images of a spec as files, by serial number, in the order of the devices."""
        return {_SERIALS[path]: self._images.disk(image) for path, image in {"/": spec.root, **spec.mounts}.items()}

    @contextlib.asynccontextmanager
    async def clone(self, spec: GuestSpec, program: Program, template: Template) -> AsyncIterator[MicrovmGuest]:
        """Start a guest from a template. When this returns, it is being restored and has been woken; it takes work.

        Raises:
            SandboxBroken: QEMU did not start.
        """
        disks = await anyio.to_thread.run_sync(self._disks, spec)
        state = os.open(template.folder / "state", os.O_RDONLY | os.O_CLOEXEC)
        try:
            async with (
                self._private_memory(spec, template) as (memory, inherit, binds),
                open_sockets(spec.streams, console=False) as sockets,
            ):
                argv = arguments(
                    self._qemu,
                    memory=memory,
                    disks=_seen(disks),
                    ports=sockets.guest_ports,
                    monitor=sockets.guest_monitor,
                    console=None,
                    boot=None,
                )
                confined = confine(
                    self._qemu,
                    argv,
                    memory_mib=spec.limits.memory_mib,
                    binds={**_binds(disks), **binds},
                    writable={},
                )
                process = await GuestProcess.start(
                    confined, inherit=(*sockets.for_guest(), *inherit), rules=filter_rules()
                )
                kept = template.ready.kept
                monitor = Monitor(sockets.monitor)
                guest = MicrovmGuest(spec, sockets.host_ports, process, self._qemu, monitor, kind="clone", kept=kept)
                try:
                    sockets.close_guest_ends()
                    await process.tie()
                    monitor.send("qmp_capabilities")
                    monitor.send("migrate-set-capabilities", capabilities=_IGNORE_SHARED)
                    monitor.send("migrate-incoming", uri=_hand_over(monitor, self._qemu, state))
                    try:
                        await program.wake(guest)
                    except SandboxLost as error:
                        ended = await guest.end()
                        raise SandboxBroken(f"{error} ({ended.last_words})", hint=ended.hint) from error
                    yield guest
                finally:
                    await guest.end()
        finally:
            os.close(state)

    @contextlib.asynccontextmanager
    async def _private_memory(
        self, spec: GuestSpec, template: Template
    ) -> AsyncIterator[tuple[Memory, tuple[int, ...], dict[str, Path]]]:
        """Give a clone the template's memory so that it can't change it.

        QEMU before 8.2 opens the file read-write even for a private mapping. It gets a sealed copy in memory, which it
        can open read-write but not write to (`man 2 memfd_create`, F_SEAL_WRITE). Newer versions map the file itself,
        which is bound read-only.
        """
        mib, path = spec.limits.memory_mib, template.folder / "memory"
        if self._qemu.can_map_read_only:
            yield Memory("/memory", mib, is_shared=False, is_read_only=True), (), {"/memory": path}
            return
        async with self._memories.copy_of(path) as descriptor:
            yield Memory(f"/proc/self/fd/{descriptor}", mib, is_shared=False), (descriptor,), {}

    def prune(self, keep: Iterable[GuestSpec]) -> list[Path]:
        """Delete the templates of specs that aren't in `keep`, and leftovers of killed processes; return the templates.

        A template that is being made is left alone. Call this only while no install is under way
        (`silo.catalog.store.SkillStore.no_install_in_progress`): the template that an install has just made belongs to
        a skill that isn't on any list yet.
        """
        wanted = {self.digest(spec)[:32] for spec in keep}
        unwanted = [name for name in self._cache.names() if name not in wanted]
        gone = [self._folder / name for name in unwanted if self._cache.discard(name)]
        self._cache.sweep()
        return gone


def _seen(disks: Mapping[str, Path]) -> dict[str, str]:
    """Return where QEMU sees the disks, by serial number."""
    return {serial: f"/disk/{serial}" for serial in disks}


def _binds(disks: Mapping[str, Path]) -> dict[str, Path]:
    return {path: disks[serial] for serial, path in _seen(disks).items()}


_IGNORE_SHARED = [{"capability": "x-ignore-shared", "state": True}]


_STATE_SET = 1
"""The number of the set of descriptors with the state file; it is the only one that this QEMU gets."""


def _hand_over(monitor: Monitor, qemu: Qemu, state_fd: int) -> str:
    """Give QEMU, which sees no file of the host, the file of a state; return its address for a migration.

    QEMU 9.1 deprecates `fd:` for files. Older versions don't have `file:`, or take no descriptor for it.
    """
    if qemu.migrates_to_files:
        monitor.send("add-fd", descriptor=state_fd, fdset_id=_STATE_SET)
        return f"file:/dev/fdset/{_STATE_SET}"
    monitor.send("getfd", descriptor=state_fd, fdname="state")
    return "fd:state"


async def _save(monitor: Monitor, qemu: Qemu, state_fd: int) -> None:
    """Write the state of the guest's devices; its memory is in the file already.

    The migration itself stops the guest. If it was stopped before, the saved state would say `paused`, and each clone
    would need a `cont`, which costs a round trip.
    """
    await monitor.execute("qmp_capabilities")
    await monitor.execute("migrate-set-capabilities", capabilities=_IGNORE_SHARED)
    await monitor.execute("migrate", uri=_hand_over(monitor, qemu, state_fd))
    while True:
        status = (await monitor.execute("query-migrate"))["status"]
        if status == "completed":
            break
        if status in ("failed", "cancelled"):
            raise SandboxBroken("QEMU could not save the guest", hint="is the disk full? try again; then `silo doctor`")
        await anyio.sleep(0.01)  # QEMU sends an event for it only with the capability `events`, which old versions lack
    await monitor.execute("quit")


def _is_behind(clock: float) -> bool:
    """Whether a template's clock, in seconds since the epoch, is far enough in the past for its clones to differ."""
    return time.time() - clock >= _CLOCK_BEHIND_AT_LEAST_S


def _make_sparse(path: Path, size_bytes: int) -> None:
    with open(path, "wb") as file:
        file.truncate(size_bytes)


def _put_in_place(building: Path, target: Path) -> None:
    if target.exists():  # damaged: `find` refused it
        target.rename(building / "damaged")
    building.rename(target)


def _settle(memory: Path, state: Path) -> None:
    """Flush a template's files to the disk."""
    for path in (memory, state):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
            os.fchmod(descriptor, 0o400)
        finally:
            os.close(descriptor)


def _is_full(folder: Path) -> bool:
    """Whether the disk lacks room for even one page of a guest's memory."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < 64 * 1024


def _with_console(error: SkillFailed, console: str, last_words: str) -> SkillFailed:
    """Add the output of the guest's kernel and of QEMU to an error that only says 'lost' or 'late'."""
    said = console.strip() or last_words
    if isinstance(error, SandboxLost | SandboxTimeout) and said:
        error.stderr = f"{error.stderr}\n{said[-2000:]}".strip()
    return error


_CPU_MODEL = ("model name",)
_CPU = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags", "bugs", "Features", "CPU ", *_CPU_MODEL)


def host_facts(cpuinfo: str, kernel: str, *, is_hardware: bool) -> str:
    """Return the facts about the host on which a snapshot depends.

    An emulated guest has QEMU's CPU; of the host's, only the model counts, for the rate of the time stamp counter. With
    hardware virtualisation, a guest runs on the host's CPU, and KVM makes a part of the state that is saved. What a
    guest sees of the CPU changes with its microcode, and KVM with the host's kernel.

    Args:
        cpuinfo: `/proc/cpuinfo`.
        kernel: the release and the version of the host's kernel. A distribution's update can keep the release.
        is_hardware: as `Accelerator.is_hardware`.
    """
    wanted = _CPU if is_hardware else _CPU_MODEL
    cpu = sorted({line for line in cpuinfo.splitlines() if line.startswith(wanted)})
    return "\n".join([*cpu, kernel] if is_hardware else cpu)


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return "unknown"


def _host_kernel() -> str:
    return f"{platform.release()} {platform.version()}"
