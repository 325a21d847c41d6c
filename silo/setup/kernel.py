"""Fetch a kernel for the guests: a package of Debian or Ubuntu, unpacked into silo's folder and never installed."""

from __future__ import annotations

import fcntl
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from silo.errors import SandboxBroken
from silo.remedies import command
from silo.sandbox.backends.microvm import kernel
from silo.sandbox.backends.microvm.host import machine
from silo.sandbox.backends.microvm.machine import KERNEL_MODULES, Machine
from silo.sandbox.base import OnStep
from silo.setup.apt import apt, last_line


def fetch_kernel(folder: Path, on_step: OnStep) -> kernel.GuestKernel:
    """Download a kernel package and busybox with apt, unpack them, and write a kernel pack under `folder`.

    Needs no privilege. Of two processes, one waits for the other, and both end with a complete pack.

    Raises:
        SandboxBroken: no such package, no network, or the disk is full.
    """
    host = machine()
    if host is None or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise SandboxBroken(
            "a kernel can only be fetched on Debian or Ubuntu", hint=command("silo setup", "{} says what to do instead")
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
                raise SandboxBroken(f"cannot unpack {archive.name}: {last_line(done)}", hint="is the disk full?")
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
    """Download the distribution's kernel package, and the package of its modules if that is separate."""
    for metapackage in host.kernel_packages:
        depends = apt(("apt-cache", "depends", "--important", metapackage)).stdout
        names: list[str] = re.findall(r"Depends: (linux-(?:image|modules)-[\w.+-]+)", depends)
        image = next((name for name in names if name.startswith("linux-image-")), None)
        if image is None:
            continue
        more = re.findall(
            r"Depends: (linux-modules-[\w.+-]+)", apt(("apt-cache", "depends", "--important", image)).stdout
        )
        _download((image, *more[:1]), scratch, metapackage)
        return image
    raise SandboxBroken(
        f"apt knows none of {', '.join(host.kernel_packages)}",
        hint="run `apt-get update` as root, then `silo setup` again",
    )


def _download(packages: Sequence[str], scratch: Path, what: str) -> None:
    done = apt(("apt-get", "download", "-q", *packages), cwd=scratch)
    if done.returncode != 0:
        raise SandboxBroken(
            f"apt-get could not download {what}: {last_line(done)}",
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
    """Yield the modules that a guest needs and that aren't built into its kernel, uncompressed, in loading order."""
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
