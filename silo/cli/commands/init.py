"""`silo init`: write a new skill. `silo.catalog.scaffold` has its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from silo.cli.options import SKILLS, add_command
from silo.cli.render import emit

# `silo --help` loads this module, so slow modules are imported where they are used:
# `silo.catalog.scaffold` (pydantic, packaging).


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, "init", init, section=SKILLS)


def init(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of the skill, and of the folder that is made here.")
    ],
    secrets: Annotated[
        str, typer.Option(metavar="A,B", help="Names of the secrets that the skill needs, separated by commas.")
    ] = "",
) -> None:
    """Write a new skill into a new folder.

        silo init weather --secrets WEATHER_KEY
        silo install ./weather

    Prints the folder's name. The folder has `skill.py`, a manual for agents (`SKILL.md`) and a test.
    """
    from silo.catalog.scaffold import write_scaffold

    names = [part.strip() for part in secrets.split(",") if part.strip()]
    emit(str(write_scaffold(Path(), name, secrets=names)))
