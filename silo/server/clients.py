"""The entry for silo in the configuration of MCP clients, as text to paste. Pure: looks for no client, writes no file.

Shapes and places are as the clients' makers document them (November 2026): Claude Desktop and Claude Code
(`mcpServers`; Claude Code adds `type`), Cursor (`mcpServers`), VS Code (`servers`, `type` required).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from silo.errors import UsageError

ClientName = Literal["claude-desktop", "claude-code", "cursor", "vscode"]
Platform = Literal["linux", "darwin"]

SERVER_NAME: Final = "silo"


@dataclass(frozen=True)
class ClientEntry:
    """What to put into which file.

    Attributes:
        title: the client's name, for a person.
        file: where the entry goes, `~` for the home folder.
        text: a whole JSON document; into a file that exists, copy only what is under `servers_key`.
        servers_key: the key of that document under which servers are listed.
        command: a shell command that does the same, or None if the client has none.
        after: what the user does so that the client reads the file.
    """

    title: str
    file: str
    text: str
    servers_key: str
    command: str | None
    after: str


def client_entry(client: str, *, command: Path, home: Path | None = None, platform: Platform = "linux") -> ClientEntry:
    """Return the entry of silo for `client`.

    Args:
        client: one of `CLIENTS`.
        command: absolute path of the `silo` command: clients start servers with a PATH of their own.
        home: `SILO_HOME`, if the user set it, so that the server uses the same folder as the command line.
        platform: which system's paths to use.

    Raises:
        UsageError: `client` is not in `CLIENTS`, or `command` is not absolute.
    """
    if not command.is_absolute():
        raise UsageError(f"{str(command)!r} is not an absolute path", hint="give the whole path of the silo command")
    build = _BUILDERS.get(client)
    if build is None:
        raise UsageError(f"no client is called {client!r}", hint=f"there are {', '.join(CLIENTS)}")
    server: dict[str, object] = {"command": str(command), "args": ["mcp", "serve"]}
    if home is not None:
        server["env"] = {"SILO_HOME": str(home)}
    return build(server, platform)


def _claude_desktop(server: Mapping[str, object], platform: Platform) -> ClientEntry:
    folder = "~/Library/Application Support/Claude" if platform == "darwin" else "~/.config/Claude"
    return ClientEntry(
        title="Claude Desktop",
        file=f"{folder}/claude_desktop_config.json",
        text=_document("mcpServers", server),
        servers_key="mcpServers",
        command=None,
        after="Quit Claude Desktop and start it again.",
    )


def _claude_code(server: Mapping[str, object], platform: Platform) -> ClientEntry:
    typed = {"type": "stdio", **server}
    add = ["claude", "mcp", "add-json", "--scope", "user", SERVER_NAME, json.dumps(typed, ensure_ascii=False)]
    return ClientEntry(
        title="Claude Code",
        file=".mcp.json",
        text=_document("mcpServers", typed),
        servers_key="mcpServers",
        command=shlex.join(add),
        after="`claude mcp list` shows whether it connects.",
    )


def _cursor(server: Mapping[str, object], platform: Platform) -> ClientEntry:
    return ClientEntry(
        title="Cursor",
        file="~/.cursor/mcp.json",
        text=_document("mcpServers", server),
        servers_key="mcpServers",
        command=None,
        after="Switch the server on under Settings, MCP.",
    )


def _vscode(server: Mapping[str, object], platform: Platform) -> ClientEntry:
    typed = {"type": "stdio", **server}
    add = ["code", "--add-mcp", json.dumps({"name": SERVER_NAME, **typed}, ensure_ascii=False)]
    return ClientEntry(
        title="VS Code",
        file=".vscode/mcp.json",
        text=_document("servers", typed),
        servers_key="servers",
        command=shlex.join(add),
        after="Start the server with the command `MCP: List Servers`.",
    )


def _document(key: str, server: Mapping[str, object]) -> str:
    return json.dumps({key: {SERVER_NAME: dict(server)}}, indent=2, ensure_ascii=False) + "\n"


_BUILDERS: Final[Mapping[str, Callable[[Mapping[str, object], Platform], ClientEntry]]] = MappingProxyType(
    {"claude-desktop": _claude_desktop, "claude-code": _claude_code, "cursor": _cursor, "vscode": _vscode}
)

CLIENTS: Final = tuple(_BUILDERS)
"""The clients that `client_entry` knows."""
