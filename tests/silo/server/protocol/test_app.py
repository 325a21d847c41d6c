"""The server through the official client, in memory, in both protocol eras."""

from __future__ import annotations

import json

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import Client, MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, Implementation

from silo.errors import ConfigInvalid
from silo.remedies import LIST_TOOLS
from silo.server.engine import ServerOptions
from silo.server.protocol.app import build_server
from silo.testing import PATIENCE_S

pytestmark = pytest.mark.anyio

OPTIONS = ServerOptions(version="0.0.test")


def connect(engine, mode, options=OPTIONS, **kwargs) -> Client:
    return Client(build_server(engine, options), mode=mode, **kwargs)


def text_of(result) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


async def test_server_introduces_itself_and_says_that_its_lists_change(engine, mode):
    async with connect(engine, mode) as client:
        assert client.server_info.name == "silo"
        assert client.server_info.version == "0.0.test"
        assert "silo_search" in client.instructions
        assert client.server_capabilities.tools.list_changed is True
        assert client.server_capabilities.resources.list_changed is True


async def test_small_set_of_tools_is_listed_beside_search_and_execute(engine, mode):
    async with connect(engine, mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools)[:2] == ["silo_execute", "silo_search"]
    assert set(tools) - {"silo_execute", "silo_search"} == {
        f"demo__{name}" for name in ("add", "crash", "echo", "fail", "hang", "noisy", "picture", "steps")
    }
    add = tools["demo__add"]
    assert add.title == "Add"
    assert add.input_schema["required"] == ["a", "b"]
    assert add.output_schema == {
        "type": "object",
        "properties": {"result": {"type": "integer"}},
        "required": ["result"],
    }
    assert add.annotations.read_only_hint is True
    assert add.annotations.destructive_hint is False
    assert add.annotations.idempotent_hint is True
    assert add.annotations.open_world_hint is False
    assert add.meta == {"dev.silo/tool": "demo.add", "dev.silo/requires_approval": False}
    assert tools["demo__fail"].description.endswith("Asks a person for approval before it runs.")
    assert tools["silo_search"].annotations.read_only_hint is True
    assert tools["silo_execute"].annotations.destructive_hint is True


@pytest.mark.parametrize(
    ("expose", "budget", "direct"),
    [("auto", 4000, True), ("auto", 400, False), ("direct", 0, True), ("router", 100_000, False)],
)
async def test_tools_over_the_budget_are_reached_through_search_only(engine, mode, expose, budget, direct):
    options = ServerOptions(version="0", expose=expose, direct_budget_tokens=budget)
    async with connect(engine, mode, options) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert ("demo__add" in names) is direct
        assert names[:2] == ["silo_execute", "silo_search"]
        # A client can call a tool that isn't listed: it may know the name from a search.
        result = await client.call_tool("demo__add", {"a": 1, "b": 2})
    assert text_of(result) == "3"


async def test_pages_of_tools_hold_each_tool_once(engine, mode):
    async with connect(engine, mode, ServerOptions(version="0", page_size=3)) as client:
        names, cursor = [], None
        for _ in range(4):
            page = await client.list_tools(cursor=cursor)
            names += [tool.name for tool in page.tools]
            cursor = page.next_cursor
    assert cursor is None
    assert len(names) == len(set(names)) == 10


@pytest.mark.parametrize("cursor", ["", "nonsense", "MQ==", "\u00e9", "x" * 5000, "MTo=="])
async def test_foreign_cursor_is_a_parameter_error_not_a_crash(engine, mode, cursor):
    async with connect(engine, mode) as client:
        for method in (client.list_tools, client.list_resources, client.list_resource_templates):
            with pytest.raises(MCPError) as caught:
                await method(cursor=cursor)
            assert caught.value.code == INVALID_PARAMS


async def test_search_answer_is_enough_to_call_the_tool(engine, mode):
    async with connect(engine, mode) as client:
        await client.list_tools()
        found = await client.call_tool("silo_search", {"query": "add numbers", "limit": 1})
        (match,) = found.structured_content["tools"]
        assert match == {
            "tool": "demo.add",
            "summary": "Add two numbers.",
            "arguments": "a: integer, b: integer",
            "approval": "none",
            "why": ["description: add"],
            "siblings": ["crash", "echo", "fail"],
        }
        assert json.loads(text_of(found).splitlines()[1]) == match
        called = await client.call_tool("silo_execute", {"tool": match["tool"], "arguments": {"a": 20, "b": 22}})
    assert called.structured_content == {"result": 42}
    assert engine.searches == [("add numbers", 1)]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "'query' must be"),
        ({"query": 5}, "'query' must be"),
        ({"queries": "add"}, "'queries' must be"),
        ({"queries": []}, "'queries' must be"),
        ({"queries": ["add"] * 9}, "'queries' must be"),
        ({"queries": ["add", 5]}, "'queries' must hold"),
        ({"query": "add", "queries": ["add"]}, "both given"),
        ({"query": "x", "limit": 0}, "'limit' must be"),
        ({"query": "x", "limit": 21}, "'limit' must be"),
        ({"query": "x", "limit": True}, "'limit' must be"),
        ({"query": "x", "limit": "3"}, "'limit' must be"),
        ({"query": "x", "skill": 3}, "'skill' must be"),
        ({"query": "x", "detail": "all"}, "'detail' must be"),
        ({"query": "x", "detail": ["full"]}, "'detail' must be"),
        ({"query": "x", "k": 3}, "no argument 'k'"),
    ],
)
async def test_senseless_search_says_what_is_wrong_and_searches_nothing(engine, mode, arguments, complaint):
    async with connect(engine, mode) as client:
        result = await client.call_tool("silo_search", arguments)
    assert result.is_error
    assert text_of(result).startswith("error [arguments-invalid]: ")
    assert complaint in text_of(result)
    assert engine.searches == []


@pytest.mark.parametrize("name", ["demo__echo", "demo.echo"])
async def test_tool_is_called_under_either_name(engine, mode, name):
    async with connect(engine, mode) as client:
        result = await client.call_tool(name, {"text": "hi", "none": None})
    assert text_of(result) == "hi"
    assert result.structured_content == {"text": "hi", "none": None}
    assert [(tool, arguments) for tool, arguments, _ in engine.calls] == [("demo.echo", {"text": "hi", "none": None})]


async def test_arguments_left_out_are_an_empty_object(engine, mode):
    async with connect(engine, mode) as client:
        await client.call_tool("demo__echo")
        await client.call_tool("silo_execute", {"tool": "demo.echo"})
        await client.call_tool("silo_execute", {"tool": "demo__echo", "arguments": None})
    assert [(tool, arguments) for tool, arguments, _ in engine.calls] == [("demo.echo", {})] * 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "'tool' must be the id"),
        ({"tool": ""}, "'tool' must be the id"),
        ({"tool": ["demo.echo"]}, "'tool' must be the id"),
        ({"tool": "demo.echo", "arguments": '{"a": 1}'}, "give the object itself"),
        ({"tool": "demo.echo", "arguments": [1]}, "must be an object, not list"),
        ({"tool": "demo.echo", "a": 1}, "goes inside 'arguments'"),
        ({"tool": "silo_execute", "arguments": {}}, "call silo_execute directly"),
    ],
)
async def test_senseless_execute_says_what_is_wrong_and_calls_nothing(engine, mode, arguments, complaint):
    async with connect(engine, mode) as client:
        result = await client.call_tool("silo_execute", arguments)
    assert result.is_error
    assert complaint in text_of(result)
    assert engine.calls == []


async def test_call_names_its_caller(engine, mode):
    who = Implementation(name="Some\x1b[31mClient", version="1.2")
    async with connect(engine, mode, client_info=who) as client:
        await client.call_tool("demo__echo")
    caller = engine.calls[0][2]
    assert caller.kind == "mcp"
    assert caller.client == "Some[31mClient 1.2"


async def test_result_carries_facts_about_its_run(engine, mode):
    async with connect(engine, mode) as client:
        result = await client.call_tool("demo__echo")
    assert result.meta["dev.silo/isolation"] == "microvm"
    assert result.meta["dev.silo/timing"] == {"run": 0.003123, "total": 0.01}
    assert result.meta["dev.silo/guest"]["kernel"] == "6.1.0"


async def test_picture_comes_as_an_image(engine, mode, fakes):
    async with connect(engine, mode) as client:
        (block,) = (await client.call_tool("demo__picture")).content
    assert block.type == "image"
    assert block.mime_type == "image/png"


async def test_unknown_tool_is_a_result_with_the_nearest_name(engine, mode):
    async with connect(engine, mode) as client:
        for result in (
            await client.call_tool("demo__ecco", {}),
            await client.call_tool("silo_execute", {"tool": "demo.ecco"}),
        ):
            assert result.is_error
            assert "error [tool-unknown]" in text_of(result)
            assert "did you mean 'demo.echo'?" in text_of(result)


async def test_a_name_that_nothing_is_near_to_leads_a_model_to_the_search_and_not_to_a_command_line(engine, mode):
    engine.hint = LIST_TOOLS
    async with connect(engine, mode) as client:
        result = await client.call_tool("silo_execute", {"tool": "nope.nope"})
    assert "error [tool-unknown]" in text_of(result)
    assert "silo_search" in text_of(result)
    assert "`silo " not in text_of(result)


async def test_failure_of_a_skill_tells_the_model_what_happened(engine, mode):
    async with connect(engine, mode) as client:
        result = await client.call_tool("demo__fail")
    lines = text_of(result).splitlines()
    assert result.is_error
    assert lines[0] == "error [skill-exception]: ZeroDivisionError: division by zero"
    assert lines[1] == "hint: the skill's author can fix it"
    assert "boom" in lines
    assert 'File "skill.py", line 3, in fail' in lines
    assert result.meta["dev.silo/error"] == {
        "code": "skill-exception",
        "message": "ZeroDivisionError: division by zero",
        "hint": "the skill's author can fix it",
    }


async def test_text_of_an_unexpected_exception_stays_out_of_the_answer(engine, mode, caplog):
    async with connect(engine, mode) as client:
        result = await client.call_tool("demo__crash")
        again = await client.call_tool("demo__echo", {"text": "still here"})
    assert result.is_error
    assert "SECRET-IN-EXCEPTION" not in result.model_dump_json()
    assert result.meta["dev.silo/incident"] in caplog.text
    assert "SECRET-IN-EXCEPTION" in caplog.text
    assert text_of(again) == "still here"


async def test_unreadable_installed_skills_are_a_protocol_error_with_the_hint(engine, mode):
    engine.failure = ConfigInvalid("silo.toml:1: not TOML", hint="fix line 1")
    async with connect(engine, mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.list_tools()
        assert caught.value.code == INTERNAL_ERROR
        assert caught.value.message == "silo.toml:1: not TOML [config-invalid]"
        assert caught.value.data == {"code": "config-invalid", "hint": "fix line 1"}
        result = await client.call_tool("silo_search", {"query": "x"})
        assert text_of(result) == "error [config-invalid]: silo.toml:1: not TOML\nhint: fix line 1"


async def test_text_of_an_unexpected_exception_stays_out_of_lists(engine, mode, caplog):
    engine.failure = RuntimeError("SECRET-IN-EXCEPTION")
    async with connect(engine, mode) as client:
        for ask in (client.list_tools, client.list_resources, lambda: client.read_resource("skill://demo/SKILL.md")):
            with pytest.raises(MCPError) as caught:
                await ask()
            assert caught.value.code == INTERNAL_ERROR
            assert "SECRET" not in f"{caught.value.message}{caught.value.data}"
    assert "SECRET-IN-EXCEPTION" in caplog.text


async def test_progress_arrives_in_order_and_only_grows(engine, mode):
    seen = []

    async def on_progress(progress, total, message):
        seen.append((progress, total, message))

    async with connect(engine, mode) as client:
        result = await client.call_tool("demo__steps", progress_callback=on_progress)
        with anyio.fail_after(PATIENCE_S):
            while len(seen) < 4:
                await anyio.lowlevel.checkpoint()
    assert text_of(result) == "done"
    assert [message for _, _, message in seen] == ["starting a microVM", "step 1", "step 2", "step 3"]
    assert [progress for progress, _, _ in seen] == sorted({progress for progress, _, _ in seen})


async def test_cancelled_call_cancels_the_engine_and_leaves_the_server_working(engine, mode):
    async with connect(engine, mode) as client:
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "demo__hang")
                await engine.running.wait()
                tasks.cancel_scope.cancel()
            await engine.cancelled.wait()
        assert text_of(await client.call_tool("demo__echo", {"text": "after"})) == "after"


async def test_client_that_gives_up_waiting_cancels_the_engine(engine, mode):
    async with connect(engine, mode) as client:
        with pytest.raises(MCPError):
            await client.call_tool("demo__hang", read_timeout_seconds=0.05)
        with anyio.fail_after(PATIENCE_S):
            await engine.cancelled.wait()


async def test_manual_of_a_skill_is_a_resource(engine, mode, fakes, tmp_path):
    (tmp_path / "SKILL.md").write_text("---\nname: other\n---\n# From the file\n")
    engine.install(fakes.make_skill("filed", fakes.make_tool("filed.run"), folder=tmp_path))
    async with connect(engine, mode) as client:
        resources = (await client.list_resources()).resources
        assert [resource.uri for resource in resources] == ["skill://demo/SKILL.md", "skill://filed/SKILL.md"]
        assert {resource.mime_type for resource in resources} == {"text/markdown"}
        (contents,) = (await client.read_resource("skill://filed/SKILL.md")).contents
    assert contents.mime_type == "text/markdown"
    assert "# From the file" in contents.text
    assert "name: other" not in contents.text


@pytest.mark.parametrize("uri", ["skill://nope/SKILL.md", "skill://demo/../x", "file:///etc/passwd", ""])
async def test_unknown_resource_is_a_parameter_error(engine, mode, uri):
    async with connect(engine, mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource(uri)
    assert caught.value.code == INVALID_PARAMS


async def test_there_are_no_prompts(engine, mode):
    async with connect(engine, mode) as client:
        assert client.server_capabilities.prompts is None
        with pytest.raises(MCPError) as caught:
            await client.list_prompts()
    assert caught.value.code == METHOD_NOT_FOUND


async def test_handshake_session_is_notified_when_a_skill_is_installed(engine, fakes):
    news = anyio.Event()
    heard = []

    async def on_message(message):
        heard.append(message.method)
        if len(heard) == 2:
            news.set()

    async with connect(engine, "legacy", message_handler=on_message) as client:
        await client.list_tools()
        engine.install(fakes.make_skill("late", fakes.make_tool("late.echo")), echo=fakes.echo)
        with anyio.fail_after(PATIENCE_S):
            names = [tool.name for tool in (await client.list_tools()).tools]
            await news.wait()
    assert "late__echo" in names
    assert heard == ["notifications/tools/list_changed", "notifications/resources/list_changed"]


async def test_modern_listener_is_notified_when_a_skill_is_removed(engine):
    async with connect(engine, "auto") as client:
        await client.list_tools()
        async with client.listen(tools_list_changed=True) as events:
            engine.remove("demo")
            await client.list_tools()
            with anyio.fail_after(PATIENCE_S):
                event = await anext(aiter(events))
        names = [tool.name for tool in (await client.list_tools()).tools]
    assert type(event).__name__ == "ToolsListChanged"
    assert names == ["silo_execute", "silo_search"]


async def test_idle_server_notices_a_new_skill(engine, fakes, mode):
    options = ServerOptions(version="0", poll_s=0.01)
    news = anyio.Event()

    async def on_message(message):
        if message.method == "notifications/tools/list_changed":
            news.set()

    async with connect(engine, mode, options, message_handler=on_message) as client:
        await client.list_tools()
        async with anyio.create_task_group() as tasks:
            if mode == "auto":

                async def listen():
                    async with client.listen(tools_list_changed=True) as events:
                        async for _ in events:
                            news.set()

                tasks.start_soon(listen)
                await anyio.wait_all_tasks_blocked()
            engine.install(fakes.make_skill("late", fakes.make_tool("late.echo")))
            with anyio.fail_after(PATIENCE_S):
                await news.wait()
            tasks.cancel_scope.cancel()
        assert "late__echo" in [tool.name for tool in (await client.list_tools()).tools]


async def test_installed_skill_is_seen_by_the_very_next_request(engine, fakes, mode):
    options = ServerOptions(version="0", poll_s=3600)
    async with connect(engine, mode, options) as client:
        await client.list_tools()
        engine.install(fakes.make_skill("late", fakes.make_tool("late.echo")), echo=fakes.echo)
        assert "late__echo" in [tool.name for tool in (await client.list_tools()).tools]


@pytest.mark.parametrize("failure", [ConfigInvalid("m", hint="h"), RuntimeError("unexpected")])
async def test_failing_look_at_what_is_installed_does_not_end_the_server(engine, fakes, mode, failure, caplog):
    options = ServerOptions(version="0", poll_s=0.001)
    async with connect(engine, mode, options) as client:
        await client.list_tools()
        engine.failure = failure
        engine.install(fakes.make_skill("late", fakes.make_tool("late.echo")), echo=fakes.echo)
        with anyio.fail_after(PATIENCE_S):
            while "looking for" not in caplog.text and "cannot look" not in caplog.text:
                await anyio.lowlevel.checkpoint()
        engine.failure = None
        assert "late__echo" in [tool.name for tool in (await client.list_tools()).tools]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["tool", "arguments", "query", "queries", "limit", "skill", "detail"]) | st.text(max_size=5),
    JSON,
    max_size=4,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["silo_search", "silo_execute", "demo__echo"]) | st.text(max_size=10), arguments=ARGUMENTS)
def test_any_arguments_get_a_result_and_never_an_internal_error(fakes, mode, name, arguments):
    async def ask():
        async with connect(fakes.demo_engine(), mode) as client:
            return await client.call_tool(name, arguments)

    result = anyio.run(ask)
    assert result.content
    assert "internal-error" not in text_of(result)
