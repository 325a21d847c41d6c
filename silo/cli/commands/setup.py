"""`silo setup`: install what this machine lacks, then test it. `silo.setup.packages` knows what is needed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from silo.cli.context import CommandContext
from silo.cli.options import MACHINE, add_command
from silo.cli.probes import COLUMNS, chosen, rows
from silo.cli.render import Steps, emit_table, say
from silo.errors import ApprovalRequired, CallDenied
from silo.remedies import command

if TYPE_CHECKING:
    from silo.setup.packages import SetupPlan

# `silo --help` loads this module, so slow modules are imported where they are used:
# `silo.compose.settings` (pydantic) and `silo.setup` (0.01 s, more than any other module of a command).


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, "setup", setup, section=MACHINE)


def setup(
    ctx: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without being asked.")] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Fetch the guest kernel again, and forget all templates.")
    ] = False,
) -> None:
    """Install what microVMs need on this machine.

        silo setup
        silo setup --yes

    apt installs QEMU, bubblewrap and e2fsprogs as root. A kernel for the guests is only unpacked into silo's own
    folder. Says what it will do, and asks. Exits with 5 if no sandbox works afterwards.
    """
    from silo.compose.settings import kernel_folder
    from silo.setup import packages

    context: CommandContext = ctx.obj
    config = context.load_config().config
    folder = kernel_folder(context.home(), config)
    todo = packages.plan(folder, repair=repair)
    if todo.is_empty:
        say("nothing is missing; trying whether it works")
    elif not todo.by_hand and (todo.can_install or not todo.packages):
        say(_describe(todo, str(folder)))
        _require_yes(is_yes=yes)
    with Steps() as steps:
        packages.run(todo, folder, steps.step)
        if repair:
            steps.step("forgetting the templates")
            packages.delete_templates(context.home() / "templates")
        steps.step("starting a guest to see whether it works")
        probes = context.run(lambda runtime: runtime.probe(refresh=True))
    emit_table(COLUMNS, rows(probes))
    _, refusal = chosen(probes, config)
    if refusal is not None:
        raise refusal


def _describe(todo: SetupPlan, folder: str) -> str:
    lines = ["silo setup will"]
    if todo.packages:
        lines.append(f"  install {', '.join(todo.packages)}: {' '.join(todo.command)}")
    if todo.needs_kernel:
        lines.append(f"  download a kernel and busybox with apt, and unpack them into {folder}")
    return "\n".join(lines)


def _require_yes(*, is_yes: bool) -> None:
    if is_yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ApprovalRequired(
            "there is nobody to ask whether to do that (SILO_APPROVAL_REQUIRED)",
            hint=command("silo setup --yes", "{} does it without asking"),
        )
    print("Do it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CallDenied("nothing was installed", hint=command("silo doctor", "{} says what works without it"))
