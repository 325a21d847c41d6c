"""`silo inspect`: show everything about one installed skill."""

from __future__ import annotations

from typing import Annotated

import anyio
import typer

from silo.cli.context import CommandContext
from silo.cli.documents import first_line, skill_document
from silo.cli.options import SKILLS, AsJson, add_command
from silo.cli.render import emit, emit_json
from silo.install.facts import header_facts
from silo.model import Skill
from silo.schema.arguments import signature


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, "inspect", inspect, section=SKILLS)


def inspect(
    ctx: typer.Context,
    namespace: Annotated[str, typer.Argument(metavar="NS", help="The skill's name.")],
    as_json: AsJson = False,
) -> None:
    """Show what a skill wants, and what its tools take.

        silo inspect jwt
        silo inspect jwt --json | jq '.tools[0].input_schema'

    Checks that its files are those that you agreed to. Runs none of its code.
    """
    context: CommandContext = ctx.obj
    skill = anyio.run(context.open_runtime().skill, namespace)
    if as_json:
        emit_json(skill_document(skill))
    else:
        emit(_as_text(skill))


def _as_text(skill: Skill) -> str:
    facts = [
        ("skill", skill.namespace),
        ("does", first_line(skill.header.description) or "it does not say"),
        ("from", skill.source),
        ("digest", skill.digest),
        ("installed", f"{skill.installed_at}, read under the isolation {skill.described_by}"),
        ("folder", str(skill.folder)),
        ("python", skill.header.requires_python),
        *header_facts(skill.header, skill.packages),
    ]
    width = max(len(label) for label, _ in facts)
    lines = [f"{label:<{width}}  {text}" for label, text in facts]
    for tool in skill.tools:
        lines += ["", tool.id, f"  {first_line(tool.description)}", f"  takes: {signature(tool)}"]
        if tool.require_approval:
            lines.append("  asks a person before every call")
        if tool.secrets:
            lines.append(f"  gets: {', '.join(tool.secrets)}")
    return "\n".join(lines)
