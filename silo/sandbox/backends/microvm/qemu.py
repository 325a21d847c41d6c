"""QEMU: its command lines and its confinement. `template` decides when a guest is saved and restored.

QEMU processes a guest's input, so it is confined too: bubblewrap gives it its own mount, network, pid, ipc and uts
namespaces with only its own files in them, and a filter of system calls; `silo.sandbox.identity` says as which user it
runs; `-sandbox on` adds QEMU's own filter, and a shell's `ulimit` resource limits.
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from silo.sandbox import seccomp
from silo.sandbox.backends.microvm.machine import KERNEL_ARGUMENTS, Accelerator, Machine
from silo.sandbox.identity import Identity
from silo.sandbox.programs import system_binds

_QEMU_MIB = 2048
"""Address space that QEMU may use beyond the guest's memory.

It is for code, translated code, and glibc's arenas (64 MiB each, reserved).
"""

_FIRMWARE_FOLDERS = ("/usr/share/qemu", "/usr/share/qboot")
"""Searched after the folders that QEMU names."""

_FIRMWARE = "/boot/firmware"
"""Where a confined QEMU sees its firmware."""


@dataclass(frozen=True)
class Firmware:
    """The file that a machine starts with (`-bios`).

    Attributes:
        digest: SHA-256 in hex of its contents; a template is restored only under the firmware that it was made with.
    """

    path: Path
    digest: str


@dataclass(frozen=True)
class Qemu:
    """A QEMU of this host that can be started.

    Attributes:
        firmware: this host's file for `Machine.firmware`; None for a machine that needs none.
        version: e.g. `7.2.22`.
        can_map_read_only: it can map guest memory from a file that it opens read-only (`rom=off`, QEMU 8.2 and later).
        tsc_khz: the rate of the guest's time stamp counter, if the guest can't measure it (see `tsc_guess`).
        identity: how it is kept from being root.
    """

    binary: Path
    bwrap: Path
    version: str
    can_map_read_only: bool
    machine: Machine
    accelerator: Accelerator
    firmware: Firmware | None = None
    tsc_khz: int | None = None
    identity: Identity = field(default_factory=Identity)

    @property
    def migrates_to_files(self) -> bool:
        """Whether the state of a guest goes to a file by `file:` (QEMU 9.1 deprecates `fd:` for files)."""
        return _is_at_least(self.version, 9, 1)

    @property
    def kernel_arguments(self) -> str:
        """The kernel arguments of every guest."""
        rate = f" tsc_early_khz={self.tsc_khz}" if self.tsc_khz else ""
        return f"{KERNEL_ARGUMENTS} console={self.machine.console}{rate}"


def tsc_guess(accelerator: Accelerator) -> int | None:
    """Guess the rate of the time stamp counter in kHz, for an emulated x86 guest; None if it isn't needed.

    Without the rate, such a guest measures its counter against an emulated timer. On a busy host that fails, and the
    guest hangs at boot (seen in two of six boots under load). On a host with changing clock rates the guess can be far
    off; the probe measures by how much (`silo.sandbox.backends.microvm.probe`).
    """
    if accelerator.is_hardware or platform.machine() != "x86_64":
        return None
    try:
        found = re.search(r"^cpu MHz\s*: ([\d.]+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(float(found.group(1)) * 1000) if found else None


def ask_version(binary: Path) -> str:
    """Return QEMU's version, e.g. `7.2.22`."""
    out = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, env={}).stdout
    found = re.search(r"version (\d+(?:\.\d+)+)", out)
    return found.group(1) if found else "unknown"


def find_firmware(binary: Path, name: str) -> Firmware | None:
    """Look for a firmware file in the folders where this QEMU keeps its data (`man 1 qemu`, `-L help`)."""
    out = subprocess.run([binary, "-L", "help"], capture_output=True, text=True, check=False, env={}).stdout
    for folder in [*out.splitlines(), *_FIRMWARE_FOLDERS]:
        if not Path(folder).is_absolute():  # never a file of the current folder
            continue
        try:
            path = (Path(folder) / name).resolve(strict=True)
            return Firmware(path, sha256(path.read_bytes()).hexdigest())
        except OSError:
            continue
    return None


def can_map_read_only(version: str) -> bool:
    """Whether `memory-backend-file` takes `readonly=on,rom=off` (QEMU 8.2; its documentation of `-object`)."""
    return _is_at_least(version, 8, 2)


def _is_at_least(version: str, *wanted: int) -> bool:
    """Whether a version is that one or a newer one; an unknown version is not."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) >= wanted


def filter_rules() -> bytes:
    """Return the filter of system calls for a confined QEMU, in addition to QEMU's own.

    QEMU's own knows nothing of the kernel's keys (`man 7 keyrings`), which no namespace hides, and of new namespaces.

    Raises:
        KeyError: an architecture without a table.
    """
    return seccomp.build(allowing=seccomp.MEMORY_POLICY)


@dataclass(frozen=True)
class Memory:
    """The file of a guest's memory: `path` as QEMU sees it; shared for a guest that boots, private for a clone."""

    path: str
    mib: int
    is_shared: bool
    is_read_only: bool = False


@dataclass(frozen=True)
class Boot:
    """What a guest boots. A restored guest doesn't need it, and without it each clone touches 14 MiB less."""

    kernel: str
    initramfs: str
    arguments: str


def arguments(
    qemu: Qemu,
    *,
    memory: Memory,
    disks: Mapping[str, str],
    ports: Mapping[str, int],
    monitor: int,
    console: int | None,
    boot: Boot | None,
) -> list[str]:
    """Return QEMU's command line.

    The devices must be the same, in the same order, for a template and for its clones.

    Args:
        disks: path by serial number, in the order of the devices; opened read-only.
        ports: sockets by the name of the guest's port.
        monitor: the socket for QMP.
        console: a socket for the serial console, or None to drop the output of the guest's kernel.
        boot: what to boot, or None for a guest that waits for `migrate-incoming`.
    """
    backend = f"memory-backend-file,id=ram,size={memory.mib}M,mem-path={memory.path},share={_on(memory.is_shared)}"
    if memory.is_read_only:
        backend += ",readonly=on,rom=off"
    accelerator = qemu.accelerator
    argv = [
        str(qemu.binary),
        *("-machine", f"{qemu.machine.options},memory-backend=ram,dump-guest-core=off,mem-merge=off"),
        *("-accel", ",".join(part for part in (accelerator.name, accelerator.options) if part)),
        *("-cpu", accelerator.cpu, "-smp", "1", "-m", f"{memory.mib}M", "-object", backend),
        *(("-bios", _FIRMWARE) if qemu.firmware else ()),
        *("-nodefaults", "-no-user-config", "-nographic", "-no-reboot"),
        *_drop_privileges(qemu),
        *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"socket,id=console,fd={console}" if console is not None else "null,id=console"),
        *("-serial", "chardev:console"),
    ]
    for serial, path in disks.items():
        argv += ["-blockdev", f"driver=file,node-name=file-{serial},filename={path},read-only=on,locking=off"]
        argv += ["-blockdev", f"driver=raw,node-name={serial},file=file-{serial},read-only=on"]
        argv += ["-device", f"virtio-blk-device,drive={serial},serial={serial}"]
    argv += ["-device", "virtio-serial-device,max_ports=8"]
    for name, descriptor in ports.items():
        chardev = name.replace(".", "-")
        argv += ["-chardev", f"socket,id={chardev},fd={descriptor}"]
        argv += ["-device", f"virtserialport,chardev={chardev},name={name}"]
    if boot is None:
        return [*argv, "-incoming", "defer"]
    return [*argv, "-kernel", boot.kernel, "-initrd", boot.initramfs, "-append", boot.arguments]


def _drop_privileges(qemu: Qemu) -> tuple[str, ...]:
    """QEMU's own filter, and the user that it becomes before the guest runs, once it has opened its files.

    A filter that denies `setuid` would be in the way of that. Afterwards QEMU has no capability and can't get any, so
    it may as well call it.
    """
    user = qemu.identity.draw()
    raising = "deny" if user is None else "allow"
    rules = f"on,obsolete=deny,elevateprivileges={raising},spawn=deny,resourcecontrol=deny"
    if user is None:
        return "-sandbox", rules
    # `-runas` is deprecated since QEMU 9.1, which has the other option (its "Deprecated features").
    is_new = _is_at_least(qemu.version, 9, 1)
    become = ("-run-with", f"user={user}:{user}") if is_new else ("-runas", f"{user}:{user}")
    return "-sandbox", rules, *become


def _on(value: bool) -> str:
    return "on" if value else "off"


def confine(
    qemu: Qemu, argv: Sequence[str], *, memory_mib: int, binds: Mapping[str, Path], writable: Mapping[str, Path]
) -> list[str]:
    """Wrap QEMU's command line into bubblewrap and resource limits.

    Args:
        memory_mib: the guest's memory; the limit of QEMU's address space depends on it.
        binds: files that QEMU may read, by the path that it sees.
        writable: files that QEMU may write, likewise.
    """
    device = qemu.accelerator.device
    wrap = [str(qemu.bwrap), *qemu.identity.namespaces, "--as-pid-1", "--die-with-parent", "--new-session"]
    wrap += ["--clearenv", "--hostname", "qemu"]
    wrap += system_binds()
    if not qemu.binary.is_relative_to("/usr"):
        wrap += ["--ro-bind", str(qemu.binary.parent.parent), str(qemu.binary.parent.parent)]
    # QEMU's data files are links into /etc on some distributions; it gets only its own folder there.
    wrap += ["--ro-bind-try", "/etc/alternatives", "/etc/alternatives", "--proc", "/proc", "--dev", "/dev"]
    if device:
        wrap += ["--dev-bind", device, device]
    if qemu.firmware is not None:
        wrap += ["--ro-bind", str(qemu.firmware.path), _FIRMWARE]
    for inside, path in binds.items():
        wrap += ["--ro-bind", str(path), inside]
    for inside, path in writable.items():
        wrap += ["--bind", str(path), inside]
    for name in ("keys", "key-users"):  # no namespace hides the names of the user's keys
        if (Path("/proc") / name).exists():
            wrap += ["--ro-bind", "/dev/null", f"/proc/{name}"]
    wrap += ["--remount-ro", "/proc", "--remount-ro", "/"]
    # No core dumps, few descriptors, and small files: it writes only a snapshot's state (65 kB) and messages.
    limits = "ulimit -c 0; ulimit -n 256; ulimit -f 4096; "
    limits += f"ulimit -v {(memory_mib + _QEMU_MIB) * 1024}; "
    # Bubblewrap ties its child's life to its own only at the end of its setup. If silo was killed before that, nothing
    # would ever end this guest. So the shell asks on stdin whether silo lives (`GuestProcess.tie`), and starts QEMU
    # only after an answer.
    # An open other end would be no proof: silo's first thread, with which bubblewrap dies, may be gone for milliseconds
    # before the last thread closes the descriptors (a past bug). This works because the shell is the process that was
    # tied (`--as-pid-1`): bubblewrap's own process 1 would tie itself while its child runs already.
    #
    # A process that becomes another user is no longer tied (`man 2 prctl`, PR_SET_PDEATHSIG). So such a QEMU is the
    # shell's child: it ends with the shell, which is process 1 of the namespace. What the shell would say about its end
    # is dropped, or it would hide QEMU's last words.
    run = 'exec "$@"' if qemu.identity.users is None else 'exec >&2 2>/dev/null; (exec "$@" 2>&1 >/dev/null); exit $?'
    return [*wrap, "--", "/bin/sh", "-c", f"echo >&0 && read -r _ || exit 1; {limits}{run}", "sh", *argv]
