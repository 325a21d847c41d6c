"""The programs under `examples/` with a real runtime instead of recordings: guests answer, and models are scripted."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel

from silo.runtime import Runtime

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run(silo):
    """Run an asynchronous function with a real runtime, and return its result."""

    def with_runtime(work):
        async def main():
            async with Runtime(environ=silo.environ) as runtime:
                return await work(runtime)

        return asyncio.run(main())

    return with_runtime


def load(name: str):
    """Import an example; annotations are looked up through `sys.modules`."""
    module_name = f"e2e_example_{name}"
    spec = importlib.util.spec_from_file_location(module_name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[module_name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_openai_tool_calls_are_answered_by_guests(run):
    example = load("openai_tools")
    calls = [
        ("call_1", "jwt__sign", {"claims": {"sub": "42"}}),
        ("call_2", "jwt__verify", {"token": "a.b.c"}),
        ("call_3", "jwt__sign", {}),
        ("call_4", "jwt__sing", {}),
    ]
    wanted = [
        {"id": identity, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for identity, name, arguments in calls
    ]
    message = {"role": "assistant", "content": None, "tool_calls": wanted}

    async def work(silo):
        return await example.main(silo, None), await example.main(silo, {"choices": [{"message": message}]})

    offered, answers = run(work)
    assert {"jwt__sign", "table__query"} <= {tool["function"]["name"] for tool in offered}
    assert [answer["tool_call_id"] for answer in answers] == [identity for identity, *_ in calls]
    signed, refused, wrong, unknown = (answer["content"] for answer in answers)
    assert json.loads(signed)["token"].count(".") == 2
    assert refused.startswith("Error: ")
    assert wrong.startswith("Error [arguments-invalid]")
    assert unknown.startswith("Error [tool-unknown]")
    assert "jwt.sign" in unknown


def test_anthropic_tool_uses_are_answered_by_guests(run):
    example = load("anthropic_tools")
    uses = [
        ("toolu_1", "jwt__sign", {"claims": {"sub": "42"}}),
        ("toolu_2", "tricky__picture", {}),
        ("toolu_3", "tricky__fail", {}),
    ]
    content = [{"type": "tool_use", "id": identity, "name": name, "input": given} for identity, name, given in uses]
    answer = run(lambda silo: example.main(silo, {"role": "assistant", "content": content}))
    signed, picture, failed = answer["content"]
    assert [one["tool_use_id"] for one in answer["content"]] == [identity for identity, *_ in uses]
    assert json.loads(signed["content"][0]["text"])["token"].count(".") == 2
    assert picture["content"][-1]["source"]["media_type"] == "image/png"
    assert failed["is_error"]
    assert "[skill-exception]" in failed["content"][0]["text"]


def test_langchain_agent_gets_answers_of_guests(run):
    example = load("langchain_agent")
    wanted = [
        ToolCall(name="jwt__sign", args={"claims": {"sub": "42"}}, id="call_1"),
        ToolCall(name="tricky__report_failure", args={}, id="call_2"),
    ]
    model = example.ScriptedModel(responses=[AIMessage("", tool_calls=wanted), AIMessage("Done.")])

    async def work(silo):
        return await example.ask(model, example.langchain_tools(silo, await silo.tools()), "Please.")

    signed, failed = [message for message in run(work) if isinstance(message, ToolMessage)]
    assert (signed.status, signed.artifact.isolation) == ("success", "microvm")
    assert signed.artifact.data["token"] in signed.text
    assert failed.status == "error"
    assert failed.text.startswith("The shop is closed.")


def test_pydantic_ai_agent_gets_answers_of_guests_and_mends_its_arguments(run):
    example = load("pydantic_ai_agent")
    calls = [("jwt__sign", {}), ("jwt__sign", {"claims": {"sub": "42"}})]

    def speak(messages, info):
        turn = sum(isinstance(message, ModelResponse) for message in messages)
        return ModelResponse([ToolCallPart(*calls[turn]) if turn < len(calls) else TextPart("Done.")])

    async def work(silo):
        agent = Agent(FunctionModel(speak), tools=example.pydantic_ai_tools(silo, await silo.tools()))
        return await agent.run("Please.")

    parts = [part for message in run(work).all_messages() for part in message.parts]
    retried, signed = [part for part in parts if isinstance(part, ToolReturnPart)]
    assert retried.outcome == "retried"
    assert signed.metadata.data["token"].count(".") == 2
    assert signed.metadata.isolation == "microvm"
