"""Measure how long commands take to start, and what each slow module would add to every command.

    python scripts/startup_times.py --runs 5 > docs/benchmarks/startup.json
    python scripts/startup_times.py --runs 5 --against ../another-checkout

The variants alternate, because a machine's speed drifts. Compare the ratios to a bare interpreter, not the seconds.
`tests/cli/test_startup_imports.py` holds the result without a clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from silo.cli.benchmarks.machine import describe_machine
from silo.version import __version__

COMMANDS = {
    "silo --version": ["--version"],
    "silo --help": ["--help"],
    "silo list": ["list"],
    "silo run absent.tool": ["run", "absent.tool"],
}
SERVE = "silo mcp serve, first tools/list"
BARE = "python -c pass"
MODULES = (
    *("anyio", "asyncio", "cryptography.hazmat.primitives.ciphers.aead", "jsonschema", "mcp.types", "numpy"),
    *(
        "pydantic",
        "rich.table",
        "sqlite3",
        "typer",
        "uvicorn",
        "silo_interaction",
        "silo.config.schema",
        "silo.runtime",
    ),
)
CLIENT = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "startup", "version": "1"}}


def main() -> None:
    """Print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout, measured in turn")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="silo-bench-") as home:
        print(json.dumps(measure(Path(home), given.runs, given.against), indent=2, sort_keys=True))


ELSEWHERE = "/"
"""`python -m` imports from the current folder first, so in a checkout each variant would measure that checkout."""


def measure(home: Path, runs: int, against: Path | None) -> dict[str, Any]:
    """Return the document; the state folder in `home` is empty, so no time depends on what is installed."""
    environ = {**os.environ, "SILO_HOME": str(home / "state"), "SILO_MASTER_KEY": "ab" * 32}
    variants: dict[str, Callable[[], float]] = {BARE: partial(timed, ["-c", "pass"], environ)}
    variants |= of_checkout("", environ)
    if against is not None:
        path = os.pathsep.join(str(against.resolve() / part) for part in (".", "vault", "interaction"))
        variants |= of_checkout("before: ", {**environ, "PYTHONPATH": path})
    variants |= {f"import {name}": partial(timed, ["-c", f"import {name}"], environ) for name in MODULES}
    for variant in variants.values():
        variant()  # compiles what is not compiled yet
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(runs):
        for name, variant in variants.items():
            samples[name].append(variant())
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return {
        "benchmark": "startup",
        "command": f"python scripts/startup_times.py --runs {runs}" + (" --against CHECKOUT" if against else ""),
        "silo": __version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "runs": runs,
        "samples_s": {name: [round(value, 4) for value in values] for name, values in samples.items()},
        "median_s": {name: round(value, 4) for name, value in medians.items()},
        "ratio_to_bare": {name: round(value / medians[BARE], 2) for name, value in medians.items()},
    }


def of_checkout(label: str, environ: dict[str, str]) -> dict[str, Callable[[], float]]:
    """Return what is measured of one checkout."""
    found: dict[str, Callable[[], float]] = {
        f"{label}{name}": partial(timed, ["-m", "silo", *words], environ) for name, words in COMMANDS.items()
    }
    return found | {f"{label}{SERVE}": partial(first_list, environ)}


def timed(arguments: list[str], environ: dict[str, str]) -> float:
    """Return how long a Python process takes from start to end."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environ, cwd=ELSEWHERE, capture_output=True, check=False)
    return time.perf_counter() - started


def first_list(environ: dict[str, str]) -> float:
    """Return how long a server takes from its start to its answer to the first `tools/list`."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "silo", "mcp", "serve"]
    with subprocess.Popen(
        command, env=environ, cwd=ELSEWHERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for message in (
            {"id": 1, "method": "initialize", "params": CLIENT},
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/list"},
        ):
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        server.stdin.flush()
        while json.loads(server.stdout.readline()).get("id") != 2:
            pass
        took = time.perf_counter() - started
        server.stdin.close()
    return took


if __name__ == "__main__":
    main()
