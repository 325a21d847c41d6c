"""`silo demo`: show silo end to end in a temporary state folder. `silo.cli.demonstration` does the work."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from silo.cli.context import CommandContext
from silo.cli.options import MACHINE, AsJson, add_command
from silo.cli.render import emit, emit_json, say

# `silo --help` loads this module, so slow modules are imported where they are used:
# `silo.cli.demonstration` (mcp, pydantic) and `silo.compose.settings` (pydantic).


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, "demo", demo, section=MACHINE)


def demo(
    ctx: typer.Context,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary state folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """See an agent call tools in microVMs, with a secret that appears nowhere else.

        silo demo
        silo demo --keep

    Uses its own state folder in the temporary folder and does not touch yours. Run `silo setup` once before.
    """
    from silo.cli.demonstration import Demo
    from silo.compose.settings import kernel_folder

    context: CommandContext = ctx.obj
    loaded = context.load_config()
    kernel = kernel_folder(context.home(), loaded.config)
    report = Demo(context.environ, kernel, keep=keep, say=say if as_json else emit).run()
    if as_json:
        document = asdict(report)
        secret = {"looks": report.secret.looks, "processes": len(report.secret.processes), "files": report.secret.files}
        emit_json({**document, "secret": {**secret, "found": sorted(report.secret.found)}})
