"""What commands share in their declarations: options, sections, help. Each command has a file of its own."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable
from typing import Annotated, Literal

import typer

from silo.cli.context import interrupted

SKILLS = "Skills"
CALLS = "Calls"
SECRETS_AND_AGENTS = "Secrets and agents"
MACHINE = "This machine"

SECTIONS = (SKILLS, CALLS, SECRETS_AND_AGENTS, MACHINE)
"""The sections of the help, in their order."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]

BackendName = Annotated[
    Literal["microvm", "namespace"] | None,
    typer.Option("--backend", help="The backend to use this time. `namespace` shares this machine's kernel."),
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
        app: the application or group to add it to.
        name: of the command.
        function: what it does; it may return an exit status.
        section: its section of the help; only for commands of the top level.
        hidden: whether help leaves it out.
        takes_rest: whether arguments that it does not declare go into `ctx.args` instead of being refused.
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
        except KeyboardInterrupt:  # typer would turn it into an exit status without a message
            raise interrupted() from None

    add(run)


def add_group(app: typer.Typer, name: str, text: str, *, section: str | None = None) -> typer.Typer:
    """Add a group of commands, and return it."""
    group = typer.Typer(rich_markup_mode=None)
    # With a callback a group stays one, even if it has a single command.
    group.callback(help=to_help(text))(lambda: None)
    app.add_typer(group, name=name, rich_help_panel=section)
    return group


def to_help(text: str) -> str:
    """Return a docstring as help text. Typer rewraps paragraphs, except the example and those that are indented.

    The example is the second paragraph, indented or not (a formatter may have removed the indentation). A line with a
    backspace tells typer not to wrap a paragraph.
    """
    paragraphs = text.split("\n\n")
    if len(paragraphs) > 1:
        paragraphs[1] = textwrap.indent(textwrap.dedent(paragraphs[1]), "    ")
    return "\n\n".join(f"\b\n{one}" if one.startswith(" ") else one for one in paragraphs)
