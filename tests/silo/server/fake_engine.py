"""An engine without sandboxes, for the tests of the MCP edge: real `Engine` semantics, scripted tools.

Imported by `conftest.py`, and by `fake_server.py`, which runs it as a process.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio

from silo.errors import ApprovalPending, CallDenied, SkillRaised, SkillUnknown, ToolUnknown
from silo.model import (
    Caller,
    File,
    Isolation,
    Logs,
    ProgressReport,
    Result,
    Skill,
    SkillHeader,
    Tool,
    ToolHints,
)
from silo.policy.visible import ExpectedVerdict, Visible, with_expected
from silo.remedies import DoNotCallAgain

Script = Callable[[Mapping[str, Any], Callable[[ProgressReport], None]], Awaitable[Result]]

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


def make_tool(id_: str, **changes: Any) -> Tool:
    skill, _, name = id_.partition(".")
    tool = Tool(
        skill=skill,
        name=name,
        description=f"Do {name}.",
        input_schema={"type": "object", "properties": {}},
        output_schema=None,
        require_approval=False,
        time_to_live_s=600,
        secrets=(),
        timeout_s=30.0,
    )
    return replace(tool, **changes)


def make_skill(namespace: str, *tools: Tool, folder: Path = Path("/nonexistent"), **changes: Any) -> Skill:
    skill = Skill(
        namespace=namespace,
        digest="0" * 64,
        header=SkillHeader(namespace=namespace, requires_python=">=3.11", description=f"The {namespace} skill."),
        tools=tools,
        folder=folder,
        source=f"builtin:{namespace}",
        instructions=None,
        installed_at="2026-11-21T10:00:00Z",
        image="sha256:0",
        described_by=Isolation.MICROVM,
    )
    return replace(skill, **changes)


def make_result(text: str = "", **changes: Any) -> Result:
    result = Result(
        text=text,
        data=None,
        has_data=False,
        files=(),
        is_error=False,
        logs=Logs(),
        isolation=Isolation.MICROVM,
        guest={"kernel": "6.1.0", "python": "3.11.7"},
        timing={"run": 0.0031234567, "total": 0.01},
    )
    return replace(result, **changes)


@dataclass(frozen=True)
class FakeMatch:
    tool: Tool
    score: float = 1.0
    why: tuple[str, ...] = ()
    low_confidence: bool = False
    siblings: tuple[str, ...] = ()


@dataclass
class FakeQuestion:
    """One question to the person, until a call uses up the answer."""

    id: str
    title: str
    link: str
    approved: bool | None = None
    reason: str = ""
    decided: anyio.Event = field(default_factory=anyio.Event)

    def answer(self, approved: bool, reason: str = "") -> None:
        """Answer as a person does on the page; there is no other way to approve."""
        self.approved, self.reason = approved, reason
        self.decided.set()


@dataclass
class FakeEngine:
    """`calls` has the calls that arrived, `ran` those that started a guest; `scripts` has what tools do, by id.

    `expected` has the verdicts of the rules by tool, if they differ from what the tool asks for; `used` counts the
    calls of each tool by client. Tools in `asks` need a person, once for each title that they have there; `questions`
    are the open questions, by call and title.
    """

    installed: dict[str, Skill] = field(default_factory=dict)
    scripts: dict[str, Script] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any], Caller | None]] = field(default_factory=list)
    searches: list[tuple[str, int]] = field(default_factory=list)
    failure: Exception | None = None
    hint: str = "did you mean 'demo.echo'?"
    running: anyio.Event = field(default_factory=anyio.Event)
    cancelled: anyio.Event = field(default_factory=anyio.Event)
    asks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    questions: dict[tuple[str, str, str], FakeQuestion] = field(default_factory=dict)
    asked: list[FakeQuestion] = field(default_factory=list)
    waits: list[tuple[float | None, bool]] = field(default_factory=list)
    waiting: anyio.Event = field(default_factory=anyio.Event)
    ran: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    link: str = "http://127.0.0.1:9/ask/"
    expected: dict[str, ExpectedVerdict] = field(default_factory=dict)
    used: dict[str, dict[str, int]] = field(default_factory=dict)

    def install(self, skill: Skill, **scripts: Script) -> None:
        self.installed[skill.namespace] = skill
        for name, script in scripts.items():
            self.scripts[f"{skill.namespace}.{name}"] = script

    def remove(self, namespace: str) -> None:
        del self.installed[namespace]

    async def skills(self) -> tuple[Skill, ...]:
        if self.failure is not None:
            raise self.failure
        return tuple(self.installed.values())

    async def tools(self) -> tuple[Tool, ...]:
        return tuple(tool for skill in self.installed.values() for tool in skill.tools)

    async def visible(self, caller: Caller) -> Visible:
        skills = await self.skills()
        return with_expected(
            skills,
            {
                tool.id: self.expected.get(tool.id, "asks" if tool.require_approval else "runs")
                for skill in skills
                for tool in skill.tools
            },
        )

    async def usage(self, caller: Caller) -> dict[str, int]:
        return self.used.get(caller.client, {})

    async def find(
        self,
        queries: Sequence[str],
        *,
        limit: int = 5,
        skill: str | None = None,
        caller: Caller | None = None,
        among: Visible | None = None,
    ) -> tuple[tuple[FakeMatch, ...], ...]:
        """Find the tools that share a word with the query."""
        self.searches += [(query, limit) for query in queries]
        if self.failure is not None:
            raise self.failure
        visible = await self.visible(caller or Caller("mcp")) if among is None else among
        tools = [tool for tool in visible.tools if skill in (None, tool.skill)]
        if skill is not None and not tools:
            raise SkillUnknown(f"no skill {skill[:100]!r} is installed", hint="did you mean 'demo'?")
        return tuple(tuple(self._matches(query, tools)[:limit]) for query in queries)

    def _matches(self, query: str, tools: Sequence[Tool]) -> list[FakeMatch]:
        words = set(query.lower().replace(".", " ").split())
        fitting = [
            tool for tool in tools if words & set(f"{tool.id} {tool.description}".lower().replace(".", " ").split())
        ]
        siblings = tuple(tool.name for tool in tools if tool not in fitting)[:3]
        return [FakeMatch(tool, 1.0, ("description: add",), len(words) > 3, siblings) for tool in fitting]

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        on_progress: Callable[[ProgressReport], None] | None = None,
        caller: Caller | None = None,
        patience_s: float | None = None,
        shows_links: bool = False,
    ) -> Result:
        self.calls.append((tool, dict(arguments or {}), caller))
        if tool not in {known.id for known in await self.tools()}:
            raise ToolUnknown(f"no tool is called {tool!r}", hint=self.hint)
        if self.expected.get(tool) == "denied":
            raise CallDenied(f"{tool} may not run: not for agents", hint="ask whoever wrote the rules of this machine")
        report = on_progress or (lambda report: None)
        try:
            asker = caller.session if caller is not None else ""
            await self._settle(tool, arguments or {}, report, patience_s, shows_links, asker)
            self.ran.append((tool, dict(arguments or {})))
            self.running.set()
            return await self.scripts[tool](arguments or {}, report)
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            print("the guest is gone", file=sys.stderr, flush=True)
            raise

    async def _settle(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        report: Callable[[ProgressReport], None],
        patience_s: float | None,
        shows_links: bool,
        asker: str,
    ) -> None:
        # An answer is for one session, as the engine's own are.
        keys = [(f"{tool} {asker}", json.dumps(arguments, sort_keys=True), title) for title in self.asks.get(tool, ())]
        if keys:
            self.waits.append((patience_s, shows_links))
        for key in keys:
            question = self.questions.get(key)
            if question is None:
                name = f"q{next(self.numbers)}"
                question = self.questions[key] = FakeQuestion(name, key[2], f"{self.link}{name}" if self.link else "")
                self.asked.append(question)
            if not question.decided.is_set():
                report(ProgressReport(0, None, f"waiting for an answer at {question.link}"))
                self.waiting.set()
                with anyio.move_on_after(patience_s):
                    await question.decided.wait()
            if question.approved is None:
                raise ApprovalPending(
                    f"{tool} waits for a person",
                    hint="tell the user",
                    question=question.id,
                    link=question.link,
                    title=question.title,
                )
            if not question.approved:
                raise CallDenied(
                    f"a person refused {tool}: {question.reason}",
                    hint=DoNotCallAgain("the user asks for it"),
                )
        for key in keys:
            del self.questions[key]


def returns(result: Result) -> Script:
    async def script(arguments: Mapping[str, Any], on_progress: Callable[[ProgressReport], None]) -> Result:
        return result

    return script


def raises(error: Exception) -> Script:
    async def script(arguments: Mapping[str, Any], on_progress: Callable[[ProgressReport], None]) -> Result:
        raise error

    return script


async def echo(arguments: Mapping[str, Any], on_progress: Callable[[ProgressReport], None]) -> Result:
    return make_result(str(arguments.get("text", "")), data=dict(arguments), has_data=True)


async def add(arguments: Mapping[str, Any], on_progress: Callable[[ProgressReport], None]) -> Result:
    total = arguments["a"] + arguments["b"]
    return make_result(str(total), data=total, has_data=True)


async def steps(arguments: Mapping[str, Any], on_progress: Callable[[ProgressReport], None]) -> Result:
    on_progress(ProgressReport(0, None, "starting a microVM"))
    for number in range(1, 4):
        on_progress(ProgressReport(number, 3, f"step {number}"))
    return make_result("done")


async def hang(arguments: Mapping[str, Any], on_progress: Callable[[ProgressReport], None]) -> Result:
    on_progress(ProgressReport(0, None, "hanging"))
    await anyio.sleep_forever()
    raise AssertionError


async def noisy(arguments: Mapping[str, Any], on_progress: Callable[[ProgressReport], None]) -> Result:
    """Print to stdout in every way that a library could."""
    import os
    import subprocess

    print("from print", flush=True)
    os.write(1, b"from descriptor 1\n")
    subprocess.run(["/bin/echo", "from a child"], check=True)
    return make_result("quiet")


NUMBERS = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}


def demo_engine() -> FakeEngine:
    """An engine with one skill that shows every kind of answer."""
    engine = FakeEngine()
    tools = (
        make_tool(
            "demo.add",
            description="Add two numbers.\n\nMore about it.",
            input_schema=NUMBERS,
            output_schema={"type": "integer"},
            hints=ToolHints(title="Add", read_only=True, destructive=False, idempotent=True),
        ),
        make_tool("demo.crash", description="Raise what nobody expects."),
        make_tool("demo.echo", description="Return what it gets."),
        make_tool("demo.fail", description="Raise in the skill.", require_approval=True),
        make_tool("demo.hang", description="Never return."),
        make_tool("demo.noisy", description="Print to stdout."),
        make_tool("demo.picture", description="Return a picture."),
        make_tool("demo.steps", description="Report progress."),
    )
    failure = SkillRaised(
        "ZeroDivisionError: division by zero",
        hint="the skill's author can fix it",
        stderr="warming up\nboom\n",
        traceback='File "skill.py", line 3, in fail\n',
    )
    engine.install(
        make_skill("demo", *tools),
        add=add,
        crash=raises(RuntimeError("SECRET-IN-EXCEPTION")),
        echo=echo,
        fail=raises(failure),
        hang=hang,
        noisy=noisy,
        picture=returns(make_result(files=(File(PNG, "image/png", "dot.png"),))),
        steps=steps,
    )
    return engine


__all__ = [
    "PNG",
    "FakeEngine",
    "FakeQuestion",
    "add",
    "demo_engine",
    "echo",
    "hang",
    "make_result",
    "make_skill",
    "make_tool",
    "raises",
    "returns",
]
