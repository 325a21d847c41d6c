"""`silo bench hostile`: how long the event loop and the approval page take to answer beside eight hostile guests.

The guests are those of the namespace backend, because they write fastest. Each calls a skill that forges what it sends
to silo (`examples/bench/hostile_guest`), one kind after another. Meanwhile a task of the same event loop sleeps a
millisecond at a time, and a thread requests the approval page of the same process.
"""

from __future__ import annotations

import gc
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from silo_interaction.page import Page

from silo.approvals.store import Decisions
from silo.catalog.builtin import builtin_folder
from silo.cli.benchmarks.approvals import Browser, post
from silo.cli.benchmarks.machine import describe_machine
from silo.cli.benchmarks.scratch import run_in_scratch_folder, scratch_environ
from silo.errors import SiloError
from silo.model import Caller
from silo.runtime import Runtime
from silo.version import __version__

_TOOL = "bench_hostile_guest.stall"
_GUESTS = 8
_PING_S = 0.001
_PAGE_S = 0.02
_AIM_MS = 50.0

STALLS = (
    "empty lists", "empty objects", "deep nesting", "nests of sixty", "brackets in a string", "long integers",
    "one long integer", "many keys", "escapes", "lone surrogates", "wide characters", "white space", "half a frame",
    "many reports", "many long reports", "empty pieces", "pieces of a byte", "single bytes", "lines",
    "single characters",
)  # fmt: skip
"""What the guests do in turn; the names are those of the skill."""


class HostileBenchmark:
    """One run of the benchmark.

    Args:
        environ: the user's environment.
        seconds: how long it is measured without the guests, and how long with them.
        on_step: called with what begins now.
    """

    def __init__(self, environ: Mapping[str, str], *, seconds: int, on_step: Callable[[str], None]) -> None:
        self._environ = scratch_environ(environ)
        self._seconds = seconds
        self._step = on_step

    def run(self) -> dict[str, Any]:
        """Measure, and return the document (see `docs/benchmarks/README.md`).

        Raises:
            SiloError: something that is measured does not work here.
            EndedBySignal: a signal ended it; its guests have ended, and its folder is gone.
        """
        return run_in_scratch_folder(self._measure)

    async def _measure(self, home: Path) -> dict[str, Any]:
        state = home / "state"
        state.mkdir(mode=0o700)
        outcomes: dict[str, dict[str, int]] = {how: {} for how in STALLS}

        async def agree(plan: object) -> bool:
            return True

        async with Runtime(home=state, environ=self._environ, caller=Caller("library", "bench")) as silo:
            self._step("installing the skill")
            await silo.install(str(_script(home)), backend="namespace", agree=agree, on_step=self._step)
            numbers = count()

            async def be_hostile() -> None:
                while True:
                    how = STALLS[next(numbers) % len(STALLS)]
                    code = "ok"
                    try:
                        await silo.call(_TOOL, {"how": how}, backend="namespace")
                    except SiloError as error:
                        code = error.code
                    outcomes[how][code] = outcomes[how].get(code, 0) + 1

            gc.freeze()  # as `silo mcp serve` does: collections then scan nothing that was loaded
            with _ShownPage(home / "page") as browser:
                self._step(f"{self._seconds} s without them")
                quiet = await self._watch(browser)
                self._step(f"{self._seconds} s beside {_GUESTS} hostile guests")
                async with anyio.create_task_group() as guests:
                    for _ in range(_GUESTS):
                        guests.start_soon(be_hostile)
                    await anyio.sleep(1)  # until they are started
                    hostile = await self._watch(browser)
                    guests.cancel_scope.cancel()
        return {
            "benchmark": "hostile",
            "silo": __version__,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_machine(),
            "guests": _GUESTS,
            "seconds": self._seconds,
            "aim_p99_ms": _AIM_MS,
            "outcomes": outcomes,
            "without": {name: _summary(samples) for name, samples in quiet.items()},
            "beside": {name: _summary(samples) for name, samples in hostile.items()},
        }

    async def _watch(self, browser: Browser) -> dict[str, list[float]]:
        """Return how late the event loop woke a task, and how long the page took, in milliseconds.

        `ping_ready_ms` leaves out the time in which the thread of the event loop was ready and had no processor. The
        guests and everything else on the machine cause that, and no parser can prevent it.
        """
        pings: list[float] = []
        ready: list[float] = []
        pages: list[float] = []
        end = time.perf_counter() + self._seconds

        async def ping() -> None:
            waited = _waited_ms()
            while (began := time.perf_counter()) < end:
                await anyio.sleep(_PING_S)
                late = (time.perf_counter() - began - _PING_S) * 1000
                before, waited = waited, _waited_ms()
                pings.append(late)
                ready.append(max(0.0, late - (waited - before)))

        def request() -> None:
            while (began := time.perf_counter()) < end:
                browser.queue()
                pages.append((time.perf_counter() - began) * 1000)
                time.sleep(_PAGE_S)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ping)
            tasks.start_soon(to_thread.run_sync, request)
        return {"ping_ms": pings, "ping_ready_ms": ready, "page_ms": pages}


class _ShownPage:
    """A page with one question, and a browser that is paired with it."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self._decisions = Decisions(home)
        self._page = Page(self._decisions)

    def __enter__(self) -> Browser:
        browser = Browser(self._page.link(post(self._decisions, "hostile")))
        browser.pair(self._decisions.new_code())
        browser.follow()
        return browser

    def __exit__(self, *_: object) -> None:
        self._page.stop()
        self._decisions.close()


def _waited_ms() -> float:
    """Return how long this thread has been ready without a processor (Linux: Documentation/scheduler/sched-stats)."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e6


def _script(folder: Path) -> Path:
    packaged = builtin_folder().parent / "bench_skills"
    source = packaged if packaged.is_dir() else builtin_folder().parent / "examples" / "bench"
    target = folder / "hostile" / "skill.py"
    target.parent.mkdir()
    shutil.copyfile(source / "hostile_guest" / "skill.py", target)
    return target


def _summary(samples: list[float]) -> dict[str, Any]:
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    return {
        "count": len(samples),
        "p50": round(cuts[49], 2),
        "p99": round(cuts[98], 2),
        "max": round(max(samples), 2),
        "samples": [round(value, 2) for value in samples],
    }


def table(document: Mapping[str, Any]) -> str:
    """Render the document for a person."""
    lines = [f"{'milliseconds':58} {'p50':>8} {'p99':>8} {'max':>8}"]
    rows = (
        ("a ping on the event loop", "ping_ms"),
        ("the same, processor aside", "ping_ready_ms"),
        ("a request to the approval page", "page_ms"),
    )
    for what, name in rows:
        for when, text in (("without", "without them"), ("beside", f"beside {document['guests']} hostile guests")):
            found = document[when][name]
            lines.append(f"{what + ', ' + text:58} {found['p50']:>8.1f} {found['p99']:>8.1f} {found['max']:>8.1f}")
    lines.append(f"aim: p99 below {document['aim_p99_ms']:.0f} ms beside them")
    return "\n".join(lines)
