"""`silo config`: the current configuration, and where each value came from. `silo.config` loads it."""

from __future__ import annotations

import json

import typer

from silo.cli.context import CommandContext
from silo.cli.options import MACHINE, AsJson, add_command, add_group
from silo.cli.render import emit_json, emit_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = add_group(app, "config", _HELP, section=MACHINE)
    add_command(group, "show", show)


_HELP = "Show the configuration.\n\n    silo config show"


def show(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show every setting, and where its value came from.

        silo config show
        SILO_MIN_ISOLATION=namespace silo config show --json

    A value comes from a variable, a line of `silo.toml`, or the default.
    """
    context: CommandContext = ctx.obj
    rows = context.load_config().rows()
    if as_json:
        emit_json({"settings": {key: {"value": value, "origin": origin} for key, value, origin in rows}})
    else:
        emit_table(("SETTING", "VALUE", "FROM"), [(key, _cell(key, value), origin) for key, value, origin in rows])


def _cell(key: str, value: object) -> str:
    """Return a value for the table. Rules do not fit into a line."""
    if key == "policy.rules" and isinstance(value, list) and value:
        return f"{len(value)}, see `silo policy list`"
    return json.dumps(value)
