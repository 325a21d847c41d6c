"""Give a LangChain model the tools of silo, and run it until it has its answer.

Needs `langchain-core`. The program uses a scripted model, so that it runs without a network; replace it with yours.

    silo install jwt && silo vault add JWT_KEY
    python examples/langchain_agent.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, StructuredTool, ToolException

from silo.errors import SiloError
from silo.model import Result, Tool
from silo.runtime import Runtime

MAX_TURNS = 10


def langchain_tools(silo: Runtime, tools: Iterable[Tool]) -> list[BaseTool]:
    """Return LangChain tools that run in silo. The tool message's `artifact` is the call's `Result`, with its files."""
    return [_wrap(silo, tool) for tool in tools]


async def ask(model: BaseChatModel, tools: Sequence[BaseTool], question: str) -> list[BaseMessage]:
    """Let the model answer a question with the tools; return the whole conversation.

    Raises:
        RuntimeError: the model still wants to call tools after `MAX_TURNS` turns.
    """
    bound: Runnable[LanguageModelInput, AIMessage] = model.bind_tools(tools)
    by_name = {tool.name: tool for tool in tools}
    messages: list[BaseMessage] = [HumanMessage(question)]
    for _ in range(MAX_TURNS):
        reply = await bound.ainvoke(messages)
        messages.append(reply)
        if not reply.tool_calls:
            return messages
        messages += await asyncio.gather(*(by_name[call["name"]].ainvoke(call) for call in reply.tool_calls))
    raise RuntimeError(f"no answer after {MAX_TURNS} turns")


def _wrap(silo: Runtime, tool: Tool) -> BaseTool:
    async def call(**arguments: Any) -> tuple[str, Result]:
        try:
            result = await silo.call(tool.id, arguments)
        except SiloError as error:
            raise ToolException(f"[{error.code}] {error.message}\nHint: {error.hint}") from error
        if result.is_error:
            raise ToolException(result.text)
        files = [f"File: {file.name} ({file.media_type}, {file.size} bytes)" for file in result.files]
        return "\n".join([result.text, *files]), result

    return StructuredTool.from_function(
        coroutine=call,
        name=tool.id.replace(".", "__"),
        description=tool.description,
        args_schema=dict(tool.input_schema),
        response_format="content_and_artifact",
        # A failure becomes a tool message with the status "error", so that the model can act on it.
        handle_tool_error=True,
    )


class ScriptedModel(FakeMessagesListChatModel):
    """Replaces a real model: it sends the messages that it was given, one per turn."""

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Runnable[LanguageModelInput, AIMessage]:
        """Accept tools; the script already knows which one it calls."""
        return self


async def main(silo: Runtime) -> None:
    """Let a scripted model call `jwt.sign`, and print the conversation."""
    call = ToolCall(name="jwt__sign", args={"claims": {"sub": "42"}}, id="call_1")
    model = ScriptedModel(responses=[AIMessage("", tool_calls=[call]), AIMessage("Here is your token.")])
    found = await silo.search("sign a token", limit=5)
    tools = langchain_tools(silo, [match.tool for match in found])
    for message in await ask(model, tools, "Make me a token for user 42."):
        print(f"{message.type}: {message.text or message.model_dump().get('tool_calls')}")


async def _run() -> None:
    async with Runtime() as silo:
        await main(silo)


if __name__ == "__main__":
    asyncio.run(_run())
