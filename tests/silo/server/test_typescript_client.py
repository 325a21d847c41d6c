"""The server with the TypeScript SDK, another implementation of the protocol, which most deployed clients use."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

from silo.testing import PATIENCE_S


def drive(ts_client: Path, command: list[str], *steps: dict) -> dict:
    program, *arguments = command
    plan = {"command": program, "args": arguments, "env": {}, "steps": steps}
    done = subprocess.run(
        ["node", "client.mjs"],
        cwd=ts_client,
        input=json.dumps(plan),
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"stderr": done.stderr}


def test_client_lists_calls_and_reads(ts_client, server_command, fakes):
    report = drive(
        ts_client,
        server_command,
        {"do": "tools"},
        {"do": "call", "name": "silo_search", "arguments": {"query": "add numbers"}},
        {"do": "call", "name": "silo_execute", "arguments": {"tool": "demo.add", "arguments": {"a": 1, "b": 2}}},
        {"do": "call", "name": "demo__add", "arguments": {"a": 40, "b": 2}},
        {"do": "call", "name": "demo__picture"},
        {"do": "call", "name": "demo__noisy"},
        {"do": "resources"},
        {"do": "read", "uri": "skill://demo/SKILL.md"},
        {"do": "read", "uri": "skill://nope/SKILL.md"},
    )
    tools, found, executed, added, picture, noisy, resources, manual, unknown = report["outcomes"]
    assert report["server"] == {"name": "silo", "title": "silo", "version": "0.0.test"}
    assert report["capabilities"]["tools"] == {"listChanged": True}
    assert "silo_search" in report["instructions"]
    assert {"silo_search", "silo_execute", "demo__add"} <= {tool["name"] for tool in tools}
    assert found["structuredContent"]["tools"][0]["tool"] == "demo.add"
    assert executed["structuredContent"] == {"result": 3}
    # The SDK validates this against the listed output schema, and throws if it does not fit.
    assert added["structuredContent"] == {"result": 42}
    assert base64.b64decode(picture["content"][0]["data"]) == fakes.PNG
    assert noisy["content"] == [{"type": "text", "text": "quiet"}]
    assert [resource["uri"] for resource in resources] == ["skill://demo/SKILL.md"]
    assert manual["contents"][0]["mimeType"] == "text/markdown"
    assert unknown["code"] == -32602


def test_client_sees_failures_as_results_and_no_internals(ts_client, server_command):
    report = drive(
        ts_client,
        server_command,
        {"do": "call", "name": "demo__fail"},
        {"do": "call", "name": "demo__crash"},
        {"do": "call", "name": "demo__nothing"},
    )
    failed, crashed, unknown = report["outcomes"]
    for outcome, code in ((failed, "skill-exception"), (crashed, "internal-error"), (unknown, "tool-unknown")):
        assert outcome["isError"] is True
        assert outcome["content"][0]["text"].startswith(f"error [{code}]: ")
        assert outcome["_meta"]["dev.silo/error"]["code"] == code
    assert "SECRET-IN-EXCEPTION" not in json.dumps(report["outcomes"])


def test_client_gets_progress_and_can_abort_or_time_out(ts_client, server_command):
    report = drive(
        ts_client,
        server_command,
        {"do": "call", "name": "demo__hang", "abort_on_progress": True},
        {"do": "call", "name": "demo__hang", "timeout_ms": 100},
        {"do": "call", "name": "demo__echo", "arguments": {"text": "after"}},
    )
    aborted, timed_out, after = report["outcomes"]
    # Of a call that hangs: this SDK drops progress that arrives in one read with the result.
    assert [report["message"] for report in aborted["progress"]] == ["hanging"]
    assert "the test says so" in aborted["thrown"]
    assert timed_out["code"] == -32001
    assert after["content"][0]["text"] == "after"
    assert report["stderr"].count("the guest is gone") == 2


def test_client_is_told_of_an_installed_skill(ts_client, server_command, tmp_path):
    report = drive(
        ts_client,
        [*server_command, str(tmp_path)],
        {"do": "tools"},
        {"do": "wait_tools_changed", "touch": str(tmp_path / "late" / "current")},
        {"do": "tools"},
    )
    before, _, after = report["outcomes"]
    assert {tool["name"] for tool in after} - {tool["name"] for tool in before} == {"late__echo"}
    assert report["tools_changed"] == 1
