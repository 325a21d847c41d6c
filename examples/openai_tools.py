"""Give the tools of silo to a model that uses one of OpenAI's formats, Chat Completions or Responses.

The script prints tool definitions for the request, and turns the calls in a model's answer into the messages to send
back. The formats are plain JSON, so only silo is needed. Send them with any client you like.

    python examples/openai_tools.py                 # the definitions of all installed tools, for `tools=`
    python examples/openai_tools.py answer.json     # run the calls in a model's answer; print what to send back
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from silo.errors import SiloError
from silo.model import Result, Tool
from silo.runtime import Runtime

JSON = dict[str, Any]

MAX_NAME_CHARS = 64


def wire_name(tool: Tool) -> str:
    """Return the tool's name as the API allows it: `[a-zA-Z0-9_-]`, at most 64 characters.

    silo also accepts `jwt__sign` as the name of `jwt.sign`.
    """
    name = tool.id.replace(".", "__")
    if len(name) <= MAX_NAME_CHARS:
        return name
    return f"{name[: MAX_NAME_CHARS - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def chat_tools(tools: Iterable[Tool]) -> list[JSON]:
    """Return `tools` for a Chat Completions request."""
    return [{"type": "function", "function": _function(tool)} for tool in tools]


def responses_tools(tools: Iterable[Tool]) -> list[JSON]:
    """Return `tools` for a Responses request."""
    return [{"type": "function", **_function(tool)} for tool in tools]


async def answer_chat(silo: Runtime, tools: Sequence[Tool], message: JSON) -> list[JSON]:
    """Run the `tool_calls` of an assistant's message at the same time; return the messages that follow it."""
    calls = [call for call in message.get("tool_calls") or [] if call["type"] == "function"]
    texts = await asyncio.gather(
        *(_call(silo, tools, call["function"]["name"], call["function"]["arguments"]) for call in calls)
    )
    return [
        {"role": "tool", "tool_call_id": call["id"], "content": text} for call, text in zip(calls, texts, strict=True)
    ]


async def answer_responses(silo: Runtime, tools: Sequence[Tool], output: Sequence[JSON]) -> list[JSON]:
    """Run the `function_call` items of a response's `output`; return the items for the next request's `input`."""
    calls = [item for item in output if item["type"] == "function_call"]
    texts = await asyncio.gather(*(_call(silo, tools, call["name"], call["arguments"]) for call in calls))
    return [
        {"type": "function_call_output", "call_id": call["call_id"], "output": text}
        for call, text in zip(calls, texts, strict=True)
    ]


def _function(tool: Tool) -> JSON:
    # `strict` would make every parameter required. silo checks the arguments itself, before anything starts.
    return {
        "name": wire_name(tool),
        "description": tool.description,
        "parameters": dict(tool.input_schema),
        "strict": False,
    }


async def _call(silo: Runtime, tools: Sequence[Tool], name: str, arguments: str) -> str:
    """Run one call. A failure is returned as a result, too, because the model may be able to fix it."""
    ids = {wire_name(tool): tool.id for tool in tools}
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError as error:
        return f"Error [arguments-invalid]: the arguments are not JSON: {error}"
    if not isinstance(parsed, dict):
        return "Error [arguments-invalid]: the arguments must be a JSON object"
    try:
        # An unknown name goes to silo, too: its error suggests the nearest names.
        return _text(await silo.call(ids.get(name, name), parsed))
    except SiloError as error:
        return f"Error [{error.code}]: {error.message}\nHint: {error.hint}"


def _text(result: Result) -> str:
    """Return what the model reads. A tool message holds only text, so files are named and stay with the caller."""
    lines = [f"Error: {result.text}" if result.is_error else result.text]
    lines += [f"File: {file.name} ({file.media_type}, {file.size} bytes)" for file in result.files]
    return "\n".join(line for line in lines if line)


async def main(silo: Runtime, received: JSON | None) -> list[JSON]:
    """Return tool definitions, or the answers to the calls in a chat completion or a response that was received."""
    tools = await silo.tools()
    if received is None:
        return chat_tools(tools)
    if "output" in received:
        return await answer_responses(silo, tools, received["output"])
    return await answer_chat(silo, tools, received["choices"][0]["message"])


async def _run(received: JSON | None) -> None:
    async with Runtime() as silo:
        print(json.dumps(await main(silo, received), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    asyncio.run(_run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")) if sys.argv[1:] else None))
