"""`silo search`: find tools by what they do. Ranking is `silo.router`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from silo.cli.options import CALLS, AsJson, add_command

if TYPE_CHECKING:
    from silo.cli.session import Session


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, "search", search, section=CALLS)


def search(
    ctx: typer.Context,
    query: Annotated[list[str], typer.Argument(metavar="QUERY", help="What the tool should do.")],
    limit: Annotated[int, typer.Option("-k", "--limit", min=1, max=100, help="How many at most.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Find installed tools by what they do, best first.

    silo search sign a token
    silo search "rows of a csv file" -k 3 --json
    """
    import anyio

    from silo.cli.documents import first_line, tool_document
    from silo.cli.render import emit_json, emit_table, say

    session: Session = ctx.obj
    runtime = session.open_runtime()
    words = " ".join(query)

    matches = anyio.run(lambda: runtime.search(words, limit=limit))
    if as_json:
        found = [{**tool_document(match.tool), "score": match.score} for match in matches]
        emit_json({"query": words, "tools": found})
    elif not matches:
        say("no installed tool does that; `silo list` shows what is installed")
    else:
        rows = [
            (match.tool.id, "asks" if match.tool.require_approval else "", first_line(match.tool.description))
            for match in matches
        ]
        emit_table(("TOOL", "APPROVAL", "DOES"), rows)
