"""`silo bench approvals`: from a question to its page, a page of a hundred questions, calls beside waiting ones.

A client that pairs like a browser requests the page over its own socket. The figures do not include the time that a
browser takes to draw it. The benchmark uses `silo.runtime` and the store like any other program.
"""

from __future__ import annotations

import html
import http.client
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import anyio
from anyio import to_thread
from silo_interaction import Question
from silo_interaction.page import Page

from silo.approvals.store import Decisions
from silo.cli.benchmarks.call import bench_script
from silo.cli.benchmarks.machine import describe_machine
from silo.cli.benchmarks.scratch import run_in_scratch_folder, scratch_environ
from silo.errors import ApprovalPending, SandboxBroken
from silo.model import Caller
from silo.runtime import Runtime
from silo.sandbox.backends.microvm.backend import MicrovmBackend
from silo.sandbox.image import Images
from silo.version import __version__

_TOOL = "bench_httpx_pydantic.greet"
_MANY = 100
_WAITING = 50
_RULE = f"""
[approval]
channels = ["browser"]

[[policy.rules]]
verdict = "ask"
tool = "{_TOOL}"
arguments = {{ name = "waits-*" }}
"""


class ApprovalsBenchmark:
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

    def run(self) -> dict[str, Any]:
        """Measure, and return the document (see `docs/benchmarks/README.md`).

        Raises:
            SiloError: something that is measured does not work here.
            EndedBySignal: a signal ended it; its guests have ended, and its folder is gone.
        """
        return run_in_scratch_folder(self._play)

    async def _play(self, home: Path) -> dict[str, Any]:
        shown = await to_thread.run_sync(self._page, home / "page")
        beside = await self._calls(home)
        return {
            "benchmark": "approvals",
            "silo": __version__,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_machine(),
            "runs": self._runs,
            "first_question_to_page_s": round(shown["first"][0], 4),
            "question_to_page_s": _summary(shown["next"]),
            f"page_with_{_MANY}_questions_s": _summary(shown["many"]),
            "calls_alone_s": _summary(beside["alone"]),
            f"calls_beside_{_WAITING}_that_wait_s": _summary(beside["beside"]),
            "ratio_beside_to_alone": round(statistics.median(beside["beside"]) / statistics.median(beside["alone"]), 3),
        }

    def _page(self, home: Path) -> dict[str, list[float]]:
        """Post questions and request their links, as a paired browser would."""
        home.mkdir()
        decisions = Decisions(home)
        page = Page(decisions)
        try:
            self._step("the first question")
            started = time.perf_counter()
            browser = Browser(page.link(post(decisions, "first")))
            browser.pair(decisions.new_code())
            browser.follow()
            first = [time.perf_counter() - started]
            following = []
            for number in range(self._runs):
                self._step(f"a question, {number + 1} of {self._runs}")
                started = time.perf_counter()
                browser.follow(page.link(post(decisions, f"next {number}")))
                following.append(time.perf_counter() - started)
            for number in range(len(decisions.waiting()), _MANY):
                post(decisions, f"many {number}")
            many = []
            for number in range(self._runs):
                self._step(f"{_MANY} questions, {number + 1} of {self._runs}")
                started = time.perf_counter()
                text = browser.queue()
                many.append(time.perf_counter() - started)
                if len(set(re.findall(r'data-question="([0-9a-f]{16})"', text))) < _MANY:
                    raise SandboxBroken("the page does not show all questions", hint="report this")
            return {"first": first, "next": following, "many": many}
        finally:
            page.stop()
            decisions.close()

    async def _calls(self, home: Path) -> dict[str, list[float]]:
        """Call warm clones, in turn with no other call and with many that wait for a person."""
        state = home / "state"
        state.mkdir(mode=0o700)
        (state / "silo.toml").write_text(_RULE)
        (state / "silo.toml").chmod(0o600)
        warm = MicrovmBackend(home=state, images=Images(state / "images"), kernel_folder=self._kernel, warm=1)
        caller = Caller("library", "bench")
        samples: dict[str, list[float]] = {"alone": [], "beside": []}

        async def agree(plan: object) -> bool:
            return True

        async with Runtime(
            home=state, environ=self._environ, caller=caller, backends=[warm], images=Images(state / "images")
        ) as silo:
            self._step("installing the skill")
            await silo.install(str(bench_script(home)), agree=agree, on_step=self._step)
            self._step("calling it for the first time")
            await silo.call(_TOOL, {"name": "Ada"})

            async def wait(number: int) -> None:
                try:
                    await silo.call(_TOOL, {"name": f"waits-{number}"}, patience_s=3600)
                except ApprovalPending:
                    return

            async def measure(name: str) -> None:
                await warm.settle()
                started = time.perf_counter()
                await silo.call(_TOOL, {"name": "Ada"})
                samples[name].append(time.perf_counter() - started)

            for number in range(self._runs):
                self._step(f"calls beside {_WAITING} that wait, {number + 1} of {self._runs}")
                await measure("alone")
                async with anyio.create_task_group() as waiting:
                    for each in range(_WAITING):
                        waiting.start_soon(wait, each)
                    await anyio.sleep(0.5)  # until all of them wait, and nothing is left of their start
                    await measure("beside")
                    waiting.cancel_scope.cancel()
        return samples


class Browser:
    """The parts of a browser that the page needs: one cookie and one form."""

    def __init__(self, link: str) -> None:
        parts = urlsplit(link)
        self._authority = parts.netloc
        self._link = parts.path
        self._place = self._cookie = ""

    def pair(self, code: str) -> None:
        """Enter a pairing code."""
        form = re.search(r'name="form" value="([^"]*)"', self._get(self._link))
        fields = {"form": html.unescape(form[1]) if form else "", "code": code}
        status, headers, _ = self._ask("POST", "/pair", urlencode(fields))
        if status != 303:
            raise SandboxBroken(f"the page refused to pair ({status})", hint="report this")
        self._place = str(headers["location"]).rstrip("/")
        self._cookie = str(headers["set-cookie"]).partition(";")[0]

    def follow(self, link: str | None = None) -> str:
        """Open the question of a link, and return its page."""
        token = urlsplit(link).path.rpartition("/")[2] if link else self._link.rpartition("/")[2]
        _, headers, _ = self._ask("GET", f"{self._place}/follow/{token}")
        return self._get(str(headers["location"]))

    def queue(self) -> str:
        """Return the page with all questions."""
        return self._get(f"{self._place}/")

    def _get(self, path: str) -> str:
        status, _, body = self._ask("GET", path)
        if status != 200:
            raise SandboxBroken(f"the page answers {status}", hint="report this")
        return body

    def _ask(self, method: str, path: str, body: str = "") -> tuple[int, http.client.HTTPMessage, str]:
        connection = http.client.HTTPConnection(self._authority, timeout=30)
        try:
            headers = {"Sec-Fetch-Site": "same-origin", "Origin": f"http://{self._authority}"}
            if body:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
            if self._cookie:
                headers["Cookie"] = self._cookie
            connection.request(method, path, body=body or None, headers=headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()
        finally:
            connection.close()


def post(decisions: Decisions, what: str) -> str:
    """Post a question of ordinary length, and return the secret part of its link."""
    question = Question(
        f"Run bench.{what.replace(' ', '_')}",
        "a benchmark through the Python library",
        facts=(("tool", "bench.call"), ("network", "no network"), ("isolation", "microVM")),
        arguments=(("text", what * 20), ("options", {"a": [1, 2, 3], "b": {"c": None}})),
        grace_s=600,
        group="bench",
    )
    key = os.urandom(32).hex()
    principal = f"library:{key[0]}"  # one of sixteen, because not so many questions of one may wait
    return decisions.post(key, question, subject="bench.call", principal=principal, stands_s=600, profile={})[1]


def _summary(samples: list[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(samples), 5), "samples": [round(value, 5) for value in samples]}


def table(document: Mapping[str, Any]) -> str:
    """Render the document for a person."""
    rows = [
        ("the first question, until its page is there", document["first_question_to_page_s"]),
        ("a further question, until its page is there", document["question_to_page_s"]["median"]),
        (f"the page with {_MANY} questions", document[f"page_with_{_MANY}_questions_s"]["median"]),
        ("a call, nothing else going on", document["calls_alone_s"]["median"]),
        (f"a call, {_WAITING} others waiting for a person", document[f"calls_beside_{_WAITING}_that_wait_s"]["median"]),
    ]
    lines = [f"{what:48} {seconds * 1000:>8.1f} ms" for what, seconds in rows]
    lines.append(f"a call beside {_WAITING} that wait takes {document['ratio_beside_to_alone']:.2f} of one alone")
    return "\n".join(lines)
