"""Finds the host's programs that a sandbox needs."""

from __future__ import annotations

import shutil
from pathlib import Path

_SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"


def find_program(name: str) -> Path | None:
    """Look for a program in the usual folders and in PATH."""
    found = shutil.which(name, path=_SEARCH_PATH) or shutil.which(name)
    return Path(found) if found else None
