"""Approvals with real clients over stdio: the Python SDK, and both versions of the TypeScript SDK.

Each client declares all capabilities that it can. The server is the real one, with an engine that asks a person (a
file) and has no guests. Other tests use real guests and the real page; these are about the clients.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import ElicitResult

from silo.testing import PATIENCE_S

HERE = Path(__file__).parent
SERVER = HERE.parent / "silo" / "server" / "asking_server.py"

MODERN, HANDSHAKE = "2026-07-28", "2025-11-25"
LINK = re.compile(r"http://127\.0\.0\.1:9/ask/(\w+)")


class Driven:
    """One client with its own server, and a folder in which the person answers."""

    def __init__(self, name, elicitation, mode, answers: Path, ts_client: Path) -> None:
        self.name, self.elicitation, self.mode, self.answers, self.ts_client = (
            name,
            elicitation,
            mode,
            answers,
            ts_client,
        )

    def run(self, *steps: dict, patience_s: float) -> dict:
        plan = {
            "command": sys.executable,
            "args": ["-W", "error", str(SERVER), str(self.answers), str(patience_s)],
            "answers": str(self.answers),
            "elicitation": self.elicitation,
            "mode": self.mode,
            "steps": steps,
        }
        if self.name == "python":
            return anyio.run(carry_out, plan)
        done = subprocess.run(
            ["node", f"approvals-{self.name}.mjs"],
            cwd=self.ts_client,
            input=json.dumps(plan),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def ran(self) -> list[str]:
        """The texts of the calls for which a guest was started."""
        ran = self.answers / "ran"
        return [json.loads(line)[1]["text"] for line in ran.read_text().splitlines()] if ran.exists() else []


async def carry_out(plan: dict) -> dict:
    """The plan of `ts-client/approvals.mjs`, with the Python SDK."""
    completed, outcomes = [], []
    now: dict = {}

    def look(words: str) -> None:
        for name in LINK.findall(words):
            now["question"] = name

    def answer(words: str) -> None:
        (Path(plan["answers"]) / now["question"]).write_text(f"{words}\n")

    async def on_prompt(ctx, params):
        now["prompts"].append(params.model_dump(by_alias=True, mode="json"))
        look(f"{getattr(params, 'url', '')} {params.message}")
        if said := now["step"].get("answer"):
            answer(said)
        if now["step"].get("abort_on") == "prompt":
            now["scope"].cancel()
            await anyio.sleep_forever()
        return ElicitResult(action=now["step"]["action"])

    async def on_progress(progress, total, message):
        now["progress"].append({"progress": progress, "message": message})
        look(message)
        if said := now["step"].get("answer_on_progress"):
            answer(said)
        if now["step"].get("abort_on") == "progress":
            now["scope"].cancel()

    async def on_message(message):
        if message.method == "notifications/elicitation/complete":
            completed.append(message.params.elicitation_id)

    server = StdioServerParameters(command=plan["command"], args=plan["args"], env=dict(os.environ))
    callbacks = {"elicitation_callback": on_prompt} if plan["elicitation"] else {}
    with open(os.devnull, "w") as errors, anyio.fail_after(PATIENCE_S):
        async with Client(
            stdio_client(server, errors), mode=plan["mode"], message_handler=on_message, **callbacks
        ) as client:
            for step in plan["steps"]:
                now |= {"step": step, "prompts": [], "progress": []}
                if step["do"] == "answer":
                    answer(step["answer"])
                    continue
                outcome: dict = {"thrown": "cancelled"}
                with anyio.CancelScope() as scope:
                    now["scope"] = scope
                    result = await client.call_tool(step["name"], step["arguments"], progress_callback=on_progress)
                    outcome = result.model_dump(by_alias=True, mode="json", exclude_none=True)
                look(json.dumps(outcome))
                outcomes.append({**outcome, "prompts": now["prompts"], "progress": now["progress"]})
            protocol = client.protocol_version
    return {"protocol": protocol, "outcomes": outcomes, "completed": completed}


def call(text: str, name: str = "demo__echo", **what) -> dict:
    arguments = {"text": text}
    if name == "silo_execute":
        arguments = {"tool": "demo.echo", "arguments": arguments}
    return {"do": "call", "name": name, "arguments": arguments, "action": "accept", **what}


ANOTHER = {"do": "call", "name": "demo__add", "arguments": {"a": 1, "b": 2}}
"""A call that asks nobody. Once it is answered, the server has noticed an abort that was sent before it."""


def text_of(outcome) -> str:
    assert "content" in outcome, outcome
    return "\n".join(block["text"] for block in outcome["content"])


def state_of(outcome) -> str:
    assert outcome["isError"], outcome
    return outcome["_meta"]["dev.silo/error"]["code"]


@pytest.fixture
def driven(request, tmp_path, ts_client) -> Driven:
    name, elicitation, mode = request.param
    return Driven(name, elicitation, mode, tmp_path, ts_client)


PROMPTED = [
    pytest.param(("v1", {"url": {}}, "legacy"), "url", HANDSHAKE, id="v1-url"),
    pytest.param(("v1", {"form": {}}, "legacy"), "form", HANDSHAKE, id="v1-form"),
    pytest.param(("v1", {}, "legacy"), "form", HANDSHAKE, id="v1-empty"),
    pytest.param(("v2", {"url": {}}, "auto"), "url", MODERN, id="v2-url"),
    pytest.param(("v2", {"url": {}}, "legacy"), "url", HANDSHAKE, id="v2-handshake-url"),
    pytest.param(("v2", {"form": {}}, "legacy"), "form", HANDSHAKE, id="v2-handshake-form"),
    pytest.param(("python", {"url": {}, "form": {}}, "auto"), "url", MODERN, id="python"),
    pytest.param(("python", {"url": {}, "form": {}}, "legacy"), "url", HANDSHAKE, id="python-handshake"),
]

UNPROMPTED = [
    pytest.param(("v1", None, "legacy"), HANDSHAKE, id="v1"),
    pytest.param(("v2", None, "auto"), MODERN, id="v2"),
    pytest.param(("v2", {"form": {}}, "auto"), MODERN, id="v2-form"),
    pytest.param(("python", None, "auto"), MODERN, id="python"),
    pytest.param(("python", None, "legacy"), HANDSHAKE, id="python-handshake"),
]


@pytest.mark.parametrize(("driven", "shown", "protocol"), PROMPTED, indirect=["driven"])
def test_client_with_prompts_shows_the_link_and_only_the_answer_on_the_page_counts(driven, shown, protocol):
    report = driven.run(
        call("agreed", answer="yes"),
        call("through execute", "silo_execute", answer="yes"),
        call("refused", answer="no not on a Friday"),
        call("closed", action="decline"),
        call("closed", action="accept"),
        {"do": "answer", "answer": "yes"},
        call("closed"),
        call("aborted", abort_on="prompt"),
        ANOTHER,
        {"do": "answer", "answer": "yes"},
        call("undecided"),
        patience_s=0.05,
    )
    agreed, executed, refused, closed, closed_again, at_last, aborted, _, undecided = report["outcomes"]
    assert report["protocol"] == protocol
    for outcome in (agreed, executed, refused, closed, aborted, undecided):
        (prompt,) = outcome["prompts"]
        assert prompt["mode"] == shown
        assert "Run demo.echo" in prompt["message"]
        assert LINK.search(prompt["url"] if shown == "url" else prompt["message"])
    assert text_of(agreed) == "agreed"
    assert text_of(executed) == "through execute"
    assert state_of(refused) == "denied"
    assert "not on a Friday" in text_of(refused)
    assert [state_of(outcome) for outcome in (closed, closed_again)] == ["approval-pending"] * 2
    assert closed["_meta"]["dev.silo/approval"]["prompt"] == "decline"
    assert closed_again["prompts"] == at_last["prompts"] == []
    assert text_of(at_last) == "closed"
    assert "thrown" in aborted
    # After the client's last round, its model gets a text that it can read, and the client raises no exception.
    assert state_of(undecided) == "approval-pending"
    assert undecided["_meta"]["dev.silo/approval"]["url"] in text_of(undecided)
    assert driven.ran == ["agreed", "through execute", "closed"]
    assert len(report["completed"]) == (3 if (shown, protocol) == ("url", HANDSHAKE) else 0)


@pytest.mark.parametrize(("driven", "protocol"), UNPROMPTED, indirect=["driven"])
def test_client_without_prompts_learns_the_link_from_progress_and_results(driven, protocol):
    report = driven.run(
        call("agreed", answer_on_progress="yes"),
        call("refused", "silo_execute", answer_on_progress="no not on a Friday"),
        call("aborted", abort_on="progress"),
        ANOTHER,
        {"do": "answer", "answer": "yes"},
        call("undecided"),
        {"do": "answer", "answer": "yes"},
        call("undecided"),
        patience_s=2,
    )
    agreed, refused, aborted, _, undecided, at_last = report["outcomes"]
    assert report["protocol"] == protocol
    assert all(outcome["prompts"] == [] for outcome in report["outcomes"])
    assert text_of(agreed) == "agreed"
    assert LINK.search(agreed["progress"][0]["message"])
    assert state_of(refused) == "denied"
    assert "thrown" in aborted
    assert state_of(undecided) == "approval-pending"
    assert "call demo__echo again with the same arguments" in text_of(undecided)
    assert LINK.search(text_of(undecided))[0] == undecided["_meta"]["dev.silo/approval"]["url"]
    assert text_of(at_last) == "undecided"
    assert driven.ran == ["agreed", "undecided"]
