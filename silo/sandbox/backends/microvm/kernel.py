"""The guest kernel: its folder, its files, and the initial file system that mounts the images.

`silo setup` (see `silo.setup.kernel`) puts a *kernel pack* under `SILO_HOME/kernel/RELEASE/`: `vmlinuz`, the modules
that a guest needs, a static `busybox`, `initramfs.cpio`, and `kernel.json`. Nothing here starts a process.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from silo.errors import SandboxBroken

PACK_VERSION = 1

_INIT = """\
#!/bin/busybox sh
# First process of a guest: load the drivers, put the images together, hand over to silo's init.
# What the shell can do by itself it does: under emulation each program that is started costs some 50 ms.
set -e
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
read -r arguments < /proc/cmdline
case " $arguments " in *" silo.probe "*)
  exec > /dev/console; read -r uptime < /proc/uptime; echo silo-probe-1 $uptime
  $b sleep 2; read -r uptime < /proc/uptime; echo silo-probe-2 $uptime; $b sleep 9;;
esac
while read -r module; do $b insmod /modules/$module; done < /modules/order
for word in $arguments; do case $word in silo.scratch_mib=*) scratch=${word#*=};; esac; done
for disk in /sys/block/vd*; do
  read -r serial < $disk/serial || true
  case $serial in base) base=/dev/${disk##*/};; layer) layer=/dev/${disk##*/};; runtime) runtime=/dev/${disk##*/};; esac
done
$b mount -t ext4 -o ro,nosuid,nodev $base /root
$b mount -t ext4 -o ro,nosuid,nodev $layer /root/skill
$b mount -t ext4 -o ro,nosuid,nodev $runtime /root/runtime
$b mount -t tmpfs -o nosuid,nodev,mode=1777,size=${scratch}m tmpfs /root/tmp
$b mount -t proc -o nosuid,nodev,noexec,hidepid=2 proc /root/proc
$b mount -t sysfs -o ro,nosuid,nodev,noexec sysfs /root/sys
$b umount /proc /sys
$b mount -o move /dev /root/dev
$b mkdir -p /root/dev/shm
$b mount -t tmpfs -o nosuid,nodev,noexec,mode=1777,size=${scratch}m tmpfs /root/dev/shm
export LD_LIBRARY_PATH=/skill/lib
exec $b switch_root /root /usr/bin/python3 -I -S -B -c 'import sys
sys.path[:0] = ["/runtime"]
sys.path.append("/skill/env")
from silo.guest.init import main_microvm
main_microvm()'
"""


@dataclass(frozen=True)
class GuestKernel:
    """A complete kernel pack: its files match `kernel.json`.

    Attributes:
        release: as `uname -r` prints it in the guest.
        digest: SHA-256 in hex over the pack's contents.
    """

    release: str
    digest: str
    image: Path
    initramfs: Path


def load(folder: Path) -> GuestKernel:
    """Open a kernel pack.

    Raises:
        SandboxBroken: the folder has no pack, or one that is damaged or of another version of silo.
    """
    try:
        facts = json.loads((folder / "kernel.json").read_text())
        if facts["version"] != PACK_VERSION:
            raise SandboxBroken(
                f"{folder} is not a kernel pack of this silo", hint="run `silo setup` to make a new one"
            )
        kernel = GuestKernel(facts["release"], facts["digest"], folder / "vmlinuz", folder / "initramfs.cpio")
        sizes = {name: (folder / name).stat().st_size for name in facts["sizes"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SandboxBroken(f"no guest kernel in {folder}: {error}", hint="run `silo setup` to get one") from error
    if sizes != facts["sizes"]:
        raise SandboxBroken(f"the guest kernel in {folder} is damaged", hint="delete that folder and run `silo setup`")
    return kernel


def find(folder: Path) -> GuestKernel | None:
    """Return the newest complete pack among the folders in `folder`, or None."""
    if (folder / "kernel.json").is_file():
        return load(folder)
    packs = sorted(folder.glob("*/kernel.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return load(packs[0].parent) if packs else None


def write_pack(folder: Path, *, release: str, image: bytes, modules: Mapping[str, bytes], busybox: bytes) -> None:
    """Write a kernel pack into the empty `folder`. `kernel.json` comes last, so an incomplete pack does not count.

    Args:
        modules: the modules to load, by name, in loading order, uncompressed.
    """
    initramfs = make_initramfs(modules, busybox)
    contents = {"vmlinuz": image, "initramfs.cpio": initramfs}
    whole = sha256()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
        whole.update(name.encode() + len(data).to_bytes(8) + data)
    facts = {
        "version": PACK_VERSION,
        "release": release,
        "digest": whole.hexdigest(),
        "sizes": {name: len(data) for name, data in contents.items()},
    }
    (folder / "kernel.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


def make_initramfs(modules: Mapping[str, bytes], busybox: bytes) -> bytes:
    """Return the guest's initial file system as a cpio archive; the same inputs give the same bytes."""
    order = "".join(f"{name}.ko\n" for name in modules).encode()
    files: list[tuple[str, int, bytes]] = [
        (name, stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "modules", "proc", "root", "sys")
    ]
    files.append(("bin/busybox", stat.S_IFREG | 0o755, busybox))
    files.append(("init", stat.S_IFREG | 0o755, _INIT.encode()))
    files.append(("modules/order", stat.S_IFREG | 0o644, order))
    files.extend((f"modules/{name}.ko", stat.S_IFREG | 0o644, data) for name, data in modules.items())
    return make_cpio(files)


def make_cpio(files: Sequence[tuple[str, int, bytes]]) -> bytes:
    """Return a cpio archive in the `newc` format.

    Linux's `Documentation/driver-api/early-userspace/buffer-format.rst` describes it.
    """
    out = bytearray()
    for number, (name, mode, data) in enumerate([*files, ("TRAILER!!!", 0, b"")], start=1):
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out += bytes(-len(out) % 4)
        out += data
        out += bytes(-len(out) % 4)
    return bytes(out)
