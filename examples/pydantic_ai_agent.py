"""Give a Pydantic AI agent the tools of silo.

Needs `pydantic-ai-slim`. The program uses a scripted model, so that it runs without a network; replace it with yours.

    silo install jwt && silo vault add JWT_KEY
    python examples/pydantic_ai_agent.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from pydantic_ai import Agent, BinaryContent, ModelRetry, ToolReturn
from pydantic_ai import Tool as AgentTool
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from silo.errors import ArgumentsInvalid, SiloError
from silo.model import Result, Tool
from silo.runtime import Runtime


def pydantic_ai_tools(silo: Runtime, tools: Iterable[Tool]) -> list[AgentTool[None]]:
    """Return Pydantic AI tools that run in silo. Pictures that a call returns are shown to the model."""
    return [_wrap(silo, tool) for tool in tools]


def _wrap(silo: Runtime, tool: Tool) -> AgentTool[None]:
    async def call(**arguments: Any) -> ToolReturn | str:
        try:
            result = await silo.call(tool.id, arguments)
        except ArgumentsInvalid as error:
            # The model can fix this failure by calling again.
            raise ModelRetry(f"{error.message}\n{error.hint}") from error
        except SiloError as error:
            return f"Error [{error.code}]: {error.message}\nHint: {error.hint}"
        return _to_return(result)

    return AgentTool.from_schema(
        call,
        name=tool.id.replace(".", "__"),
        description=tool.description,
        json_schema=dict(tool.input_schema),
    )


def _to_return(result: Result) -> ToolReturn:
    lines = [f"Error: {result.text}" if result.is_error else result.text]
    lines += [f"File: {file.name} ({file.media_type}, {file.size} bytes)" for file in result.files]
    pictures = [file for file in result.files if file.media_type.startswith("image/")]
    return ToolReturn(
        return_value="\n".join(line for line in lines if line),
        content=[BinaryContent(file.data, media_type=file.media_type) for file in pictures] or None,
        metadata=result,
    )


def scripted(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Replace a real model: call `jwt.sign` first, then repeat what it returned."""
    last = messages[-1].parts[-1]
    if isinstance(last, ToolReturnPart):
        return ModelResponse([TextPart(f"Here it is: {last.content}")])
    return ModelResponse([ToolCallPart("jwt__sign", {"claims": {"sub": "42"}})])


async def main(silo: Runtime) -> None:
    """Let a scripted model call `jwt.sign`, and print its answer."""
    found = await silo.search("sign a token", limit=5)
    agent = Agent(FunctionModel(scripted), tools=pydantic_ai_tools(silo, [match.tool for match in found]))
    run = await agent.run("Make me a token for user 42.")
    print(run.output)


async def _run() -> None:
    async with Runtime() as silo:
        await main(silo)


if __name__ == "__main__":
    asyncio.run(_run())
