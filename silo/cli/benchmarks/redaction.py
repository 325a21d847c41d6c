"""`silo bench redaction`: how fast secrets are removed from texts of several kinds, and how large the texts come out.

Each sample takes a new `Redactor`, as each call does, and includes preparing it. The texts are made from a fixed seed.
Some are what results are like, others are the worst that a skill could return: nothing but a secret, or text that is
nearly a secret everywhere. On a busy machine, the processor time says more than the time that passed, so both are
measured.
"""

from __future__ import annotations

import base64
import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy

from silo.cli.benchmarks.machine import describe_machine
from silo.secrets.redaction import Redactor
from silo.sizes import MIB
from silo.version import __version__

SEED = 7
AIM_MB_PER_S = 50.0
_LINE = (
    b'2026-11-30T12:00:01Z INFO request {"path": "/api/v1/items?limit=20&q=a%20b", "status": 200, "ms": 12.5}\n'
    b"def handler(event: dict) -> str:\n    return f\"{event['id']}\\t{event.get('name')}\"\n"
)


@dataclass(frozen=True)
class Case:
    """One text, and the secrets that are looked for in it."""

    label: str
    secrets: Mapping[str, str]
    text: bytes


class RedactionBenchmark:
    """One run of the benchmark.

    Args:
        runs: how often each text is redacted.
        size_mib: how large the texts are.
        on_step: called with what begins now.
    """

    def __init__(self, *, runs: int, size_mib: int, on_step: Callable[[str], None]) -> None:
        self._runs = runs
        self._size = size_mib * MIB
        self._step = on_step

    def run(self) -> dict[str, Any]:
        """Measure, and return the document (see `docs/benchmarks/README.md`)."""
        cases = make_cases(self._size)
        document: dict[str, Any] = {
            "benchmark": "redaction",
            "silo": __version__,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_machine() | {"numpy": numpy.__version__},
            "runs": self._runs,
            "size_bytes": self._size,
            "samples_s": {name: [] for name in cases},
            "samples_cpu_s": {name: [] for name in cases},
            "result_bytes": {},
        }
        for run in range(self._runs + 1):  # the first one loads numpy, and is not counted
            for name, case in cases.items():
                self._step(f"{case.label}, {run} of {self._runs}" if run else f"warming up: {case.label}")
                gc.collect()
                cpu, started = time.thread_time(), time.perf_counter()
                result = Redactor(case.secrets).raw(case.text)
                passed, spent = time.perf_counter() - started, time.thread_time() - cpu
                if run:
                    document["samples_s"][name].append(round(passed, 6))
                    document["samples_cpu_s"][name].append(round(spent, 6))
                document["result_bytes"][name] = len(result)
        figures = {}
        for name, case in cases.items():
            speed, cpu_speed = (
                self._size / 1e6 / statistics.median(document[samples][name])
                for samples in ("samples_s", "samples_cpu_s")
            )
            figures[name] = {
                "label": case.label,
                "mb_per_s": round(speed, 1),
                "mb_per_cpu_s": round(cpu_speed, 1),
                "aim": AIM_MB_PER_S,
                "holds": speed >= AIM_MB_PER_S,
            }
        return document | {"figures": figures}


def make_cases(size: int) -> dict[str, Case]:
    """Return the texts, of `size` bytes each."""
    draw = random.Random(SEED)  # noqa: S311 - the same texts every time

    def token() -> str:
        return "ghp_" + base64.b64encode(draw.randbytes(27)).decode().replace("+", "a").replace("/", "b")

    def repeated(*parts: bytes) -> bytes:
        part = b"".join(parts)
        return (part * (size // len(part) + 1))[:size]

    one = {"TOKEN": token()}
    many = {f"TOKEN_{number}": token() for number in range(50)}
    frame = "-----{} PRIVATE KEY-----\n"
    key = frame.format("BEGIN") + base64.encodebytes(draw.randbytes(1200)).decode() + frame.format("END")
    lines = {"LINES": "\n".join(f"line {number:05} {draw.randbytes(8).hex()}" for number in range(11_000))}
    pin = {"PIN": "1234"}
    value = one["TOKEN"].encode()
    values = [each.encode() for each in many.values()]
    return {
        "typical": Case("typical text, one secret", one, repeated(_LINE)),
        "typical_many": Case("typical text, 50 secrets", many, repeated(_LINE)),
        "typical_key": Case("typical text, a private key in PEM", {"KEY": key}, repeated(_LINE)),
        "typical_lines": Case("typical text, a value of 11,000 lines", lines, repeated(_LINE)),
        "random_many": Case("random bytes, 50 secrets", many, draw.randbytes(size)),
        "only": Case("nothing but a secret", one, repeated(value)),
        "only_lines": Case("a secret in each line", one, repeated(value, b"\n")),
        "only_many": Case("one of 50 secrets in each line", many, repeated(*(each + b"\n" for each in values))),
        "only_base64": Case("base64 of secrets, with line breaks", one, repeated(base64.encodebytes(value * 40))),
        "only_percent": Case("percent encoding of a secret", one, repeated(*(b"%%%02x" % byte for byte in value))),
        "only_key": Case("nothing but a private key in PEM", {"KEY": key}, repeated(key.encode())),
        "only_pin": Case("nothing but a value of four digits", pin, repeated(b"1234")),
        "only_pins": Case("a value of four digits in each line", pin, repeated(b"id: 1234\n")),
        "near": Case("nearly a secret, everywhere", one, repeated(value[:-1], b"\xff")),
        "near_many": Case(
            "nearly one of 50 secrets, everywhere", many, repeated(*(each[:-1] + b"\xff" for each in values))
        ),
        "near_starts": Case("only the beginning of a secret, everywhere", one, repeated(value[:9])),
        "near_key": Case("nearly a private key, everywhere", {"KEY": key}, repeated(key.encode()[:-90])),
    }


def table(document: Mapping[str, Any]) -> str:
    """Render the document for a person."""
    size = document["size_bytes"]
    lines = [f"{size / MIB:.0f} MiB of each text, median of {document['runs']}", ""]
    lines.append(f"{'':46} {'MB/s':>8} {'aim':>6} {'of CPU':>8} {'comes out with':>16}")
    for name, figure in document["figures"].items():
        share = document["result_bytes"][name] / size
        lines.append(
            f"{figure['label']:46} {figure['mb_per_s']:>8.1f} {figure['aim']:>6.0f} {figure['mb_per_cpu_s']:>8.1f} "
            f"{share:>15.1%}{'' if figure['holds'] else '  missed'}"
        )
    machine = document["machine"]
    lines += [
        "",
        f"on {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, numpy {machine['numpy']}",
    ]
    return "\n".join(lines)
