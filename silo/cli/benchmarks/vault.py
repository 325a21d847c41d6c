"""`silo bench vault`: opening, reading and saving a vault of many secrets, and the memory that it takes.

Each sample uses a new `Vault` object, as a fresh process would after loading its modules. What depends on the machine
and not on the vault is measured separately:

- Argon2id: the first vault has a key of 32 bytes, which does not need it. A second one with a passphrase includes it.
- `fsync`: a sample writes two files of the vault's size to its folder and flushes them and the folder, as a save does
  (the new generation, the backup, the folder). It is the time of these three flushes. Their median is subtracted from
  that of a save.

The variants alternate, as in `silo bench call`.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cryptography
from cryptography.hazmat.backends.openssl import backend
from silo_vault import EnvironmentKey, Vault, crypto
from silo_vault.format import VAULT_ID_BYTES, Header, Record, decode, encode, encode_record, record_context
from silo_vault.unlock import Keys

from silo.cli.benchmarks.machine import describe_machine
from silo.compose.vault import FILE_NAME
from silo.version import __version__

_WORDS = "correct horse battery staple"  # a passphrase
_VALUE_BYTES = 40  # like a token of a large API
_MEMORY_RUNS = 5  # at most; it varies by a few pages
_AIMS: Mapping[str, float] = {
    "open_and_read_ms": 50,
    "add_beyond_fsync_ms": 30,
    "sealed_again": 0,
    "memory_mib": 50,
}

_MEMORY_SCRIPT = """\
import sys
from pathlib import Path
from silo_vault import EnvironmentKey, Vault, crypto
crypto.unseal(bytes(32), bytes(12), crypto.seal(bytes(32), bytes(12), b"", b""), b"")  # loads what is loaded lazily
crypto.derive(bytes(32), vault_id=b"v", purpose="p")
path, name, key = sys.stdin.read().split("\\n")
if name:
    Vault(Path(path), [EnvironmentKey(key)]).get(name).reveal()
try:
    # Of this program only; ru_maxrss includes what the process used before its exec (man 2 getrusage).
    peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
except (OSError, IndexError):
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
print(peak)
"""


@dataclass(frozen=True)
class _Copy:
    """A vault file with its key. Other copies have the same number of secrets, and another key."""

    path: Path
    key: str

    def open(self) -> Vault:
        return Vault(self.path, [EnvironmentKey(self.key)])


class VaultBenchmark:
    """One run of the benchmark, in a folder of its own.

    Args:
        runs: how often each variant is measured.
        secrets: how many secrets the vault has.
        on_step: called with what begins now.
    """

    def __init__(self, *, runs: int, secrets: int, on_step: Callable[[str], None]) -> None:
        self._runs = runs
        self._secrets = secrets
        self._step = on_step

    def run(self) -> dict[str, Any]:
        """Measure, and return the document (see `docs/benchmarks/README.md`).

        Raises:
            VaultError: this machine can't keep a vault, e.g. because its `cryptography` has no Argon2id.
        """
        home = Path(tempfile.mkdtemp(prefix="silo-bench-"))
        try:
            return self._measure(home)
        finally:
            shutil.rmtree(home, ignore_errors=True)

    def _measure(self, home: Path) -> dict[str, Any]:
        self._step(f"making vaults of {self._secrets} secrets")
        raw = _make(home / "raw", os.urandom(crypto.KEY_BYTES).hex(), self._secrets)
        passphrase = _make(home / "passphrase", _WORDS, self._secrets)
        size_bytes = raw.path.stat().st_size
        samples_s, sealed_again = self._times(raw, passphrase)
        samples_kib = self._memory(raw)
        median_s = {name: statistics.median(values) for name, values in samples_s.items()}
        memory_kib = statistics.median(samples_kib["open_and_read"]) - statistics.median(samples_kib["only_imports"])
        measured = {
            "open_and_read_ms": 1000 * median_s["open_and_read"],
            "add_beyond_fsync_ms": 1000 * (median_s["add"] - median_s["fsync"]),
            "sealed_again": sealed_again,
            "memory_mib": memory_kib / 1024,
        }
        return {
            "benchmark": "vault",
            "silo": __version__,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_machine() | _cryptography(),
            "runs": self._runs,
            "secrets": self._secrets,
            "size_bytes": size_bytes,
            "samples_s": {name: [round(value, 6) for value in values] for name, values in samples_s.items()},
            "samples_kib": samples_kib,
            "median_s": {name: round(value, 6) for name, value in median_s.items()},
            "figures": {
                name: {"measured": round(value, 2), "aim": _AIMS[name], "holds": value <= _AIMS[name]}
                for name, value in measured.items()
            },
        }

    def _times(self, raw: _Copy, passphrase: _Copy) -> tuple[dict[str, list[float]], int]:
        """Return the samples of each variant, and how many unchanged records a save encrypted again."""
        before = _records(raw)
        number = 0

        def add() -> None:
            nonlocal number
            number += 1
            raw.open().put(f"ADDED_{number}", "x" * _VALUE_BYTES)

        variants: dict[str, Callable[[], float]] = {
            "open_and_read": lambda: _timed(lambda: raw.open().get(_name(self._secrets // 2))),
            "open_and_read_passphrase": lambda: _timed(lambda: passphrase.open().get(_name(self._secrets // 2))),
            "argon2id": lambda: _timed(_stretch),
            "add": lambda: _timed(add),
            "fsync": lambda: _flush(raw.path),
        }
        for name, variant in variants.items():
            self._step(f"warming up: {name}")
            variant()
        samples: dict[str, list[float]] = {name: [] for name in variants}
        for run in range(self._runs):
            self._step(f"measuring, {run + 1} of {self._runs}")
            for name, variant in variants.items():
                gc.collect()  # so that no variant pays for the one before
                samples[name].append(variant())
        after = _records(raw)
        return samples, sum(after[place].encoded != record.encoded for place, record in before.items())

    def _memory(self, raw: _Copy) -> dict[str, list[int]]:
        """Return the peak memory of processes that import the library, and of some that also read a secret."""
        samples: dict[str, list[int]] = {"only_imports": [], "open_and_read": []}
        runs = min(self._runs, _MEMORY_RUNS)
        for run in range(runs):
            self._step(f"measuring memory, {run + 1} of {runs}")
            for variant, name in (("only_imports", ""), ("open_and_read", _name(self._secrets // 2))):
                done = subprocess.run(
                    [sys.executable, "-c", _MEMORY_SCRIPT],
                    input=f"{raw.path}\n{name}\n{raw.key}",
                    capture_output=True,
                    text=True,
                    check=True,
                )
                samples[variant].append(int(done.stdout))
        return samples


def table(document: Mapping[str, Any]) -> str:
    """Render the document for a person."""
    figures, median_s, machine = document["figures"], document["median_s"], document["machine"]
    rows = [
        ("open and read one, with a key of 32 bytes", "open_and_read_ms", "ms"),
        ("add one, beyond fsync", "add_beyond_fsync_ms", "ms"),
        ("records sealed again by a save", "sealed_again", ""),
        ("memory of a process that reads one", "memory_mib", "MiB"),
    ]
    lines = [
        f"{document['secrets']} secrets, {document['size_bytes'] / 1024:.0f} KiB, median of {document['runs']}",
        "",
    ]
    lines.append(f"{'':42} {'measured':>12} {'aim':>10}")
    for label, name, unit in rows:
        figure = figures[name]
        measured = f"{figure['measured']:.{1 if unit else 0}f} {unit}".rstrip()
        aim = f"{figure['aim']:g} {unit}".rstrip()
        lines.append(f"{label:42} {measured:>12} {aim:>10}{'' if figure['holds'] else '  missed'}")
    argon2id_ms, whole_ms = 1000 * median_s["argon2id"], 1000 * median_s["open_and_read_passphrase"]
    fsync_ms = 1000 * median_s["fsync"]
    lines += [
        "",
        f"Argon2id at its default cost {argon2id_ms:.0f} ms; with it, open and read one {whole_ms:.0f} ms",
        f"three flushes of a save {fsync_ms:.1f} ms; with them, add one {1000 * median_s['add']:.1f} ms",
        f"on {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}",
    ]
    return "\n".join(lines)


def _make(folder: Path, key: str, secrets: int) -> _Copy:
    """Write a vault of that many secrets at once. Adding them one by one would take as many saves."""
    folder.mkdir(mode=0o700)
    vault_id, dek = os.urandom(VAULT_ID_BYTES), os.urandom(crypto.KEY_BYTES)
    wrap = EnvironmentKey(key).wrap(dek, vault_id=vault_id, random=os.urandom)
    header = Header(vault_id, generation=1, seals=secrets, created="2026-01-01T00:00:00Z", wraps=(wrap,))
    keys = Keys.derive(dek, header)
    copy = _Copy(folder / FILE_NAME, key)
    data = encode(header, [_record(keys, number) for number in range(secrets)], keys.mac)
    with open(os.open(copy.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    return copy


def _record(keys: Keys, number: int) -> Record:
    name, nonce, value = _name(number), os.urandom(crypto.NONCE_BYTES), os.urandom(_VALUE_BYTES // 2).hex().encode()
    sealed = crypto.seal(keys.records, nonce, value, record_context(keys.vault_id, "", name, 1))
    return encode_record("", name, version=1, modified=1_767_225_600, nonce=nonce, sealed=sealed)


def _name(number: int) -> str:
    return f"SECRET_{number:06}"


def _records(copy: _Copy) -> dict[tuple[str, str], Record]:
    return {(record.namespace, record.name): record for record in decode(copy.path.read_bytes()).records}


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _stretch() -> None:
    crypto.stretch(_WORDS.encode(), salt=bytes(16), cost=crypto.DEFAULT_COST)


def _flush(beside: Path) -> float:
    """Flush what a save of this vault flushes, and return how long only the flushes took."""
    data, spent_s = beside.read_bytes(), 0.0
    folder = os.open(beside.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in ("flushed", "flushed.bak"):
            new = beside.with_name(f"{name}.new")
            with open(new, "wb", buffering=0) as file:
                file.write(data)
                spent_s += _timed(lambda file=file: os.fsync(file))  # type: ignore[misc]
            new.replace(beside.with_name(name))
        return spent_s + _timed(lambda: os.fsync(folder))
    finally:
        os.close(folder)


def _cryptography() -> dict[str, str]:
    return {"cryptography": cryptography.__version__, "openssl": backend.openssl_version_text()}
