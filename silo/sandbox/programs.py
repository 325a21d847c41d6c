"""Finds the host's programs that a sandbox needs, and shows them to what runs in one."""

from __future__ import annotations

import shutil
from pathlib import Path

_SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"


def find_program(name: str) -> Path | None:
    """Look for a program in the usual folders and in PATH."""
    found = shutil.which(name, path=_SEARCH_PATH) or shutil.which(name)
    return Path(found) if found else None


def system_binds() -> list[str]:
    """Return options of bubblewrap (`man 1 bwrap`) for the host's programs and libraries, read-only, no settings."""
    options: list[str] = []
    for folder in ("/usr", "/lib", "/lib64", "/bin", "/sbin"):
        path = Path(folder)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), folder]
        elif path.is_dir():
            options += ["--ro-bind", folder, folder]
    return [*options, "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
