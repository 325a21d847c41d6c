"""The client's side of MCP, for `silo demo` and `silo bench`: the official client with a server as its child process.

It knows nothing about silo's server, and does what any agent's client would do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mcp import Client, StdioServerParameters, stdio_client


@dataclass(frozen=True)
class ToolAnswer:
    """The result of one `tools/call`."""

    text: str
    data: Any
    is_error: bool
    meta: Mapping[str, Any]


class Agent:
    """A connected client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def protocol(self) -> str:
        """The protocol version that client and server agreed on."""
        return str(self._client.protocol_version)

    async def tools(self) -> tuple[str, ...]:
        """Return the names from all pages of `tools/list`."""
        names: list[str] = []
        cursor: str | None = None
        while True:
            page = await self._client.list_tools(cursor=cursor)
            names += [tool.name for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return tuple(names)

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Call a tool and return its answer, even if it is an error."""
        result = await self._client.call_tool(tool, dict(arguments))
        text = "\n".join(block.text for block in result.content if block.type == "text")
        return ToolAnswer(text, result.structured_content, bool(result.is_error), result.meta or {})


@asynccontextmanager
async def connect(
    command: Sequence[str], environ: Mapping[str, str], *, errors: TextIO, cwd: Path | None = None
) -> AsyncIterator[Agent]:
    """Start a server as a child process and speak MCP with it over stdin and stdout.

    Args:
        command: the program and its arguments.
        environ: the child's whole environment.
        errors: an open file for the child's stderr.
    """
    parameters = StdioServerParameters(command=command[0], args=list(command[1:]), env=dict(environ), cwd=cwd)
    async with Client(stdio_client(parameters, errlog=errors)) as client:
        yield Agent(client)
