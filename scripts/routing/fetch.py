"""Fetch the public sets for `silo bench routing` and for training, from their sources, at fixed commits.

    python scripts/routing/fetch.py sets
    python scripts/routing/fetch.py sets --clone bfcl=/somewhere/gorilla.git

| set | source | licence |
|---|---|---|
| metatool | github.com/HowieHwong/MetaTool | MIT, (c) 2023 Yue Huang |
| sealtools | github.com/fairyshine/Seal-Tools | Apache-2.0 |
| bfcl | github.com/ShishirPatil/gorilla, the Berkeley Function-Calling Leaderboard v4 | Apache-2.0 |
| rapidapi | github.com/THUNLP-MT/StableToolBench, 25 categories | Apache-2.0 |
| distractors | github.com/SqueezeAILab/Tool2Vec (AWS, numpy and pandas functions), tools without requests | MIT |

Each becomes a folder with `tools.jsonl` and `queries.jsonl`, described in docs/reference/routing-score.md. None of them
is in silo's wheel. Where a source has too many requests for some tools (`metatool`: thousands; `bfcl`: the same
functions again and again), ten for each are drawn with a fixed seed; another draw of the same source can change
recall@5 of `metatool` by a point and a half. Needs git, and 2 GB for the clones, which are deleted again.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20261121
PER_TOOL = 10
SHORTEST, LONGEST = 8, 2000


@dataclass(frozen=True)
class Source:
    """A repository at one commit."""

    git: Path
    commit: str

    def text(self, path: str) -> str:
        """Return a file."""
        command = ["git", "--git-dir", str(self.git), "show", f"{self.commit}:{path}"]
        return subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8")

    def lines(self, path: str) -> list[dict[str, Any]]:
        """Return a file of JSON lines."""
        return [json.loads(line) for line in self.text(path).splitlines() if line.strip()]


@dataclass(frozen=True)
class Made:
    """A set."""

    tools: list[dict[str, Any]]
    queries: list[dict[str, Any]]


def metatool(source: Source) -> Made:
    """Names and one-line descriptions of plugins; the requests are in everyday words."""
    single = [
        (row["Query"], row["Tool"])
        for row in csv.DictReader(io.StringIO(source.text("dataset/data/all_clean_data.csv")))
    ]
    multi = json.loads(source.text("dataset/data/multi_tool_query_golden.json"))
    descriptions = json.loads(source.text("dataset/plugin_des.json")) | json.loads(
        source.text("dataset/big_tool_des.json")
    )
    by_plain = {name.casefold(): text for name, text in descriptions.items()}
    names = sorted({tool for _, tool in single} | {tool for each in multi for tool in each["tool"]})
    known = [name for name in names if name.casefold() in by_plain]
    tools = [{"id": name, "name": name, "description": by_plain[name.casefold()]} for name in known]
    queries = _draw(((query, (tool,)) for query, tool in single if tool in known), kind="single")
    queries += [
        {"query": each["query"], "relevant": sorted(set(each["tool"])), "kind": "multi"}
        for each in multi
        if set(each["tool"]) <= set(known)
    ]
    return Made(tools, queries)


def sealtools(source: Source) -> Made:
    """4,076 functions by topic; most requests need three of them."""
    tools = [
        {
            "id": tool["api_name"],
            "name": tool["api_name"],
            "description": tool["api_description"],
            "group": tool["field"],
            "parameters": {"type": "object", "properties": tool["parameters"], "required": tool["required"]},
        }
        for tool in source.lines("Seal-Tools_Dataset/tool.jsonl")
    ]
    known = {tool["id"] for tool in tools}
    queries = []
    for part in ("dev", "test_in_domain", "test_out_domain"):
        for line in source.lines(f"Seal-Tools_Dataset/{part}.jsonl"):
            wanted = sorted({call["api"] for call in line["calling"]})
            if set(wanted) <= known:
                kind = "single" if len(wanted) == 1 else "multi"
                queries.append({"query": line["query"], "relevant": wanted, "kind": kind, "split": part})
    return Made(tools, queries)


def bfcl(source: Source) -> Made:
    """Functions with full schemas; requests of real users (`live`) and of the authors."""
    base = "berkeley-function-call-leaderboard/bfcl_eval/data"
    parts = ("live_multiple", "live_simple", "multiple", "simple_python", "parallel_multiple", "live_parallel_multiple")
    variants: dict[str, Counter[str]] = defaultdict(Counter)
    asked: list[tuple[str, tuple[str, ...]]] = []
    for part in (*parts, "live_irrelevance"):
        rows = source.lines(f"{base}/BFCL_v4_{part}.json")
        for row in rows:
            for function in row["function"]:
                variants[function["name"]][json.dumps(_with_types(function), sort_keys=True)] += 1
        if part in parts:
            answers = {
                row["id"]: row["ground_truth"] for row in source.lines(f"{base}/possible_answer/BFCL_v4_{part}.json")
            }
            for row in rows:
                said = [turn["content"] for turn in row["question"][-1] if turn["role"] == "user"]
                wanted = tuple(sorted({name for call in answers[row["id"]] for name in call}))
                if said and wanted:
                    asked.append((said[-1], wanted))
    functions = [json.loads(variants[name].most_common(1)[0][0]) for name in sorted(variants)]
    tools = [
        {"id": each["name"], **{key: each.get(key) for key in ("name", "description", "parameters")}}
        for each in functions
    ]
    return Made(
        tools, _draw(((query, wanted) for query, wanted in asked if set(wanted) <= set(variants)), kind="request")
    )


CATEGORIES = frozenset(
    {
        "Artificial_Intelligence_Machine_Learning",
        "Business",
        "Business_Software",
        "Cybersecurity",
        "Database",
        "Devices",
        "Finance",
        "Financial",
        "Food",
        "Health_and_Fitness",
        "Jobs",
        "Location",
        "Medical",
        "Monitoring",
        "Movies",
        "News_Media",
        "Payments",
        "Reward",
        "Search",
        "Text_Analysis",
        "Translation",
        "Transportation",
        "Travel",
        "Visual_Recognition",
        "eCommerce",
    }
)
"""Drawn once; all fifty categories would give the set four times too much weight for its requests."""


def rapidapi(source: Source) -> Made:
    """Interfaces of real providers (`group`), with requests that need one to several of them."""
    tools: dict[str, dict[str, Any]] = {}
    queries = []
    parts = ("G1_category", "G1_instruction", "G1_tool", "G2_category", "G2_instruction")
    lines = [
        (part, line)
        for part in parts
        for line in json.loads(source.text(f"solvable_queries/test_instruction/{part}.json"))
    ]
    for _, line in lines:
        for api in line["api_list"]:
            if api["category_name"] in CATEGORIES:
                name = f"{api['tool_name']}/{api['api_name']}"
                tools.setdefault(name, _rapid_tool(name, api))
    for part, line in lines:
        wanted = sorted({f"{tool}/{api}" for tool, api in line["relevant APIs"]})
        if wanted and set(wanted) <= tools.keys():
            queries.append({"query": line["query"], "relevant": wanted, "kind": part})
    return Made([tools[name] for name in sorted(tools)], queries)


def distractors(source: Source) -> Made:
    """Functions of AWS, numpy and pandas, which fill a catalogue with tools that no request needs."""
    tools = []
    for bank in ("aws", "numpy", "pandas"):
        suffix = "_with_classes" if bank == "pandas" else ""
        path = f"toolrag/data_generation/bank_{bank}/{bank}_function_descriptions{suffix}.json"
        for name, about in json.loads(source.text(path)).items():
            text = about if isinstance(about, str) else json.dumps(about)
            tools.append({"id": f"{bank}:{name}", "name": name, "description": text, "group": bank})
    return Made(tools, [])


SETS: dict[str, tuple[str, str, Callable[[Source], Made]]] = {
    "metatool": ("HowieHwong/MetaTool", "35e81bb", metatool),
    "sealtools": ("fairyshine/Seal-Tools", "ce753ec", sealtools),
    "bfcl": ("ShishirPatil/gorilla", "6ea5797", bfcl),
    "rapidapi": ("THUNLP-MT/StableToolBench", "aa4ed9f", rapidapi),
    "distractors": ("SqueezeAILab/Tool2Vec", "5e8e798", distractors),
}


def main() -> None:
    """Fetch the sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clone", action="append", default=[], metavar="SET=GIT_DIR", help="use an existing clone")
    args = parser.parse_args()
    clones = dict(each.split("=", 1) for each in args.clone)
    for name, (repository, commit, convert) in SETS.items():
        with tempfile.TemporaryDirectory(prefix="silo-sets-") as place:
            if name in clones:
                git = Path(clones[name])
            else:
                git = Path(place) / "clone.git"
                print(f"fetch: {repository}", file=sys.stderr)
                command = [
                    "git",
                    "clone",
                    "--quiet",
                    "--bare",
                    "--filter=blob:none",
                    f"https://github.com/{repository}",
                    str(git),
                ]
                subprocess.run(command, check=True)
            made = convert(Source(git, commit))
        folder = args.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "tools.jsonl", made.tools)
        if made.queries:
            _write(folder / "queries.jsonl", made.queries)
        print(f"fetch: {name}: {len(made.tools)} tools, {len(made.queries)} requests", file=sys.stderr)


def _draw(asked: Iterable[tuple[str, tuple[str, ...]]], *, kind: str) -> list[dict[str, Any]]:
    """Draw at most `PER_TOOL` requests for each set of right tools; without duplicates, and neither tiny nor huge."""
    by_label: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    for query, wanted in asked:
        if SHORTEST <= len(query) <= LONGEST:
            by_label[wanted][query] = None
    rng = random.Random(SEED)
    return [
        {"query": query, "relevant": list(wanted), "kind": kind}
        for wanted in sorted(by_label)
        for query in rng.sample(list(by_label[wanted]), min(PER_TOOL, len(by_label[wanted])))
    ]


def _with_types(schema: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a schema with JSON Schema's names of types instead of those of other languages."""
    names = {
        "dict": "object",
        "float": "number",
        "int": "integer",
        "str": "string",
        "list": "array",
        "tuple": "array",
        "bool": "boolean",
    }
    if isinstance(schema, dict):
        return {
            key: names.get(value, value) if key == "type" and isinstance(value, str) else _with_types(value)
            for key, value in schema.items()
        }
    return [_with_types(item) for item in schema] if isinstance(schema, list) else schema


def _rapid_tool(name: str, api: dict[str, Any]) -> dict[str, Any]:
    given = [*api["required_parameters"], *api["optional_parameters"]]
    properties = {each["name"]: {"type": each["type"].lower(), "description": each["description"]} for each in given}
    return {
        "id": name,
        "name": api["api_name"],
        "description": api["api_description"],
        "group": api["tool_name"],
        "category": api["category_name"],
        "parameters": {
            "type": "object",
            "properties": properties,
            "required": [each["name"] for each in api["required_parameters"]],
        },
    }


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
