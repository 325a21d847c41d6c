"""`silo list`, also `silo ps`: the installed skills."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from silo.cli.options import SKILLS, AsJson, add_command

if TYPE_CHECKING:
    from silo.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add the command, and its alias, which help does not show."""
    add_command(app, "list", list_skills, section=SKILLS)
    add_command(app, "ps", list_skills, section=SKILLS, hidden=True)


def list_skills(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the installed skills. `silo ps` is the same.

    silo list
    silo list --json | jq -r '.skills[].tools[].id'
    """
    from silo.catalog.builtin import has_changed
    from silo.cli.documents import first_line, skill_document
    from silo.cli.render import emit_json, emit_table, say

    session: Session = ctx.obj
    skills = session.skills()
    if as_json:
        emit_json({"skills": [skill_document(skill) for skill in skills]})
    elif not skills:
        say("no skill is installed; `silo install jwt` installs a built-in one")
    else:
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
