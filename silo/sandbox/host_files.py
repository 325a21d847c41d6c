"""Files of the host that images hold copies of: which libraries there are, and whether a file has changed since."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from silo.sandbox import elf

_LDCONFIG_TAGS = {"x86_64": "x86-64", "aarch64": "AArch64"}

Stamps = Mapping[str, tuple[int, int]]
"""Files and folders of the host by their paths: size in bytes, and time of the last change (ns since the epoch)."""


def system_libraries() -> dict[str, Path]:
    """Return the host's shared libraries by name, from the loader's cache; empty without glibc."""
    command = shutil.which("ldconfig", path="/sbin:/usr/sbin:/usr/bin")
    tag = _LDCONFIG_TAGS.get(platform.machine())
    if command is None or tag is None:
        return {}
    listing = subprocess.run([command, "-p"], capture_output=True, text=True, check=False, env={})
    return elf.parse_ldconfig(listing.stdout, tag)


def shared_objects(folder: Path) -> list[Path]:
    """Return the files below a folder that are named as shared objects are; links are left out."""
    return sorted(p for p in folder.rglob("*.so*") if p.is_file() and not p.is_symlink())


def _stamp(path: str) -> tuple[int, int]:
    found = os.stat(path)  # noqa: PTH116  a Path for each of 50 files would take longer than the rest
    return found.st_size, found.st_mtime_ns


def stamps_of(paths: Iterable[Path]) -> Stamps:
    """Look at files and folders.

    Raises:
        OSError: one can't be looked at.
    """
    return {str(path): _stamp(str(path)) for path in paths}


def stamp_parts(stamps: Stamps) -> list[str]:
    """Write stamps as parts of a digest."""
    return sorted(f"{path}:{size}:{changed_ns}" for path, (size, changed_ns) in stamps.items())


def read_stamps(document: Mapping[str, Any]) -> Stamps:
    """Read the stamps of a document that was written beside an image.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is damaged.
    """
    return {str(path): (int(size), int(changed_ns)) for path, (size, changed_ns) in document["stamps"].items()}


def are_current(stamps: Stamps) -> bool:
    """Whether all are as they were; takes some 0.1 ms."""
    try:
        return all(_stamp(path) == stamp for path, stamp in stamps.items())
    except OSError:
        return False
