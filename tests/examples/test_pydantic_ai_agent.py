"""`examples/pydantic_ai_agent.py`, with the real `pydantic-ai-slim` and its models for tests."""

import asyncio

import pytest
from pydantic_ai import Agent, BinaryContent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.models.test import TestModel


@pytest.fixture(scope="module")
def example(load_script):
    return load_script("examples/pydantic_ai_agent.py")


def converse(example, runtime, tools, *calls: tuple[str, dict]) -> list:
    """Let a scripted model make one call a turn; return the parts of all messages."""

    def speak(messages, info):
        turn = sum(isinstance(message, ModelResponse) for message in messages)
        return ModelResponse([ToolCallPart(*calls[turn]) if turn < len(calls) else TextPart("Done.")])

    agent = Agent(FunctionModel(speak), tools=example.pydantic_ai_tools(runtime, tools))
    run = asyncio.run(agent.run("Please."))
    assert run.output == "Done."
    return [part for message in run.all_messages() for part in message.parts]


def only(parts: list, kind: type) -> list:
    return [part for part in parts if isinstance(part, kind)]


def test_the_model_is_offered_names_descriptions_and_schemas(example, runtime, tools):
    model = TestModel(call_tools=[])
    asyncio.run(Agent(model, tools=example.pydantic_ai_tools(runtime, tools)).run("Please."))
    offered = model.last_model_request_parameters.function_tools
    assert [tool.name for tool in offered] == ["jwt__sign", "jwt__verify", "image__convert"]
    assert offered[0].description == tools[0].description
    assert offered[0].parameters_json_schema["properties"] == tools[0].input_schema["properties"]


def test_a_call_runs_with_exactly_the_arguments_that_the_model_gave(example, runtime, tools):
    parts = converse(example, runtime, tools, ("jwt__sign", {"claims": {"sub": "42"}}))
    assert runtime.calls == [("jwt.sign", {"claims": {"sub": "42"}})]
    (returned,) = only(parts, ToolReturnPart)
    assert returned.content == '{"token":"h.p.s"}'
    assert returned.metadata.data == {"token": "h.p.s"}


def test_wrong_arguments_are_tried_again_and_other_failures_told(example, runtime, tools):
    parts = converse(
        example,
        runtime,
        tools,
        ("jwt__sign", {}),
        ("jwt__sign", {"claims": {}}),
        ("jwt__verify", {"token": "a.b.c"}),
    )
    retried, signed, failed = only(parts, ToolReturnPart)
    assert retried.outcome == "retried"
    assert "'claims' is missing" in retried.content
    assert (signed.outcome, signed.content) == ("success", '{"token":"h.p.s"}')
    assert failed.content == "Error: The token has expired."


def test_a_failure_of_silo_is_an_answer_with_its_code_and_hint(example, runtime, tools):
    del runtime.answers["jwt.verify"]
    parts = converse(example, runtime, tools, ("jwt__verify", {"token": "a.b.c"}))
    (returned,) = only(parts, ToolReturnPart)
    assert returned.content.startswith("Error [tool-unknown]")
    assert "Hint: did you mean" in returned.content


def test_pictures_are_shown_to_the_model(example, runtime, tools):
    parts = converse(example, runtime, tools, ("image__convert", {"image": "aGk=", "format": "png"}))
    shown = [
        item
        for part in only(parts, UserPromptPart)
        if not isinstance(part.content, str)
        for item in part.content
        if isinstance(item, BinaryContent)
    ]
    assert [(item.data, item.media_type) for item in shown] == [(b"\x89PNG...", "image/png")]


def test_the_program_prints_the_answer(example, runtime, capsys):
    asyncio.run(example.main(runtime))
    assert capsys.readouterr().out == 'Here it is: {"token":"h.p.s"}\n'
