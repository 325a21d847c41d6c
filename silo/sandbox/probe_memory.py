"""Results of probes of this machine, remembered until the host reboots.

`silo.sandbox.backends.microvm.probe` decides how long it believes one of them.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path


class ProbeMemory:
    """Answers by key in a small file; a file that can't be read, or is from another boot, counts as absent."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, key: str) -> str | None:
        """Return what was stored under `key` since the host booted, or None."""
        value = self._read().get(key)
        return value if isinstance(value, str) else None

    def put(self, key: str, value: str) -> None:
        """Remember `value`. A failure is ignored, because it only costs time later."""
        known = {**self._read(), key: value, "boot": _boot_id()}
        making = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            making.write_text(json.dumps(known, indent=1, sort_keys=True))
            making.rename(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                making.unlink()

    def _read(self) -> dict[str, object]:
        try:
            known = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) and known.get("boot") == _boot_id() else {}


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: remembered until the file is deleted
        return "unknown"
