"""`silo search`: find tools by what they do, and see why they were found. `silo.router` ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import anyio
import typer

from silo.cli.context import CommandContext
from silo.cli.documents import first_line, tool_document
from silo.cli.options import CALLS, AsJson, add_command
from silo.cli.render import Steps, emit_json, emit_table, say
from silo.errors import UsageError
from silo.model import Caller

if TYPE_CHECKING:
    from silo.policy.visible import ExpectedVerdict
    from silo.router.index import Match

WHY_CHARS = 40
"""The longest reason in the table, so that there is room for what the tool does; `--json` has all of it."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, "search", search, section=CALLS)


def search(
    ctx: typer.Context,
    query: Annotated[list[str] | None, typer.Argument(metavar="QUERY", help="What the tool should do.")] = None,
    limit: Annotated[int, typer.Option("-k", "--limit", min=1, max=100, help="Show at most this many tools.")] = 5,
    skill: Annotated[
        str | None, typer.Option("--skill", metavar="NAME", help="Search only the tools of this skill.")
    ] = None,
    caller: Annotated[
        Literal["mcp", "cli", "library"],
        typer.Option(help="Search as this caller (`mcp` is an agent): hides tools that a rule always denies to it."),
    ] = "cli",
    as_json: AsJson = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget what agents have searched for and called. Searches nothing.")
    ] = False,
) -> None:
    """Find installed tools by what they do, best first.

        silo search sign a token
        silo search "rows of a csv file" -k 3 --json

    WHY lists the words that matched, and the text of the tool in which they matched. APPROVAL says whether the tool
    asks a person first: always (`asks`), or for some arguments (`depends`).
    """
    context: CommandContext = ctx.obj
    words = " ".join(query or ())
    if forget:
        if query:
            raise UsageError("--forget searches nothing", hint="leave the query out, or --forget")
        known = anyio.run(context.open_runtime().forget)
        say("forgotten: what agents searched for and called" if known else "there was nothing to forget")
        return
    if not words.strip():
        raise UsageError("there is no query", hint="say what the tool should do: silo search sign a token")
    runtime = context.open_runtime(caller=None if caller == "cli" else Caller(caller))

    async def find() -> tuple[tuple[Match, ...], Mapping[str, ExpectedVerdict]]:
        visible = await runtime.visible()
        return await runtime.search(words, limit=limit, skill=skill, among=visible), visible.expected

    with Steps() as steps:
        steps.step("searching the installed tools")
        matches, expected = anyio.run(find)
    if as_json:
        tools = [_document(match, expected.get(match.tool.id, "asks")) for match in matches]
        emit_json({"query": words, "caller": caller, "tools": tools})
    elif not matches:
        say("no installed tool does that; `silo list` shows what is installed")
    else:
        emit_table(
            ("TOOL", "APPROVAL", "WHY", "DOES"), [_row(match, expected.get(match.tool.id, "asks")) for match in matches]
        )
        if matches[0].low_confidence:
            say("nothing fits clearly; these are the nearest. Other words may find more")


def _document(match: Match, verdict: ExpectedVerdict) -> dict[str, object]:
    return {
        **tool_document(match.tool),
        "score": match.score,
        "why": list(match.why),
        "low_confidence": match.low_confidence,
        "siblings": list(match.siblings),
        "outlook": verdict,
    }


def _row(match: Match, verdict: ExpectedVerdict) -> tuple[str, str, str, str]:
    why = "; ".join(match.why) or "near in meaning"
    short = why if len(why) <= WHY_CHARS else f"{why[: WHY_CHARS - 1]}…"
    return match.tool.id, "" if verdict == "runs" else verdict, short, first_line(match.tool.description)
