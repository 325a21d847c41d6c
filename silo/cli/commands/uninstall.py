"""`silo uninstall`: remove a skill and everything that was built for it."""

from __future__ import annotations

from typing import Annotated

import typer

from silo.cli.context import CommandContext
from silo.cli.options import SKILLS, add_command


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, "uninstall", uninstall, section=SKILLS)


def uninstall(
    ctx: typer.Context, namespace: Annotated[str, typer.Argument(metavar="NS", help="The skill's name.")]
) -> None:
    """Remove a skill; its secrets stay in the vault.

    silo uninstall jwt
    """
    context: CommandContext = ctx.obj
    context.run(lambda runtime: runtime.uninstall(namespace))
