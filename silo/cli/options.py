"""What the commands share in how they are declared: options, sections, help. What a command does is its own file's."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import Annotated, Literal

import typer

from silo.cli.session import interrupted

SKILLS = "Skills"
CALLS = "Calls"
SECRETS_AND_AGENTS = "Secrets and agents"
MACHINE = "This machine"

SECTIONS = (SKILLS, CALLS, SECRETS_AND_AGENTS, MACHINE)
"""The sections of the help, in their order."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]

BackendName = Annotated[
    Literal["microvm", "namespace"] | None,
    typer.Option("--backend", help="The isolation to use this time. `namespace` shares this machine's kernel."),
]


Headless = Annotated[bool, typer.Option("--headless", help="Nobody can be asked; the same as SILO_HEADLESS=1.")]


def add_command(
    app: typer.Typer,
    name: str,
    function: Callable[..., int | None],
    *,
    section: str | None = None,
    hidden: bool = False,
    takes_rest: bool = False,
) -> None:
    """Add a command whose help is the function's docstring; see `to_help`.

    Args:
        app: what it is added to.
        name: of the command.
        function: what it does; it may return an exit status.
        section: of the help; for commands of the top level.
        hidden: whether help leaves it out.
        takes_rest: whether arguments that it does not declare are left in `ctx.args` and not refused.
    """
    add = app.command(
        name,
        help=to_help(inspect.getdoc(function) or ""),
        rich_help_panel=section,
        hidden=hidden,
        context_settings={"allow_extra_args": takes_rest},
    )

    @functools.wraps(function)
    def run(*given: object, **options: object) -> int | None:
        try:
            return function(*given, **options)
        except KeyboardInterrupt:  # typer would make a bare exit status of it
            raise interrupted() from None

    add(run)


def add_group(app: typer.Typer, name: str, text: str, *, section: str | None = None) -> typer.Typer:
    """Add a command that has commands of its own, and return what they are added to."""
    group = typer.Typer(rich_markup_mode=None)
    # With a callback a group stays one, even if it has a single command.
    group.callback(help=to_help(text))(lambda: None)
    app.add_typer(group, name=name, rich_help_panel=section)
    return group


def to_help(text: str) -> str:
    """Return a docstring as help text, which typer would fill: its example and what is indented keep their lines.

    The example is the second paragraph, indented or not (a formatter may have taken the indentation away). The mark that typer
    understands is a line with a backspace.
    """
    paragraphs = text.split("\n\n")
    if len(paragraphs) > 1:
        paragraphs[1] = textwrap.indent(textwrap.dedent(paragraphs[1]), "    ")
    return "\n\n".join(f"\b\n{one}" if one.startswith(" ") else one for one in paragraphs)
