"""`silo list`, also `silo ps`: the installed skills."""

from __future__ import annotations

import anyio
import typer

from silo.cli.context import CommandContext
from silo.cli.documents import first_line, skill_document
from silo.cli.options import SKILLS, AsJson, add_command
from silo.cli.render import emit_json, emit_table, say

# `silo --help` loads this module, so slow modules are imported where they are used:
# `silo.catalog.builtin` (packaging, uv).


def register(app: typer.Typer) -> None:
    """Add the command, and its alias, which help does not show."""
    add_command(app, "list", list_skills, section=SKILLS)
    add_command(app, "ps", list_skills, section=SKILLS, hidden=True)


def list_skills(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the installed skills. `silo ps` is the same.

        silo list
        silo list --json | jq -r '.skills[].tools[].id'

    A skill whose record is damaged is named on stderr, and in the JSON document under `damaged`.
    """
    from silo.catalog.builtin import has_changed

    context: CommandContext = ctx.obj
    runtime = context.open_runtime()
    skills, damaged = anyio.run(runtime.skills), anyio.run(runtime.damaged)
    for one in damaged:
        # Only the record had the source, and the record is damaged.
        again = f"`silo install SOURCE --name {one.namespace}`"
        say(f"silo: warning: {one.namespace} is damaged and not in the list: {' '.join(one.reason.split())}")
        say(f"silo: hint: install it again with {again}, or remove it with `silo uninstall {one.namespace}`")
    if as_json:
        emit_json(
            {"skills": [skill_document(skill) for skill in skills], "damaged": [one.namespace for one in damaged]}
        )
    elif not skills and not damaged:
        say("no skill is installed; `silo install jwt` installs a built-in one")
    elif skills:
        rows = [
            (
                skill.namespace,
                str(len(skill.tools)),
                skill.digest[:16],
                first_line(skill.header.description) + ("  (its source has changed)" if has_changed(skill) else ""),
            )
            for skill in skills
        ]
        emit_table(("SKILL", "TOOLS", "DIGEST", "DOES"), rows)
