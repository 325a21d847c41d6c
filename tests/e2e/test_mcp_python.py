"""The official Python client with the real `silo mcp serve` as its child process, in both eras of the protocol."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import resource
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import jsonschema
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from silo.testing import PATIENCE_S

pytestmark = pytest.mark.anyio

BOTH_ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])
WORDS = "one,two\n1,2\n3,4\n"


@pytest.fixture
def connect(silo, tmp_path):
    """Open a client: `async with connect(mode) as client`; what the server says on stderr goes to a file."""

    @asynccontextmanager
    async def open_client(mode: str = "auto"):
        program, *arguments = silo.command
        server = StdioServerParameters(
            command=program, args=[*arguments, "mcp", "serve"], env=dict(silo.environ), cwd=tmp_path
        )
        with open(tmp_path / "stderr", "w") as errors, anyio.fail_after(PATIENCE_S):
            async with Client(stdio_client(server, errors), mode=mode) as client:
                yield client

    return open_client


@pytest.fixture
def server_pid(processes):
    return lambda: processes.server_of(os.getpid())


def error_code(result) -> str:
    assert result.is_error, result
    return result.meta["dev.silo/error"]["code"]


def test_tools_are_listed_for_little_more_work_than_loading_the_protocol_takes(serve, silo):
    """Measured in processor time, because every client waits for it. On an idle machine it is well below a second."""

    def spent_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # of those that were waited for
        return usage.ru_utime + usage.ru_stime

    ratios = []
    while not ratios or (min(ratios) >= 2 and len(ratios) < 5):
        before = spent_s()
        subprocess.run([sys.executable, "-c", "import anyio, mcp.types"], env=dict(silo.environ), check=True)
        loaded = spent_s()
        with serve() as server:
            server.handshake()
            server.send({"id": 1, "method": "tools/list"})
            listed = server.receive()["result"]["tools"]
            server.process.communicate(timeout=PATIENCE_S)
        ratios.append((spent_s() - loaded) / (loaded - before))
    names = {tool["name"] for tool in listed}
    assert {"silo_search", "silo_execute", "jwt__sign", "table__query", "tricky__add"} <= names
    assert min(ratios) < 2, ratios


@BOTH_ERAS
async def test_tool_is_found_executed_and_called_directly(connect, mode):
    async with connect(mode) as client:
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
        found = await client.call_tool("silo_search", {"query": "sign a token", "limit": 1})
        assert [tool["tool"] for tool in found.structured_content["tools"]] == ["jwt.sign"]
        signed = await client.call_tool("silo_execute", {"tool": "jwt.sign", "arguments": {"claims": {"sub": "42"}}})
        checked = await client.call_tool("jwt__verify", {"token": signed.structured_content["token"]})
        assert checked.structured_content["claims"]["sub"] == "42"
        assert checked.meta["dev.silo/isolation"] == "microvm"
        assert checked.meta["dev.silo/guest"]["kernel"] != platform.release()


async def test_structured_content_fits_the_output_schema_that_was_listed(connect):
    async with connect() as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        token = (await client.call_tool("jwt__sign", {"claims": {"sub": "42"}})).structured_content["token"]
        calls = {
            "jwt__sign": {"claims": {"sub": "42"}},
            "jwt__decode_unverified": {"token": token},
            "table__query": {"data": base64.b64encode(WORDS.encode()).decode(), "sql": "SELECT one FROM data"},
            "tricky__add": {"a": 1},
            "tricky__steps": {"count": 1},
        }
        for name, arguments in calls.items():
            schema = listed[name].output_schema
            assert schema is not None, name
            result = await client.call_tool(name, arguments)
            jsonschema.Draft202012Validator(schema).validate(result.structured_content)
            jsonschema.Draft202012Validator(listed[name].input_schema).validate(arguments)


@BOTH_ERAS
async def test_progress_from_inside_the_guest_arrives_before_the_result(connect, mode):
    seen = []

    async def on_progress(progress, total, message):
        seen.append((progress, total, message))

    async with connect(mode) as client:
        result = await client.call_tool("tricky__steps", {"count": 3}, progress_callback=on_progress)
    assert result.structured_content == {"result": [1, 2, 3]}
    # Reports may be merged on the way; the order and the first and last are certain.
    assert seen == sorted(seen)
    assert {report[2] for report in seen} <= {"step 1", "step 2", "step 3"}
    assert (1.0, 3.0, "step 1") in seen


@BOTH_ERAS
async def test_call_that_the_client_cancels_leaves_no_guest_and_a_server_that_serves(
    connect, mode, server_pid, processes
):
    begun = anyio.Event()

    async def on_progress(progress, total, message):
        begun.set()

    async with connect(mode) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.call_tool("tricky__hang", progress_callback=on_progress))
            await begun.wait()
            guests = processes.guests(server_pid())
            tasks.cancel_scope.cancel()
        await anyio.to_thread.run_sync(processes.wait_gone, guests)
        assert not processes.guests(server_pid())
        assert (await client.call_tool("tricky__add", {"a": 1})).structured_content == {"result": 2}


FAILURES = {
    "fail": "skill-exception",
    "leave": "skill-exited",
    "vanish": "skill-exited",
    "crash": "skill-crashed",
    "flood": "output-flood",
    "gorge": "skill-out-of-memory",
    "not_a_number": "result-invalid",
    "grab": "secret-undeclared",
    "wants_more": "secret-missing",
}


async def test_each_way_to_fail_has_its_code_and_a_hint_and_the_server_serves_on(
    connect, server_pid, processes, silo, settings
):
    silo.configure(f"{settings}[approval]\nheadless = true\n")  # else a missing secret is asked for
    async with connect() as client:
        for tool, code in FAILURES.items():
            result = await client.call_tool(f"tricky__{tool}")
            assert error_code(result) == code, tool
            assert result.meta["dev.silo/error"]["hint"], tool
            assert result.content[0].text.startswith(f"error [{code}]: "), tool
            assert not processes.guests(server_pid()), tool
        assert error_code(await client.call_tool("hasty__hang")) == "timeout"
        assert not processes.guests(server_pid())
        too_large = await client.call_tool("tricky__big_text", {"kib": 5000})
        assert error_code(too_large) == "result-too-large"
        reported = await client.call_tool("tricky__report_failure")
        assert reported.is_error
        assert reported.content[0].text.startswith("The shop is closed.")
        big = await client.call_tool("tricky__big_text", {"kib": 1000})
        assert len(big.content[0].text) == 1000 * 1024
        assert (await client.call_tool("tricky__later", {"text": "fine"})).content[0].text == "fine"


async def test_arguments_that_do_not_fit_are_named_and_start_no_guest(connect, silo):
    async with connect() as client:
        missing = await client.call_tool("tricky__add", {"b": 1})
        wrong = await client.call_tool("tricky__add", {"a": "many"})
        below = await client.call_tool("tricky__add", {"a": 1, "b": -1})
        unknown = await client.call_tool("tricky__add", {"a": 1, "c": 1})
    for result, word in ((missing, "'a'"), (wrong, "integer"), (below, "0"), (unknown, "'c'")):
        assert error_code(result) == "arguments-invalid"
        assert word in result.content[0].text
    last = silo.run("audit", "show", "--json").json["records"][-4:]
    assert [record["event"] for record in last] == ["refused"] * 4


async def test_unknown_tool_is_answered_with_the_nearest_names(connect):
    async with connect() as client:
        misspelt = await client.call_tool("silo_execute", {"tool": "jwt.sing", "arguments": {}})
        no_skill = await client.call_tool("silo_execute", {"tool": "jtw.sign", "arguments": {}})
    assert error_code(misspelt) == "tool-unknown"
    assert "jwt.sign" in misspelt.content[0].text
    assert error_code(no_skill) == "skill-unknown"
    assert "jwt" in no_skill.content[0].text


async def test_tool_that_needs_a_person_is_refused_where_there_is_none(connect, server_pid, processes, silo, settings):
    silo.configure(f"{settings}[approval]\nheadless = true\n")
    async with connect() as client:
        (listed,) = [tool for tool in (await client.list_tools()).tools if tool.name == "tricky__dangerous"]
        assert "approval" in listed.description
        refused = await client.call_tool("tricky__dangerous")
        assert error_code(refused) == "approval-required"
        assert "SILO_APPROVAL_REQUIRED" in refused.content[0].text
        assert not processes.guests(server_pid())


async def test_file_comes_as_base64_or_as_a_link_into_an_allowed_folder_and_from_nowhere_else(
    connect, shared, tmp_path
):
    (shared / "sales.csv").write_text(WORDS)
    outside = tmp_path / "secret.csv"
    outside.write_text(WORDS)
    (shared / "link.csv").unlink(missing_ok=True)
    (shared / "link.csv").symlink_to(outside)
    (shared / "folder").mkdir(exist_ok=True)
    sha256 = hashlib.sha256(WORDS.encode()).hexdigest()
    async with connect() as client:
        inline = await client.call_tool("tricky__measure", {"data": base64.b64encode(WORDS.encode()).decode()})
        assert inline.structured_content["sha256"] == sha256
        linked = await client.call_tool("tricky__measure", {"data": {"uri": (shared / "sales.csv").as_uri()}})
        assert linked.structured_content == {"name": "sales.csv", "size": len(WORDS), "sha256": sha256}
        for path in (
            outside,
            shared / "link.csv",
            shared / "folder",
            shared / ".." / "secret.csv",
            Path("/etc/passwd"),
        ):
            refused = await client.call_tool("tricky__measure", {"data": {"uri": f"file://{path}"}})
            assert error_code(refused) == "file-refused", path


async def test_file_that_a_tool_returns_comes_as_content_of_its_kind(connect):
    async with connect() as client:
        result = await client.call_tool("tricky__picture")
    (image,) = [block for block in result.content if block.type == "image"]
    assert image.mime_type == "image/png"
    assert base64.b64decode(image.data).startswith(b"\x89PNG")


async def test_secrets_reach_the_tool_that_declared_them_and_no_answer(connect, silo):
    async with connect() as client:
        prints = (await client.call_tool("tricky__fingerprints")).structured_content["result"]
        leaked = await client.call_tool("tricky__leak")
    assert prints == [hashlib.sha256(value.encode()).hexdigest() for value in silo.secrets.values()]
    assert silo.secrets["FIRST_KEY"] not in leaked.model_dump_json()
    assert leaked.content[0].text == "the key is [redacted:FIRST_KEY]"


async def test_every_call_gets_a_guest_that_nobody_used_before(connect):
    async with connect() as client:
        seen = [(await client.call_tool("tricky__look_around")).structured_content for _ in range(3)]
    assert [one["kept"] for one in seen] == ["False"] * 3
    assert len({one["uuid"] for one in seen}) == len({one["random"] for one in seen}) == 3


async def test_twenty_calls_at_once_are_all_answered(connect, server_pid, processes):
    answers = {}

    async with connect() as client:

        async def call(number):
            signed = await client.call_tool("jwt__sign", {"claims": {"sub": str(number)}})
            token = signed.structured_content["token"]
            payload = token.split(".")[1]
            answers[number] = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(call, number)
        assert not processes.guests(server_pid())
    assert sorted(answers) == list(range(20))
    assert all(f'"sub":"{number}"'.encode() in payload for number, payload in answers.items())


async def test_fifty_calls_in_a_row_leave_nothing_behind(connect, silo, settings, server_pid, processes, list_files):
    silo.configure(settings.replace("warm = 0", "warm = 1"))  # the default: clones come and go beside the calls as well
    folders = (silo.home, Path(silo.environ["TMPDIR"]))

    def traces(pid: int) -> dict[str, object]:
        return {
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": len(os.listdir(f"/proc/{pid}/task")),
            "files": list_files(folders),
            "mounts": Path("/proc/self/mountinfo").read_text(),
            "guests": len(processes.guests(pid)),
        }

    async with connect() as client:

        async def add(number: int) -> None:
            answer = await client.call_tool("tricky__add", {"a": number})
            assert answer.structured_content == {"result": number + 1}

        async def settled(wanted: dict[str, object] | None) -> dict[str, object]:
            # A clone that is kept warm comes to be after the answer; only with it is the picture whole.
            last: dict[str, object] = {}
            with anyio.move_on_after(PATIENCE_S):
                while last != (found := traces(server_pid())) or (wanted is not None and found != wanted):
                    last = found
                    await anyio.sleep(0.5)
            return last

        for number in range(3):
            await add(number)
        before = await settled(None)
        for number in range(50):
            await add(number)
        assert await settled(before) == before


def test_stdout_carries_nothing_but_the_protocol(raw_server):
    raw_server.call(1, "tricky__chat")
    raw_server.call(2, "tricky__fail")
    raw_server.call(3, "tricky__no_such_tool")
    answered = {}
    while len(answered) < 3:
        message = raw_server.receive()
        if "id" in message:
            answered[message["id"]] = message["result"]
    assert answered[1]["content"][0]["text"] == "done"
    assert {answered[2]["isError"], answered[3]["isError"]} == {True}
    rest, _ = raw_server.process.communicate(timeout=PATIENCE_S)
    assert rest == b""


@pytest.mark.parametrize(("number", "status"), [(None, 0), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_server_that_is_told_to_end_is_gone_with_its_guests(raw_server, processes, number, status):
    raw_server.hang()
    guests = processes.guests(raw_server.process.pid)
    if number is None:
        raw_server.process.stdin.close()
    else:
        raw_server.process.send_signal(number)
    assert raw_server.process.wait(timeout=PATIENCE_S) == status
    processes.wait_gone(guests)  # long before the deadline of the call


def test_guests_of_a_server_that_is_killed_end_with_it(raw_server, processes):
    raw_server.hang()
    guests = processes.guests(raw_server.process.pid)
    raw_server.process.kill()
    processes.wait_gone(guests)
