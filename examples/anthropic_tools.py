"""Give the tools of silo to a model that uses Anthropic's Messages format.

The script prints tool definitions for the request, and turns the `tool_use` blocks of a model's message into the
`tool_result` blocks to send back. The format is plain JSON, so only silo is needed. Send it with any client you like.

    python examples/anthropic_tools.py                  # the definitions of all installed tools, for `tools=`
    python examples/anthropic_tools.py message.json     # run the calls in a model's message; print what to send back
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from silo.errors import SiloError
from silo.model import File, Result, Tool
from silo.runtime import Runtime

JSON = dict[str, Any]

MAX_NAME_CHARS = 64
IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
"""The media types of pictures that the format supports."""


def wire_name(tool: Tool) -> str:
    """Return the tool's name as the API allows it: `[a-zA-Z0-9_-]`, at most 64 characters.

    silo also accepts `jwt__sign` as the name of `jwt.sign`.
    """
    name = tool.id.replace(".", "__")
    if len(name) <= MAX_NAME_CHARS:
        return name
    return f"{name[: MAX_NAME_CHARS - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def message_tools(tools: Iterable[Tool]) -> list[JSON]:
    """Return `tools` for a Messages request."""
    return [
        {"name": wire_name(tool), "description": tool.description, "input_schema": dict(tool.input_schema)}
        for tool in tools
    ]


async def answer(silo: Runtime, tools: Sequence[Tool], message: JSON) -> JSON | None:
    """Run the `tool_use` blocks of an assistant's message at the same time.

    Returns:
        The user's message that must follow it, with one `tool_result` for each call; None if there were no calls.
    """
    calls = [block for block in message["content"] if block["type"] == "tool_use"]
    if not calls:
        return None
    ids = {wire_name(tool): tool.id for tool in tools}
    # An unknown name goes to silo, too: its error suggests the nearest names.
    results = await asyncio.gather(*(_call(silo, ids.get(call["name"], call["name"]), call["input"]) for call in calls))
    content = [
        {"type": "tool_result", "tool_use_id": call["id"], **result}
        for call, result in zip(calls, results, strict=True)
    ]
    return {"role": "user", "content": content}


async def _call(silo: Runtime, tool: str, arguments: JSON) -> JSON:
    """Run one call. A failure is returned as a result, too, because the model may be able to fix it."""
    try:
        result = await silo.call(tool, arguments)
    except SiloError as error:
        text = f"[{error.code}] {error.message}\nHint: {error.hint}"
        return {"content": [{"type": "text", "text": text}], "is_error": True}
    return {"content": _blocks(result), "is_error": result.is_error}


def _blocks(result: Result) -> list[JSON]:
    blocks: list[JSON] = [{"type": "text", "text": result.text}] if result.text else []
    return blocks + [_block(file) for file in result.files]


def _block(file: File) -> JSON:
    """Return a picture as a block that the model can see. Other files are only named, and stay with the caller."""
    if file.media_type in IMAGES:
        data = base64.b64encode(file.data).decode("ascii")
        return {"type": "image", "source": {"type": "base64", "media_type": file.media_type, "data": data}}
    return {"type": "text", "text": f"File: {file.name} ({file.media_type}, {file.size} bytes)"}


async def main(silo: Runtime, received: JSON | None) -> list[JSON] | JSON | None:
    """Return tool definitions, or the message that answers the calls in a model's message."""
    tools = await silo.tools()
    return message_tools(tools) if received is None else await answer(silo, tools, received)


async def _run(received: JSON | None) -> None:
    async with Runtime() as silo:
        print(json.dumps(await main(silo, received), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    asyncio.run(_run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")) if sys.argv[1:] else None))
