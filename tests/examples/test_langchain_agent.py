"""`examples/langchain_agent.py`, with the real `langchain-core` and its fake model."""

import asyncio

import pytest
from langchain_core.messages import AIMessage, ToolCall, ToolMessage


@pytest.fixture(scope="module")
def example(load_script):
    return load_script("examples/langchain_agent.py")


def converse(example, runtime, tools, *calls: tuple[str, dict]) -> list[ToolMessage]:
    """Let a scripted model make the calls in one turn; return the tool messages."""
    wanted = [ToolCall(name=name, args=args, id=f"call_{n}") for n, (name, args) in enumerate(calls)]
    model = example.ScriptedModel(responses=[AIMessage("", tool_calls=wanted), AIMessage("Done.")])
    messages = asyncio.run(example.ask(model, example.langchain_tools(runtime, tools), "Please."))
    assert messages[-1].text == "Done."
    return [message for message in messages if isinstance(message, ToolMessage)]


def test_tools_carry_their_names_descriptions_and_schemas(example, runtime, tools):
    wrapped = example.langchain_tools(runtime, tools)
    assert [tool.name for tool in wrapped] == ["jwt__sign", "jwt__verify", "image__convert"]
    assert wrapped[0].description == tools[0].description
    assert tools[0].input_schema.items() <= wrapped[0].tool_call_schema.items()


def test_a_call_runs_with_exactly_the_arguments_that_the_model_gave(example, runtime, tools):
    (message,) = converse(example, runtime, tools, ("jwt__sign", {"claims": {"sub": "42"}}))
    assert runtime.calls == [("jwt.sign", {"claims": {"sub": "42"}})]
    assert message.text == '{"token":"h.p.s"}'
    assert message.tool_call_id == "call_0"
    assert message.status == "success"
    assert message.artifact.data == {"token": "h.p.s"}


def test_files_are_named_for_the_model_and_kept_for_the_program(example, runtime, tools):
    (message,) = converse(example, runtime, tools, ("image__convert", {"image": "aGk=", "format": "png"}))
    assert "File: picture.png (image/png, 7 bytes)" in message.text
    assert [file.name for file in message.artifact.files] == ["picture.png", "table.csv"]


def test_failures_become_error_messages_that_the_model_can_act_on(example, runtime, tools):
    failed, refused = converse(example, runtime, tools, ("jwt__verify", {"token": "a.b.c"}), ("jwt__sign", {}))
    assert (failed.status, failed.text) == ("error", "The token has expired.")
    assert refused.status == "error"
    assert refused.text.startswith("[arguments-invalid]")
    assert "Hint: give claims" in refused.text


def test_a_model_that_never_stops_calling_is_stopped(example, runtime, tools):
    call = ToolCall(name="jwt__sign", args={"claims": {}}, id="call_1")
    model = example.ScriptedModel(responses=[AIMessage("", tool_calls=[call])])
    with pytest.raises(RuntimeError, match="no answer after 10 turns"):
        asyncio.run(example.ask(model, example.langchain_tools(runtime, tools), "Please."))


def test_the_program_prints_the_conversation(example, runtime, capsys):
    asyncio.run(example.main(runtime))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "human: Make me a token for user 42."
    assert printed[2] == 'tool: {"token":"h.p.s"}'
    assert printed[-1] == "ai: Here is your token."
