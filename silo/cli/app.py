"""The typer application: its commands and the layout of its help. Each command is a file under `silo.cli.commands`.

Help is plain text in sections, without frames or colour, so that it reads the same everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from silo.cli.options import SECTIONS, to_help
from silo.version import __version__

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

COMMANDS = (
    *("init", "install", "uninstall", "list", "inspect"),
    *("search", "run", "approvals", "policy", "audit"),
    *("vault", "mcp"),
    *("setup", "doctor", "config", "demo", "bench"),
)
"""The modules under `silo.cli.commands`, in the order in which help shows their commands."""


def build_app(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """Return the application with the commands of these modules. Modules that do not exist are left out."""
    app = typer.Typer(
        name="silo",
        cls=SectionedGroup,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True, help=to_help(inspect.getdoc(_silo) or ""))(_silo)
    for name in names:
        module = f"silo.cli.commands.{name}"
        if find_spec(module) is not None:
            import_module(module).register(app)
    return app


class SectionedGroup(TyperGroup):
    """A group whose help lists its commands under the section that each was registered with (`rich_help_panel`)."""

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write one section after the other."""
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in SECTIONS}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is None or command.hidden:
                continue
            title = getattr(command, "rich_help_panel", None)
            rows = sections.setdefault(title if isinstance(title, str) else "Commands", [])
            rows.append((name, command.get_short_help_str(60)))
        for title, rows in sections.items():
            if not rows:
                continue
            with formatter.section(title):
                formatter.write_dl(rows)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"silo {__version__}")
        raise typer.Exit


def _silo(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run tools for AI agents, each call in a fresh microVM with only the secrets it declared.

        silo install jwt
        silo vault add JWT_KEY
        silo run jwt.sign claims='{"sub": "42"}'

    `silo COMMAND --help` says more, with examples.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
