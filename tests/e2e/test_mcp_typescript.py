"""The TypeScript SDK, an independent implementation of the protocol, with the real `silo mcp serve` as its child."""

from __future__ import annotations

import base64
import json
import os
import platform
import subprocess

import pytest

from silo.testing import PATIENCE_S


@pytest.fixture
def drive(ts_client, silo):
    """Let the client carry out steps against its own server, and return the results."""

    def run(*steps: dict) -> list:
        program, *arguments = silo.command
        plan = {"command": program, "args": [*arguments, "mcp", "serve"], "env": dict(silo.environ), "steps": steps}
        done = subprocess.run(
            ["node", "client.mjs"],
            cwd=ts_client,
            input=json.dumps(plan),
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["outcomes"]

    return run


def test_typescript_client_lists_searches_and_calls_tools_in_microvms(drive):
    table = base64.b64encode(b"city,visitors\nVienna,17\nGraz,4\n").decode()
    sql = "SELECT city FROM data ORDER BY visitors"
    tools, found, signed, executed, asked, picture = drive(
        {"do": "tools"},
        {"do": "call", "name": "silo_search", "arguments": {"query": "sign a token"}},
        {"do": "call", "name": "jwt__sign", "arguments": {"claims": {"sub": "42"}}},
        {"do": "call", "name": "silo_execute", "arguments": {"tool": "tricky.look_around"}},
        {"do": "call", "name": "table__query", "arguments": {"data": table, "sql": sql}},
        {"do": "call", "name": "tricky__picture"},
    )
    assert {"silo_search", "silo_execute", "jwt__sign", "table__query"} <= {tool["name"] for tool in tools}
    assert found["structuredContent"]["tools"][0]["tool"] == "jwt.sign"
    # The SDK checks structured content against the output schema that was listed, and throws if it does not fit.
    assert signed["structuredContent"]["token"].count(".") == 2
    assert signed["_meta"]["dev.silo/isolation"] == "microvm"
    assert executed["structuredContent"]["kernel"] not in ("", platform.release())
    assert "Graz" in asked["content"][0]["text"]
    assert base64.b64decode(picture["content"][0]["data"]).startswith(b"\x89PNG")


def test_typescript_client_sees_each_failure_as_a_result_with_its_code(drive):
    failures = {"fail": "skill-exception", "vanish": "skill-exited", "crash": "skill-crashed", "flood": "output-flood"}
    *failed, wrong, unknown = drive(
        *({"do": "call", "name": f"tricky__{tool}"} for tool in failures),
        {"do": "call", "name": "tricky__add", "arguments": {"a": "many"}},
        {"do": "call", "name": "silo_execute", "arguments": {"tool": "jwt.sing"}},
    )
    expected = [*failures.values(), "arguments-invalid", "tool-unknown"]
    assert [one["_meta"]["dev.silo/error"]["code"] for one in [*failed, wrong, unknown]] == expected
    assert {one["isError"] for one in [*failed, wrong, unknown]} == {True}
    assert "jwt.sign" in unknown["content"][0]["text"]


def test_typescript_client_gets_progress_and_an_abort_ends_the_guest(drive, silo):
    stepped, aborted, after = drive(
        {"do": "call", "name": "tricky__steps", "arguments": {"count": 3}},
        {"do": "call", "name": "tricky__hang", "abort_on_progress": True},
        {"do": "call", "name": "tricky__add", "arguments": {"a": 1}},
    )
    assert stepped["progress"][0] == {"progress": 1, "total": 3, "message": "step 1"}
    assert stepped["structuredContent"] == {"result": [1, 2, 3]}
    assert "the test says so" in aborted["thrown"]
    assert after["structuredContent"] == {"result": 2}
    ends = [one for one in silo.run("audit", "show", "--json").json["records"] if one["event"] == "end"]
    hung = [one for one in ends if one["tool"] == "tricky.hang"][-1]
    assert hung["outcome"] == "interrupted"  # and not `timeout`, as at its deadline
