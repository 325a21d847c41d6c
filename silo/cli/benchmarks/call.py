"""`silo bench call`: a call of a skill that imports httpx and pydantic, against the same script bare under `uv run`.

The variants alternate in one run, because a machine's speed drifts. Medians and their ratios count. All samples are in
the document. The benchmark uses `silo.runtime` and `silo mcp serve` like any other program.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import uv

from silo.catalog.builtin import builtin_folder
from silo.cli.benchmarks.machine import describe_machine
from silo.cli.benchmarks.scratch import run_in_scratch_folder, scratch_environ
from silo.errors import SandboxBroken
from silo.model import Caller
from silo.runtime import Runtime
from silo.sandbox.backends.microvm.backend import MicrovmBackend
from silo.sandbox.image import Images
from silo.server.trial import connect
from silo.version import __version__

_SKILL = "bench_httpx_pydantic"
_TOOL = f"{_SKILL}.greet"
_ROW = 50
_AT_ONCE = 20
_SERVE_RUNS = 5


class CallBenchmark:
    """One run of the benchmark.

    Args:
        environ: the user's environment; its package index settings reach uv.
        kernel: the folder of guest kernels.
        runs: how often each variant is measured.
        on_step: called with what begins now.
    """

    def __init__(self, environ: Mapping[str, str], kernel: Path, *, runs: int, on_step: Callable[[str], None]) -> None:
        self._environ = scratch_environ(environ) | {"SILO_KERNEL": str(kernel)}
        self._kernel = kernel
        self._runs = runs
        self._step = on_step
        self._home = self._script = Path()

    def run(self) -> dict[str, Any]:
        """Measure, and return the document (see `docs/benchmarks/README.md`).

        Raises:
            SiloError: something that is measured does not work here.
            EndedBySignal: a signal ended it; its guests have ended, and its folder is gone.
        """
        return run_in_scratch_folder(self._play)

    async def _play(self, home: Path) -> dict[str, Any]:
        self._home, self._script = home, bench_script(home)
        return await self._measure()

    async def _measure(self) -> dict[str, Any]:
        state = self._home / "state"
        async with AsyncExitStack() as stack:
            one_shot = Runtime(home=state, environ=self._environ, caller=Caller("cli"))
            await stack.enter_async_context(one_shot)
            install = await self._install(one_shot)
            # A backend of our own, so that the benchmark can wait until the next clone is ready.
            warm = MicrovmBackend(home=state, images=Images(state / "images"), kernel_folder=self._kernel, warm=1)
            resident = Runtime(home=state, environ=self._environ, backends=[warm], images=Images(state / "images"))
            await stack.enter_async_context(resident)

            variants: dict[str, Callable[[], Awaitable[float]]] = {
                "uv_run": self._uv_run,
                "warm_clone": lambda: _timed(lambda: resident.call(_TOOL, {"name": "Ada"})),
                "new_clone": lambda: _timed(lambda: one_shot.call(_TOOL, {"name": "Ada"})),
                "namespace": lambda: _timed(lambda: one_shot.call(_TOOL, {"name": "Ada"}, backend="namespace")),
            }
            samples = await self._alternate(variants, warm.settle)
            row, at_once, left = await self._many(resident)
            probes = await resident.probe()
        serve = [await self._first_list() for _ in range(_SERVE_RUNS)]
        medians = {name: statistics.median(values) for name, values in samples.items()}
        bare = medians["uv_run"]
        return {
            "benchmark": "call",
            "silo": __version__,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_machine() | {"uv": _uv_version(), "sandbox": probes[0].detail},
            "runs": self._runs,
            "samples_s": {name: [round(value, 5) for value in values] for name, values in samples.items()},
            "median_s": {name: round(value, 5) for name, value in medians.items()},
            "ratio_to_uv_run": {name: round(value / bare, 3) for name, value in medians.items()},
            "install_s": install,
            "serve_first_list_s": {
                "samples": [round(value, 3) for value in serve],
                "median": round(statistics.median(serve), 3),
            },
            "in_a_row": {"calls": _ROW, "answered": len(row), "median_s": round(statistics.median(row), 5)},
            "at_once": {"calls": _AT_ONCE, "answered": len(at_once), "total_s": round(max(at_once), 3)},
            "left_behind": left,
        }

    async def _install(self, runtime: Runtime) -> dict[str, float]:
        """Install from nothing and call once. uv's cache may be warm; there are no images and templates yet."""

        async def agree(plan: object) -> bool:
            return True

        self._step("trying the sandboxes")
        await runtime.probe()  # as `silo setup` does, once per boot of the machine
        marks: list[tuple[str, float]] = []

        def mark(step: str) -> None:
            marks.append((step, time.monotonic()))
            self._step(step)

        self._step("installing the skill")
        started = time.monotonic()
        await runtime.install(str(self._script), agree=agree, on_step=mark)
        installed = time.monotonic()
        self._step("calling it for the first time")
        await runtime.call(_TOOL, {"name": "Ada"})
        answered = time.monotonic()
        template = next((at for step, at in marks if step.startswith("booting a microVM")), installed)
        return {
            "install": round(installed - started, 3),
            "of_it_template": round(installed - template, 3),
            "to_first_answer": round(answered - started, 3),
        }

    async def _uv_run(self) -> float:
        started = time.monotonic()
        command = [uv.find_uv_bin(), "run", "--script", str(self._script), "greet", "--name", "Ada"]
        done = await anyio.run_process(command, env=self._environ, cwd=self._home, check=False)
        if done.returncode != 0:
            raise SandboxBroken(
                f"`uv run --script` failed: {done.stderr.decode(errors='replace')[-300:]}",
                hint="run it by hand; it needs the package index once",
            )
        return time.monotonic() - started

    async def _alternate(
        self, variants: Mapping[str, Callable[[], Awaitable[float]]], settle: Callable[[], Awaitable[None]]
    ) -> dict[str, list[float]]:
        """Measure the variants in turn, while nothing else of silo runs: no clone is being prepared meanwhile."""
        for name, variant in variants.items():
            self._step(f"warming up: {name}")
            await variant()
        samples: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(self._runs):
            self._step(f"measuring, {number + 1} of {self._runs}")
            for name, variant in variants.items():
                await settle()
                samples[name].append(await variant())
        return samples

    async def _many(self, runtime: Runtime) -> tuple[list[float], list[float], dict[str, int]]:
        """Call in a row without a pause, then all at once, and count what is left behind."""
        before = _descriptors()
        self._step(f"{_ROW} calls in a row")
        row = [await _timed(lambda: runtime.call(_TOOL, {"name": "Ada"})) for _ in range(_ROW)]
        self._step(f"{_AT_ONCE} calls at once")
        at_once: list[float] = []

        async def one() -> None:
            at_once.append(await _timed(lambda: runtime.call(_TOOL, {"name": "Ada"})))

        async with anyio.create_task_group() as group:
            for _ in range(_AT_ONCE):
                group.start_soon(one)
        await anyio.sleep(1)
        left = {"descriptors": max(0, _descriptors() - before), "temporary_files": _temporary(self._home / "state")}
        return row, at_once, left

    async def _first_list(self) -> float:
        self._step("starting `silo mcp serve`")
        environ = {**self._environ, "SILO_HOME": str(self._home / "state")}
        with open(os.devnull, "w") as errors:  # noqa: ASYNC230 - nothing to wait for
            started = time.monotonic()
            async with connect([sys.executable, "-m", "silo", "mcp", "serve"], environ, errors=errors) as agent:
                await agent.tools()
                return time.monotonic() - started


def table(document: Mapping[str, Any]) -> str:
    """Render the document for a person."""
    lines = [f"{'':12} {'median ms':>10} {'of uv run':>10}"]
    for name, median in document["median_s"].items():
        lines.append(f"{name:12} {median * 1000:10.1f} {document['ratio_to_uv_run'][name]:9.2f}×")
    install, serve = document["install_s"], document["serve_first_list_s"]
    row, at_once, template_s = document["in_a_row"], document["at_once"], install["of_it_template"]
    lines += [
        "",
        f"install to first answer {install['to_first_answer']:.1f} s, of which the template {template_s:.1f} s",
        f"`silo mcp serve` to its first tools/list {serve['median']:.2f} s (median of {len(serve['samples'])})",
        f"{row['answered']} of {row['calls']} in a row, median {row['median_s'] * 1000:.0f} ms",
        f"{at_once['answered']} of {at_once['calls']} at once, all in {at_once['total_s']:.1f} s",
        f"left behind: {document['left_behind']}",
        f"on {document['machine']['cpu']}, {document['machine']['cores']} cores, {document['machine']['sandbox']}",
    ]
    return "\n".join(lines)


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    started = time.monotonic()
    await work()
    return time.monotonic() - started


def bench_script(folder: Path) -> Path:
    """Copy the measured script without its lock. uv would use the lock, and silo's locks have no addresses."""
    packaged = builtin_folder().parent / "bench_skills"
    source = packaged if packaged.is_dir() else builtin_folder().parent / "examples" / "bench"
    target = folder / _SKILL / "skill.py"
    target.parent.mkdir(parents=True)
    shutil.copyfile(source / "httpx_pydantic" / "skill.py", target)
    return target


def _uv_version() -> str:
    done = subprocess.run([uv.find_uv_bin(), "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir()) if Path("/proc/self/fd").is_dir() else 0


def _temporary(state: Path) -> int:
    marks = (".staging-", ".building-", ".gone-")
    return sum(1 for path in state.rglob("*") if path.name.startswith(marks))
