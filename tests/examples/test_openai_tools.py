"""`examples/openai_tools.py`, driven with recorded answers of models."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture(scope="module")
def example(load_script):
    return load_script("examples/openai_tools.py")


def recorded(name: str) -> dict:
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


def test_tools_are_offered_in_the_chat_format(example, runtime, tools):
    offered = asyncio.run(example.main(runtime, None))
    assert [tool["type"] for tool in offered] == ["function"] * 3
    function = offered[0]["function"]
    assert set(function) == {"name", "description", "parameters", "strict"}
    assert function["name"] == "jwt__sign"
    assert function["parameters"] == tools[0].input_schema
    assert function["strict"] is False
    json.dumps(offered)


def test_the_responses_format_has_the_same_fields_one_level_up(example, tools):
    chat, responses = example.chat_tools(tools), example.responses_tools(tools)
    assert responses == [{"type": "function", **tool["function"]} for tool in chat]


def test_two_calls_of_a_chat_message_are_answered_in_their_order(example, runtime):
    answers = asyncio.run(example.main(runtime, recorded("openai-chat-two-calls")))
    assert runtime.calls == [("jwt.sign", {"claims": {"sub": "42"}}), ("jwt.verify", {"token": "a.b.c"})]
    assert answers == [
        {"role": "tool", "tool_call_id": "call_abc123", "content": '{"token":"h.p.s"}'},
        {"role": "tool", "tool_call_id": "call_def456", "content": "Error: The token has expired."},
    ]


def test_calls_of_a_response_are_answered_and_its_other_items_left_alone(example, runtime):
    answers = asyncio.run(example.main(runtime, recorded("openai-responses-two-calls")))
    assert [answer["type"] for answer in answers] == ["function_call_output"] * 2
    assert [answer["call_id"] for answer in answers] == ["call_abc123", "call_def456"]
    assert answers[1]["output"].splitlines() == [
        "picture.png: 1 x 1 pixels",
        "File: picture.png (image/png, 7 bytes)",
        "File: table.csv (text/csv, 4 bytes)",
    ]


def test_what_a_model_gets_wrong_is_an_answer_that_tells_it_so(example, runtime):
    contents = [
        answer["content"] for answer in asyncio.run(example.main(runtime, recorded("openai-chat-bad-arguments")))
    ]
    assert "not JSON" in contents[0]
    assert "must be a JSON object" in contents[1]
    assert "[tool-unknown]" in contents[2]
    assert "did you mean 'jwt.sign'?" in contents[2]
    assert contents[3].startswith("picture.png")
    assert runtime.calls == [("jwt__sgin", {"claims": {}}), ("image.convert", {})]


def test_an_answer_without_calls_needs_no_messages(example, runtime):
    assert asyncio.run(example.main(runtime, recorded("openai-chat-text"))) == []


def test_a_name_too_long_for_the_api_is_shortened_and_still_finds_its_tool(example, runtime, tools):
    long = [replace(tools[0], skill="s" * 32, name="n" * 63 + end) for end in "ab"]
    names = [example.wire_name(tool) for tool in long]
    assert all(len(name) <= 64 for name in names)
    assert names[0] != names[1]
    runtime.answers[long[1].id] = runtime.answers["jwt.sign"]
    message = {"tool_calls": [{"id": "c", "type": "function", "function": {"name": names[1], "arguments": "{}"}}]}
    (answer,) = asyncio.run(example.answer_chat(runtime, long, message))
    assert answer["content"] == '{"token":"h.p.s"}'
