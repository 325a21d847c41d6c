"""Writes a tree of files as an ext4 file, for the disks of microVMs.

The trees come from packages that strangers wrote, so `mke2fs` reads them confined (`silo.sandbox.confined`).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from silo.errors import SandboxBroken
from silo.sandbox.confined import Confinement, run_confined_blocking
from silo.sizes import MIB

_BLOCK: Final = 4096

_SPARE: Final = 1.15
"""Room for ext4's own tables, beyond the sum of the file sizes; `mke2fs -d` fails if it is too little."""

_SEARCH_PATH: Final = "/sbin:/usr/sbin:/usr/bin:/opt/homebrew/opt/e2fsprogs/sbin"
_TIMEOUT_S: Final = 600.0
_OPTIONS: Final = ("-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-m", "0", "-I", "256")
_FEATURES: Final = ("-O", "^has_journal,^resize_inode,^huge_file", "-E", "root_owner=0:0,lazy_itable_init=0")


def make_ext4(tree: Path, disk: Path) -> None:
    """Write `tree` into the new file `disk` without a journal; `mke2fs -d` needs no privilege (`man 8 mke2fs`). Blocks.

    All files belong to root in it.

    Raises:
        SandboxBroken: `mke2fs` is missing, failed, or did not end in time.
        OSError: the file can't be made.
    """
    command = shutil.which("mke2fs", path=_SEARCH_PATH)
    if command is None:
        raise SandboxBroken("mke2fs is missing", hint="install the package e2fsprogs, or run `silo setup`")
    entries = list(tree.rglob("*"))
    size = sum(-(-p.lstat().st_size // _BLOCK) * _BLOCK for p in entries if not p.is_dir()) + len(entries) * 512
    blocks = int(size * _SPARE / _BLOCK) + 4 * MIB // _BLOCK
    disk.touch(mode=0o600, exist_ok=False)
    inodes = ["-N", str(len(entries) + 64)]
    done = _run([command, *_OPTIONS, *inodes, *_FEATURES, "-d", "/tree", "/disk", str(blocks)], tree, disk, blocks)
    if done:
        raise SandboxBroken(
            f"mke2fs failed: {done}",
            hint="look at the free space of the file system that holds SILO_HOME, then try again",
        )


def _run(argv: list[str], tree: Path, disk: Path, blocks: int) -> str:
    """Run it confined; return why it failed, or an empty text."""
    confinement = Confinement(
        read={"/tree": tree},
        write={"/disk": disk},
        file_mib=blocks * _BLOCK // MIB + 64,
        timeout_s=_TIMEOUT_S,
    )
    try:
        done = run_confined_blocking(argv, confinement)
    except TimeoutError:
        return f"it did not end within {_TIMEOUT_S:.0f} s"
    return "" if done.status == 0 else (done.stderr.strip()[-300:] or f"status {done.status}")
