"""Getting what the host lacks: QEMU, bubblewrap, e2fsprogs by the package manager, a guest kernel unpacked beside it.

Only Debian and Ubuntu are done here, with apt; for others `missing_programs` says what to install by hand. The kernel is never
installed on the host: its package is downloaded and unpacked into a folder of silo's. What works is for the probes to say.
"""

from __future__ import annotations

import fcntl
import lzma
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from silo.errors import SandboxBroken, SandboxUnavailable
from silo.sandbox.backends.microvm import kernel
from silo.sandbox.backends.microvm.machine import KERNEL_MODULES, MACHINES, Machine
from silo.sandbox.backends.microvm.qemu import find_firmware, find_program
from silo.sandbox.base import OnStep

_ADMIN_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_APT_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Program:
    """A program that silo starts, or a file that QEMU needs, and the Debian package that has it."""

    name: str
    package: str
    purpose: str


@dataclass(frozen=True)
class Plan:
    """What `silo setup` would do.

    Attributes:
        packages: Debian packages to install.
        needs_kernel: whether a guest kernel has to be fetched.
        command: what installs the packages, complete, for a person or for `run`; empty if there is nothing to install.
        can_install: whether this process may run `command` (root, or sudo without a password).
        by_hand: what to do on a system without apt; empty on Debian and Ubuntu.
    """

    packages: tuple[str, ...]
    needs_kernel: bool
    command: tuple[str, ...]
    can_install: bool
    by_hand: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether everything is there."""
        return not self.packages and not self.needs_kernel


def machine() -> Machine | None:
    """Return this host's row of the table, or None for an architecture that silo does not know."""
    return MACHINES.get({"arm64": "aarch64"}.get(platform.machine(), platform.machine()))


def programs(host: Machine) -> tuple[Program, ...]:
    """The programs that the microVM and the namespace backend need."""
    return (
        Program(host.binary, host.package, "runs microVMs"),
        Program("bwrap", "bubblewrap", "confines QEMU, and is the namespace backend"),
        Program("mke2fs", "e2fsprogs", "writes the images"),
    )


def missing_programs(host: Machine) -> tuple[Program, ...]:
    """Those of `programs` that are not here, and the machine's firmware if QEMU is here without it. Starts QEMU; blocks."""
    missing = [
        program
        for program in programs(host)
        if find_program(program.name) is None and shutil.which(program.name, path=_ADMIN_PATH) is None
    ]
    binary = find_program(host.binary)
    if host.firmware and binary is not None and find_firmware(binary, host.firmware) is None:
        missing.append(Program(host.firmware, host.firmware_package, "the firmware that starts a microVM"))
    return tuple(missing)


def plan(kernel_folder: Path, *, repair: bool = False) -> Plan:
    """Find out what is missing.

    Args:
        kernel_folder: where kernel packs lie.
        repair: fetch the kernel again though one is there.

    Raises:
        SandboxUnavailable: silo has no machine type for this architecture.
    """
    host = machine()
    if host is None:
        raise SandboxUnavailable(
            f"silo has no microVM for the architecture {platform.machine()!r}",
            hint=f"known are {', '.join(MACHINES)}; the namespace backend works elsewhere: `silo run --backend namespace`",
        )
    packages = tuple(sorted({program.package for program in missing_programs(host)}))
    try:
        needs_kernel = repair or kernel.find(kernel_folder) is None
    except SandboxBroken:
        needs_kernel = True
    apt = shutil.which("apt-get")
    if apt is None:
        by_hand = _by_hand(host, packages, needs_kernel) if packages or needs_kernel else ""
        return Plan(packages, needs_kernel, (), can_install=False, by_hand=by_hand)
    sudo = () if os.geteuid() == 0 else ("sudo",)
    command = (*sudo, "apt-get", "install", "-y", "--no-install-recommends", *packages) if packages else ()
    return Plan(packages, needs_kernel, command, can_install=not sudo or _has_sudo())


def _by_hand(host: Machine, packages: Sequence[str], needs_kernel: bool) -> str:
    """What to do where there is no apt."""
    lines = []
    if packages:
        lines.append(
            "install with your package manager: QEMU's system emulator for this machine "
            f"({host.binary}), bubblewrap (bwrap) and e2fsprogs (mke2fs)"
            + (f", and QEMU's firmware {host.firmware} (qboot)" if host.firmware else "")
        )
    if needs_kernel:
        lines.append(
            "make a kernel pack on a Debian or Ubuntu machine of the same architecture with `silo setup`, copy its folder "
            "`~/.silo/kernel` here, and run `silo doctor`"
        )
    return "; ".join(lines)


def _has_sudo() -> bool:
    sudo = shutil.which("sudo")
    return sudo is not None and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0


def run(todo: Plan, kernel_folder: Path, on_step: OnStep) -> None:
    """Do what a plan says.

    Raises:
        SandboxUnavailable: packages are missing and can't be installed from here; the hint is the command to run.
        SandboxBroken: apt or the unpacking failed.
    """
    if todo.by_hand:
        raise SandboxUnavailable("this system has no apt, so silo can't install what is missing", hint=todo.by_hand)
    if todo.packages:
        if not todo.can_install:
            raise SandboxUnavailable(
                f"these packages are missing: {', '.join(todo.packages)}",
                hint=f"run `{' '.join(todo.command)}`, then `silo setup` again",
            )
        on_step(f"installing {', '.join(todo.packages)} with apt")
        _apt_install(todo)
    if todo.needs_kernel:
        fetch_kernel(kernel_folder, on_step)


def _apt_install(todo: Plan) -> None:
    if _apt(todo.command).returncode != 0:
        # An old package list is the usual reason: refresh it, then try once more.
        prefix = todo.command[: todo.command.index("apt-get") + 1]
        _apt((*prefix, "update", "-q"))
        again = _apt(todo.command)
        if again.returncode != 0:
            raise SandboxBroken(
                f"apt-get failed: {_last_line(again)}", hint=f"run `{' '.join(todo.command)}` yourself to see all of it"
            )


def _apt(command: Sequence[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **_APT_ENVIRONMENT}
    return subprocess.run(
        list(command), capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL, cwd=cwd
    )


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"exit status {done.returncode}"


def forget_templates(folder: Path) -> None:
    """Delete all templates; each is made anew when its skill is called next. A call that runs now keeps its files open."""
    if folder.is_dir():
        doomed = folder.rename(folder.with_name(f".gone-{folder.name}-{os.getpid()}"))
        shutil.rmtree(doomed, ignore_errors=True)


# --- the guest kernel -------------------------------------------------------------------------------------------------


def fetch_kernel(folder: Path, on_step: OnStep) -> kernel.GuestKernel:
    """Download a kernel package and busybox with apt, unpack them, and write a kernel pack under `folder`.

    Needs no privilege. Two at once: one waits for the other, and both end with a whole pack.

    Raises:
        SandboxBroken: no such package, no network, or the disk is full.
    """
    host = machine()
    if host is None or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise SandboxBroken(
            "a kernel can only be fetched on Debian or Ubuntu", hint="`silo setup` says what to do instead"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock, tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as name:
        fcntl.flock(lock, fcntl.LOCK_EX)
        scratch = Path(name)
        on_step("downloading a kernel for the guests")
        package = _download_kernel(host, scratch)
        _download(("busybox-static",), scratch, "busybox")
        on_step(f"unpacking {package}")
        tree = scratch / "tree"
        for archive in scratch.glob("*.deb"):
            done = subprocess.run(["dpkg-deb", "-x", archive, tree], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise SandboxBroken(f"cannot unpack {archive.name}: {_last_line(done)}", hint="is the disk full?")
        image = next(iter(sorted(_kernel_images(tree, host))), None)
        if image is None:
            raise SandboxBroken(f"no kernel in the package {package}", hint="report this with your distribution's name")
        release = image.name.partition("-")[2]
        pack = Path(tempfile.mkdtemp(prefix=".pack-", dir=folder))
        kernel.write_pack(
            pack,
            release=release,
            image=image.read_bytes(),
            modules=dict(_modules(tree, release)),
            busybox=_busybox(tree),
        )
        target = folder / release
        if target.exists():
            target.rename(scratch / "old")
        pack.rename(target)
    return kernel.load(target)


def _download_kernel(host: Machine, scratch: Path) -> str:
    """Download the first kernel package that the distribution has, and the package of its modules if that is separate."""
    for metapackage in host.kernel_packages:
        depends = _apt(("apt-cache", "depends", "--important", metapackage)).stdout
        names: list[str] = re.findall(r"Depends: (linux-(?:image|modules)-[\w.+-]+)", depends)
        image = next((name for name in names if name.startswith("linux-image-")), None)
        if image is None:
            continue
        more = re.findall(
            r"Depends: (linux-modules-[\w.+-]+)", _apt(("apt-cache", "depends", "--important", image)).stdout
        )
        _download((image, *more[:1]), scratch, metapackage)
        return image
    raise SandboxBroken(
        f"apt knows none of {', '.join(host.kernel_packages)}",
        hint="run `apt-get update` as root, then `silo setup` again",
    )


def _download(packages: Sequence[str], scratch: Path, what: str) -> None:
    done = _apt(("apt-get", "download", "-q", *packages), cwd=scratch)
    if done.returncode != 0:
        raise SandboxBroken(
            f"apt-get could not download {what}: {_last_line(done)}",
            hint="is there a network? `apt-get update` as root refreshes an old package list",
        )


def _kernel_images(tree: Path, host: Machine) -> Iterator[Path]:
    for name in host.kernel_names:
        yield from (tree / "boot").glob(f"{name}-*")


def _busybox(tree: Path) -> bytes:
    for place in ("bin/busybox", "usr/bin/busybox"):
        if (tree / place).is_file():
            return (tree / place).read_bytes()
    raise SandboxBroken("no busybox in the package busybox-static", hint="report this with your distribution's name")


def _modules(tree: Path, release: str) -> Iterator[tuple[str, bytes]]:
    """Yield the modules that a guest needs and its kernel does not have built in, uncompressed, in the order of loading."""
    folder = next((f for f in (tree / "lib/modules" / release, tree / "usr/lib/modules" / release) if f.is_dir()), None)
    if folder is None:
        raise SandboxBroken(
            f"no modules of the kernel {release} were unpacked", hint="report this with your distribution's name"
        )
    builtin_list = folder / "modules.builtin"
    builtin = (
        {Path(line).stem.replace("-", "_") for line in builtin_list.read_text().split()}
        if builtin_list.is_file()
        else set()
    )
    files = {path.name.partition(".")[0].replace("-", "_"): path for path in (folder / "kernel").rglob("*.ko*")}
    for name in KERNEL_MODULES:
        if name in files:
            yield name, _uncompressed(files[name])
        elif name not in builtin:
            raise SandboxBroken(
                f"the kernel {release} has no module {name}", hint="report this with your distribution's name"
            )


def _uncompressed(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".zst":
        done = subprocess.run(["zstd", "-dc", path], capture_output=True, check=False)
        if done.returncode != 0:
            raise SandboxBroken(
                f"cannot decompress {path.name}", hint="install the package zstd, then `silo setup` again"
            )
        return done.stdout
    return data
