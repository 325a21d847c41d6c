"""`silo bench routing`: how often the right tool is found in public sets, beside baselines, and how fast in large sets.

The sets are not part of silo: `scripts/routing/fetch.py` downloads them and names their licences. A set is a folder
with `tools.jsonl` and `queries.jsonl`. The ranking sees the tools and the text of a request, but not the right answers.
Accuracy is the same on every machine; times and memory are not. Memory is measured in separate processes, because a
process rarely gives back memory that it used before.
"""

from __future__ import annotations

import gc
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from silo.cli.benchmarks.machine import describe_machine
from silo.cli.benchmarks.routing_baselines import baselines
from silo.errors import UsageError
from silo.router.documents import ToolDocument
from silo.router.evaluation import ToolSetIndex, document_of
from silo.router.ranker import Ranker
from silo.router.settings import RouterSettings
from silo.version import __version__

KS = (1, 3, 5, 10)
SEED = 7
EXAMPLES = 5
_AIMS: Mapping[str, tuple[float, float]] = {
    "recall@5": (0.84, 0.87),
    "recall@5 with examples": (0.83, 0.88),
}
"""The required and the wanted value of each figure."""

ABLATIONS: Mapping[str, RouterSettings] = {
    "all": RouterSettings(),
    "without the rerank": RouterSettings(rerank=False),
    "without the table": RouterSettings(semantic=False),
    "without clauses": RouterSettings(clauses=False),
    "without typos": RouterSettings(typos=False),
    "words only": RouterSettings(semantic=False, rerank=False, clauses=False, typos=False),
}


class Searcher(Protocol):
    """An index of one set."""

    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        """Return the ids of the first `k` tools, with their scores."""
        ...


@dataclass(frozen=True)
class Case:
    """A request, and the ids of the right tools."""

    query: str
    relevant: frozenset[str]


@dataclass(frozen=True)
class PublicSet:
    """One set, as read from disk."""

    name: str
    tools: list[dict[str, Any]]
    cases: list[Case]


class RoutingBenchmark:
    """One run of the benchmark.

    Args:
        folder: has a folder for each set. A set without requests only supplies tools for `scales`.
        names: the sets to measure; none: all.
        limit: how many requests of each set, after a fixed shuffle; 0: all.
        scales: numbers of tools for which speed and memory are measured.
        ablations: also measure with each part switched off.
        on_step: called with what begins now.
    """

    def __init__(
        self,
        folder: Path,
        *,
        names: Sequence[str],
        limit: int,
        scales: Sequence[int],
        ablations: bool,
        on_step: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._names = tuple(names)
        self._limit = limit
        self._scales = tuple(scales)
        self._ablations = ablations
        self._step = on_step

    def run(self) -> dict[str, Any]:
        """Measure, and return the document.

        Raises:
            UsageError: the folder has no sets, or one that is broken.
        """
        sets = [self._read(name) for name in self._names or self._found()]
        self._step("loading the baselines")
        backends: dict[str, Callable[[Sequence[Mapping[str, Any]]], Searcher]] = {"silo": ToolSetIndex, **baselines()}
        document: dict[str, Any] = {
            "benchmark": "routing",
            "silo": __version__,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": describe_machine(),
            "limit": self._limit,
            "seed": SEED,
            "sets": {each.name: {"tools": len(each.tools), "requests": len(each.cases)} for each in sets},
            "backends": {},
        }
        for name, backend in backends.items():
            document["backends"][name] = {}
            for each in sets:
                self._step(f"{name}: {each.name}")
                document["backends"][name][each.name] = measure(backend, each)
        if self._ablations:
            document["ablations"] = {
                name: {each.name: self._ablated(name, each, settings) for each in sets}
                for name, settings in ABLATIONS.items()
            }
        examples = {each.name: found for each in sets if (found := self._with_examples(each)) is not None}
        document["examples"] = examples
        document["scales"] = [self._scale(size) for size in self._scales]
        mean = statistics.fmean(each["recall@5"] for each in document["backends"]["silo"].values())
        document["figures"] = {"recall@5": _figure("recall@5", mean)}
        if examples:
            figure = statistics.fmean(each["recall@5"] for each in examples.values())
            document["figures"]["recall@5 with examples"] = _figure("recall@5 with examples", figure)
        return document

    def _found(self) -> list[str]:
        names = sorted(path.parent.name for path in self._folder.glob("*/queries.jsonl"))
        if not names:
            raise UsageError(
                f"no set of tools and requests lies in {self._folder}",
                hint="get the public ones with `python scripts/routing/fetch.py FOLDER`",
            )
        return names

    def _read(self, name: str) -> PublicSet:
        self._step(f"reading the set {name}")
        folder = self._folder / name
        try:
            tools = _lines(folder / "tools.jsonl")
            known = {tool["id"] for tool in tools}
            cases = [Case(line["query"], frozenset(line["relevant"])) for line in _lines(folder / "queries.jsonl")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"the set {name} cannot be read: {error}",
                hint="its files are described in docs/reference/routing-score.md",
            ) from error
        if not cases or not all(case.relevant and case.relevant <= known for case in cases):
            raise UsageError(f"the set {name} wants tools that it does not have", hint="fetch it again")
        random.Random(SEED).shuffle(cases)  # noqa: S311 - a fixed order, no secret
        return PublicSet(name, tools, cases[: self._limit or None])

    def _ablated(self, name: str, each: PublicSet, settings: RouterSettings) -> float:
        self._step(f"{name}: {each.name}")
        return float(measure(lambda tools: ToolSetIndex(tools, settings), each)["recall@5"])

    def _with_examples(self, each: PublicSet) -> dict[str, Any] | None:
        """Give each tool its first requests as examples, and measure the rest. None if most tools have too few."""
        single: dict[str, list[Case]] = defaultdict(list)
        for case in each.cases:
            if len(case.relevant) == 1:
                single[next(iter(case.relevant))].append(case)
        enough = {tool: cases for tool, cases in single.items() if len(cases) > EXAMPLES}
        if 2 * len(enough) < len(each.tools):
            return None
        self._step(f"{EXAMPLES} examples a tool: {each.name}")
        examples = {tool: [case.query for case in cases[:EXAMPLES]] for tool, cases in enough.items()}
        used = {query for given in examples.values() for query in given}
        rest = replace(each, cases=[case for case in each.cases if case.query not in used])
        alone = replace(each, cases=[case for case in rest.cases if len(case.relevant) == 1])
        found = measure(lambda tools: ToolSetIndex(tools, examples=examples), rest)
        return {
            "examples": EXAMPLES,
            "requests": len(rest.cases),
            "recall@5": found["recall@5"],
            "recall@5 of requests for one tool": measure(lambda tools: ToolSetIndex(tools, examples=examples), alone)[
                "recall@5"
            ],
            "recall@5 without": measure(ToolSetIndex, rest)["recall@5"],
        }

    def _scale(self, size: int) -> dict[str, Any]:
        self._step(f"{size} tools")
        figures: dict[str, Any] = {"tools": size}
        with tempfile.TemporaryDirectory(prefix="silo-bench-") as place:
            # Two processes: one that has built an index could reuse that memory, and would seem to need less.
            for step in ("build", "start"):
                done = subprocess.run(
                    [sys.executable, "-c", _SCALE_SCRIPT, step, str(self._folder), str(size), f"{place}/index.npz"],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                figures |= json.loads(done.stdout)
        return figures


def measure(backend: Callable[[Sequence[Mapping[str, Any]]], Searcher], each: PublicSet) -> dict[str, Any]:
    """Measure one backend on one set. The figures are means over its requests."""
    started = time.perf_counter()
    index = backend([dict(tool) for tool in each.tools])
    build_s = time.perf_counter() - started
    rows, times = [], []
    for case in each.cases:
        started = time.perf_counter()
        found = index.search(case.query, max(KS))
        times.append(1000 * (time.perf_counter() - started))
        rows.append(_score([name for name, _ in found], case.relevant))
    figures: dict[str, Any] = {name: round(statistics.fmean(row[name] for row in rows), 6) for name in rows[0]}
    return figures | {
        "ci95": _interval([row["recall@5"] for row in rows]),
        "build_s": round(build_s, 4),
        "p50_ms": round(_percentile(times[1:] or times, 0.5), 3),
        "p95_ms": round(_percentile(times[1:] or times, 0.95), 3),
    }


def measure_build(folder: Path, size: int, cache: Path) -> dict[str, Any]:
    """Build an index of `size` tools, and save it to `cache`.

    If the sets have fewer tools, copies of them are added under new names, with a tenth of their words replaced.
    """
    documents = _fill(folder, size)
    Ranker.build(documents[:10], settings=RouterSettings())  # loads what is loaded once
    before = _resident_mib()
    started = time.perf_counter()
    ranker = Ranker.build(documents, settings=RouterSettings())
    build_s = time.perf_counter() - started
    memory_mib = _resident_mib() - before
    del ranker
    Ranker.build(documents, settings=RouterSettings(), cache=cache)
    return {
        "build_s": round(build_s, 3),
        "build_memory_mib": round(memory_mib, 1),
        "file_mib": round(cache.stat().st_size / 2**20, 1),
    }


def measure_start(folder: Path, size: int, cache: Path) -> dict[str, Any]:
    """Load the index of `size` tools from `cache`, and search."""
    documents = _fill(folder, size)
    queries = [line["query"] for path in sorted(folder.glob("*/queries.jsonl")) for line in _lines(path)]
    random.Random(SEED).shuffle(queries)  # noqa: S311
    gc.collect()
    before = _resident_mib()
    started = time.perf_counter()
    ranker = Ranker.build(documents, settings=RouterSettings(), cache=cache)
    start_s = time.perf_counter() - started
    times = []
    for query in queries[:1000]:
        started = time.perf_counter()
        ranker.search([query], limit=10)
        times.append(1000 * (time.perf_counter() - started))
    return {
        "start_s": round(start_s, 3),
        "first_ms": round(times[0], 3),
        "p50_ms": round(_percentile(times[1:], 0.5), 3),
        "p95_ms": round(_percentile(times[1:], 0.95), 3),
        "memory_mib": round(_resident_mib() - before, 1),
    }


def table(document: Mapping[str, Any]) -> str:
    """Render the document for a person."""
    sets = list(document["sets"])
    width = max(12, *(len(name) + 2 for name in sets))
    lines = [f"recall@5{'':24}" + "".join(f"{name:>{width}}" for name in sets) + f"{'mean':>{width}}"]

    def row(label: str, values: Sequence[float]) -> str:
        cells = [*values, statistics.fmean(values)]
        return f"{label:32}" + "".join(f"{100 * value:>{width}.1f}" for value in cells)

    for name, found in document["backends"].items():
        lines.append(row(name, [found[each]["recall@5"] for each in sets]))
    if "ablations" in document:
        lines += ["", *(row(name, [found[each] for each in sets]) for name, found in document["ablations"].items())]
    for name, found in document["examples"].items():
        values = f"{100 * found['recall@5']:.1f}, without them {100 * found['recall@5 without']:.1f}"
        lines += [
            "",
            f"{name} with {found['examples']} examples a tool, on its other {found['requests']} requests: {values}",
        ]
    for each in document["scales"]:
        speed = f"search p50 {each['p50_ms']:.2f} ms, p95 {each['p95_ms']:.2f} ms; build {each['build_s']:.2f} s"
        rest = f"start from disk {each['start_s']:.2f} s; memory {each['memory_mib']:.0f} MiB"
        lines += ["", f"{each['tools']} tools: {speed}, {rest}"]
    machine = document["machine"]
    lines += [
        "",
        f"on {machine['cpu']}, {machine['cores']} cores, load {machine['load'][0]}, Python {machine['python']}",
    ]
    return "\n".join(lines)


_SCALE_SCRIPT = """\
import json, sys
from pathlib import Path
from silo.cli.benchmarks.routing import measure_build, measure_start
_, step, folder, size, cache = sys.argv
print(json.dumps({"build": measure_build, "start": measure_start}[step](Path(folder), int(size), Path(cache))))
"""


def _fill(folder: Path, size: int) -> list[ToolDocument]:
    tools = {tool["id"]: tool for path in sorted(folder.glob("*/tools.jsonl")) for tool in _lines(path)}
    pool = [tools[name] for name in sorted(tools)]
    rng = random.Random(SEED)  # noqa: S311
    rng.shuffle(pool)
    words = [word for tool in pool[:2000] for word in str(tool.get("description") or "").split()]
    documents = [document_of(tool) for tool in pool[:size]]
    while len(documents) < size:
        number = len(documents)
        like = documents[number % len(pool)]
        text = [rng.choice(words) if rng.random() < 0.1 else word for word in like.description.split()]
        documents.append(
            replace(like, id=f"{like.id}~{number}", name=f"{like.name}_{number}", description=" ".join(text))
        )
    return documents


def _score(ranked: Sequence[str], relevant: frozenset[str]) -> dict[str, float]:
    hits = [name in relevant for name in ranked]
    row: dict[str, float] = {}
    for k in KS:
        count = sum(hits[:k])
        ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(relevant))))
        row[f"recall@{k}"] = count / len(relevant)
        row[f"hit@{k}"] = float(count > 0)
        row[f"complete@{k}"] = float(count == len(relevant))
        row[f"ndcg@{k}"] = sum(hit / math.log2(place + 2) for place, hit in enumerate(hits[:k])) / ideal
    row["mrr"] = next((1 / (place + 1) for place, hit in enumerate(hits[:10]) if hit), 0.0)
    return row


def _interval(values: Sequence[float]) -> list[float]:
    """Percentile bootstrap of the mean, 1,000 resamples."""
    rng = random.Random(20261121)  # noqa: S311 - the seed of the sets' own protocol
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(1000))
    return [round(means[25], 4), round(means[975], 4)]


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _figure(name: str, measured: float) -> dict[str, Any]:
    required, wanted = _AIMS[name]
    return {"measured": round(measured, 4), "required": required, "wanted": wanted, "holds": measured >= required}


def _lines(path: Path) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def _resident_mib() -> float:
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024
    except (OSError, IndexError):  # not Linux: unknown, and shown as 0
        return 0.0
