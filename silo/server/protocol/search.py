"""`silo_search`: from the arguments of a search to its answer. The engine ranks; `tools` describes what was found.

A query that is an exact id isn't searched for: that tool is shown whole. Each search checks the folder of skills once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp import types

from silo.errors import ArgumentsInvalid
from silo.model import Caller, Tool
from silo.router.text import MAX_QUERY_CHARS
from silo.server.engine import Engine, FoundTool
from silo.server.protocol.changes import LiveListing
from silo.server.protocol.listing import Listing
from silo.server.protocol.results import printable
from silo.server.protocol.tools import (
    DEFAULT_SEARCH_RESULTS,
    MAX_QUERIES,
    MAX_SEARCH_RESULTS,
    SEARCH,
    SearchAnswer,
    answer_document,
    answer_text,
)

_EXAMPLE = f'call {SEARCH} with {{"query": "what the tool should do"}}'

_MAX_LABEL_CHARS = 200
"""How much of a query its answer repeats."""


@dataclass(frozen=True)
class Search:
    """The checked arguments of a search.

    Attributes:
        queries: at least one; an empty one stands for all tools of the skill.
        labelled: whether the agent gave a list of queries, so that each answer repeats its query.
        limit: how many tools for each query.
        skill: search only this skill's tools.
        whole: show tools with their schemas.
    """

    queries: tuple[str, ...]
    labelled: bool = False
    limit: int = DEFAULT_SEARCH_RESULTS
    skill: str | None = None
    whole: bool = False


@dataclass(frozen=True)
class ExactMatch:
    """A tool that was found by its exact id, without a search."""

    tool: Tool
    score: float = 1.0
    why: tuple[str, ...] = ()
    low_confidence: bool = False
    siblings: tuple[str, ...] = ()


def parse_search(arguments: Mapping[str, Any]) -> Search:
    """Return the search that the arguments ask for.

    Raises:
        ArgumentsInvalid: an argument is missing, has the wrong type or is out of bounds.
    """
    limit = arguments.get("limit", DEFAULT_SEARCH_RESULTS)
    if isinstance(limit, float) and limit.is_integer():
        limit = int(limit)  # in JSON Schema, 5.0 is an integer
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_SEARCH_RESULTS:
        raise ArgumentsInvalid(
            f"'limit' must be a whole number from 1 to {MAX_SEARCH_RESULTS}",
            hint=f"leave it out for {DEFAULT_SEARCH_RESULTS}",
        )
    skill = arguments.get("skill")
    if skill is not None and not isinstance(skill, str):
        raise ArgumentsInvalid("'skill' must be the name of a skill", hint="leave it out to search all of them")
    detail = arguments.get("detail", "compact")
    if detail not in ("compact", "full"):
        raise ArgumentsInvalid('\'detail\' must be "compact" or "full"', hint='leave it out for "compact"')
    several = arguments.get("queries") is not None
    return Search(_queries(arguments, skill), several, limit, skill, detail == "full")


def _queries(arguments: Mapping[str, Any], skill: str | None) -> tuple[str, ...]:
    query, queries = arguments.get("query"), arguments.get("queries")
    if queries is None:
        if query is None and skill is not None:
            return ("",)
        if not isinstance(query, str):
            raise ArgumentsInvalid("'query' must be a string", hint=_EXAMPLE)
        return (query,)
    if query is not None:
        raise ArgumentsInvalid("'query' and 'queries' are both given", hint="put all of them into 'queries'")
    if not isinstance(queries, list) or not 1 <= len(queries) <= MAX_QUERIES:
        raise ArgumentsInvalid(f"'queries' must be a list of 1 to {MAX_QUERIES} strings", hint="one action in each")
    if not all(isinstance(one, str) for one in queries):
        raise ArgumentsInvalid("'queries' must hold strings only", hint="one action in each")
    return tuple(queries)


async def search(engine: Engine, installed: LiveListing, asked: Search, caller: Caller) -> types.CallToolResult:
    """Return the answer to a search.

    Raises:
        SkillUnknown: the caller may see no skill of that name.
    """
    catalogue = await installed.current()
    exact = {query: tool for query in asked.queries if (tool := _named(catalogue, query, asked.skill)) is not None}
    # An empty query is searched for too, so that an unknown skill is reported.
    sought = [query[: MAX_QUERY_CHARS + 1] for query in asked.queries if query not in exact]
    found = iter(
        await engine.find(sought, limit=asked.limit, skill=asked.skill, caller=caller, among=catalogue.visible)
        if sought
        else ()
    )
    answers = [
        SearchAnswer(query[:_MAX_LABEL_CHARS], (ExactMatch(exact[query]),), whole=True)
        if query in exact
        else _answer(catalogue, query, next(found), asked)
        for query in asked.queries
    ]
    document = answer_document(answers, catalogue.expected, labelled=asked.labelled)
    text = types.TextContent(type="text", text=printable(answer_text(document)))
    return types.CallToolResult(content=[text], structured_content=_printable(document))


def _named(listing: Listing, query: str, skill: str | None) -> Tool | None:
    """Return the tool whose exact id is the query, or None if the caller may not see it."""
    tool = listing.show(query.strip())
    return tool if tool is not None and skill in (None, tool.skill) else None


def _answer(listing: Listing, query: str, found: Sequence[FoundTool], asked: Search) -> SearchAnswer:
    label = query[:_MAX_LABEL_CHARS]
    if query.strip():
        note = f"Only the first {MAX_QUERY_CHARS:,} characters of the query were read."
        return SearchAnswer(label, found, asked.whole, note if len(query) > MAX_QUERY_CHARS else "")
    if asked.skill is None:
        return SearchAnswer(label, (), note="The query is empty: say what the tool should do.")
    tools = [tool for tool in listing.tools if tool.skill == asked.skill]
    rest = len(tools) - asked.limit
    more = f"{asked.skill} has {rest} more; say what the tool should do." if rest > 0 else ""
    return SearchAnswer(label, tuple(ExactMatch(tool) for tool in tools[: asked.limit]), asked.whole, more)


def _printable(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a JSON value that can be written as UTF-8. Lone surrogates, which a query may contain, become escapes."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value
