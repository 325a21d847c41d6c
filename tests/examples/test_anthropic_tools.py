"""`examples/anthropic_tools.py`, driven with recorded messages of models."""

import asyncio
import base64
import json
from pathlib import Path

import pytest

RECORDED = Path(__file__).parent / "recorded"


@pytest.fixture(scope="module")
def example(load_script):
    return load_script("examples/anthropic_tools.py")


def recorded(name: str) -> dict:
    return json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))


def test_tools_are_offered_with_their_schemas(example, runtime, tools):
    offered = asyncio.run(example.main(runtime, None))
    assert [tool["name"] for tool in offered] == ["jwt__sign", "jwt__verify", "image__convert"]
    assert offered[0] == {
        "name": "jwt__sign",
        "description": tools[0].description,
        "input_schema": tools[0].input_schema,
    }
    assert all(tool["input_schema"]["type"] == "object" for tool in offered)
    json.dumps(offered)


def test_each_tool_use_gets_a_tool_result_in_one_message_of_the_user(example, runtime):
    message = asyncio.run(example.main(runtime, recorded("anthropic-two-calls")))
    assert runtime.calls == [
        ("jwt.sign", {"claims": {"sub": "42"}}),
        ("image.convert", {"image": "aGk=", "format": "png"}),
    ]
    assert message["role"] == "user"
    first, second = message["content"]
    assert first == {
        "type": "tool_result",
        "tool_use_id": "toolu_01A09q90qw90lq917835lq9",
        "content": [{"type": "text", "text": '{"token":"h.p.s"}'}],
        "is_error": False,
    }
    picture = second["content"][1]["source"]
    assert picture["media_type"] == "image/png"
    assert base64.b64decode(picture["data"]) == b"\x89PNG..."
    assert second["content"][2] == {"type": "text", "text": "File: table.csv (text/csv, 4 bytes)"}


def test_failures_are_marked_as_errors_with_a_hint(example, runtime):
    first, second = asyncio.run(example.main(runtime, recorded("anthropic-failing-calls")))["content"]
    assert first["is_error"] is True
    assert first["content"][0]["text"] == "The token has expired."
    assert second["is_error"] is True
    assert second["content"][0]["text"].startswith("[tool-unknown]")
    assert "did you mean 'jwt.sign'?" in second["content"][0]["text"]


def test_a_message_without_calls_needs_no_answer(example, runtime):
    assert asyncio.run(example.main(runtime, recorded("anthropic-text"))) is None
