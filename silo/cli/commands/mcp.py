"""`silo mcp`: serve agents, and print the configuration of their clients. `silo.server` speaks MCP."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from silo.cli.context import CommandContext
from silo.cli.options import SECRETS_AND_AGENTS, Headless, add_command, add_group
from silo.cli.render import emit, say
from silo.cli.serve import serve as serve_client
from silo.server.clients import client_entry


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = add_group(app, "mcp", _HELP, section=SECRETS_AND_AGENTS)
    add_command(group, "serve", serve)
    add_command(group, "config", config)


_HELP = "Offer the installed tools to AI agents.\n\n    silo mcp config claude-desktop"


def serve(
    ctx: typer.Context,
    transport: Annotated[Literal["stdio", "http"], typer.Option(help="Only stdio in this version.")] = "stdio",
    expose: Annotated[
        Literal["auto", "router", "direct"] | None,
        typer.Option(help="List only search and execute (router), also every tool (direct), or what fits (auto)."),
    ] = None,
    headless: Headless = False,
) -> int:
    """Serve one MCP client over standard input and output, until it leaves.

        silo mcp serve

    A client starts this command; `silo mcp config CLIENT` prints the entry for its configuration.
    """
    context: CommandContext = ctx.obj
    return serve_client(context, transport=transport, expose=expose, headless=headless)


def config(
    ctx: typer.Context,
    client: Annotated[Literal["claude-desktop", "claude-code", "cursor", "vscode"], typer.Argument(metavar="CLIENT")],
) -> None:
    """Print the entry for silo in the configuration of an MCP client.

        silo mcp config claude-desktop
        silo mcp config vscode > .vscode/mcp.json

    CLIENT is one of claude-desktop, claude-code, cursor and vscode. The entry goes to standard output. Standard error
    says where to put it.
    """
    context: CommandContext = ctx.obj
    platform: Literal["linux", "darwin"] = "darwin" if sys.platform == "darwin" else "linux"
    home = context.home() if context.environ.get("SILO_HOME") else None
    entry = client_entry(client, command=_own_path(context), home=home, platform=platform)
    emit(entry.text)
    say(f"{entry.title}: put this into {entry.file}; if there is one already, add what is under '{entry.servers_key}'.")
    if entry.command is not None:
        say(f"Or run: {entry.command}")
    say(entry.after)


def _own_path(context: CommandContext) -> Path:
    """Return the absolute path of the `silo` command that runs now, or of the one beside this interpreter."""
    started = Path(sys.argv[0])
    if started.name == "silo" and (found := shutil.which(sys.argv[0], path=context.environ.get("PATH"))):
        return Path(found).absolute()
    return Path(sys.executable).absolute().with_name("silo")
