"""Rank tools by how well their texts answer a request: BM25F over weighted fields. Pure and deterministic.

Names are taken apart in `names`, texts in `text`. Which tools a caller may see is decided before they come here, because a
tool that is in the index shows in the scores of the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from silo.model import Tool
from silo.router.names import split_id
from silo.router.text import MAX_QUERY_CHARS, terms


@dataclass(frozen=True)
class Match:
    """A tool that was found. `score` orders the matches of one search, and means nothing across searches."""

    tool: Tool
    score: float


class Index:
    """Tools, ready to be searched. Immutable once built; a changed catalogue gets a new one (1,000 tools: 0.1 s)."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools = {tool.id: tool for tool in sorted(tools, key=lambda tool: tool.id)}
        self._impacts: dict[str, list[tuple[str, float]]] = {}
        self._fill()

    def search(self, query: str, *, limit: int = 5) -> tuple[Match, ...]:
        """Return up to `limit` tools, best first; tools of one score in the order of their ids.

        A tool whose id is the query comes first. A query without a known term, such as the empty one, finds nothing. Any
        text is answered; only its first 2,000 characters count.
        """
        scores: dict[str, float] = {}
        for term in dict.fromkeys(terms(query[:MAX_QUERY_CHARS])):
            for tool_id, impact in self._impacts.get(term, ()):
                scores[tool_id] = scores.get(tool_id, 0.0) + impact
        if (named := self._named(query.strip())) is not None:
            scores[named] = 1 + 2 * max(scores.values(), default=0.0)
        best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[: max(limit, 0)]
        return tuple(Match(self._tools[tool_id], round(score, 6)) for tool_id, score in best)

    def _named(self, query: str) -> str | None:
        parts = split_id(query.casefold())
        tool_id = ".".join(parts) if parts else ""
        return tool_id if tool_id in self._tools else None

    def _fill(self) -> None:
        """Compute what each term adds to the score of each tool that has it (Robertson and Zaragoza 2009, §3.6)."""
        fields = {tool_id: [Counter(terms(text)) for text in _texts(tool)] for tool_id, tool in self._tools.items()}
        if not fields:
            return
        averages = [
            max(1.0, sum(counts[i].total() for counts in fields.values()) / len(fields)) for i in range(len(_FIELDS))
        ]
        frequency: Counter[str] = Counter()
        weighted: dict[str, dict[str, float]] = {}
        for tool_id, counts in fields.items():
            sums: dict[str, float] = {}
            for field, average, count in zip(_FIELDS, averages, counts, strict=True):
                length = 1 - field.b + field.b * count.total() / average
                for term, times in count.items():
                    sums[term] = sums.get(term, 0.0) + field.weight * times / length
            weighted[tool_id] = sums
            frequency.update(sums.keys())
        for tool_id, sums in weighted.items():
            for term, mass in sums.items():
                rarity = math.log(1 + (len(fields) - frequency[term] + 0.5) / (frequency[term] + 0.5))
                self._impacts.setdefault(term, []).append((tool_id, rarity * mass / (_K1 + mass)))


def search(query: str, tools: Iterable[Tool], *, limit: int = 5) -> tuple[Match, ...]:
    """Search once, without keeping the index; see `Index.search`."""
    return Index(tools).search(query, limit=limit)


@dataclass(frozen=True)
class _Field:
    weight: float
    b: float


_FIELDS = (
    _Field(2.0, 0.3),  # name
    _Field(1.0, 0.3),  # skill
    _Field(1.0, 0.3),  # title
    _Field(1.0, 0.65),  # description
    _Field(0.5, 0.3),  # names of parameters
    _Field(0.3, 0.65),  # descriptions and enumerated values of parameters
)
"""Weights and length normalisation that served four public sets of tools best; changes of a third hardly show."""

_K1 = 1.4


def _texts(tool: Tool) -> tuple[str, ...]:
    parameters = tool.input_schema.get("properties")
    properties = parameters if isinstance(parameters, Mapping) else {}
    return (
        f"{tool.name} {tool.id}",
        tool.skill,
        tool.hints.title or "",
        tool.description,
        " ".join(str(name) for name in properties),
        " ".join(_words(properties, depth=0)),
    )


def _words(schema: object, *, depth: int) -> Iterator[str]:
    """Yield descriptions, titles and enumerated values anywhere in a schema; a deep one is not followed to its end."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if isinstance(value, str) and key in {"description", "title"}:
                yield value
            elif key == "enum" and isinstance(value, list):
                yield from (item for item in value if isinstance(item, str))
            else:
                yield from _words(value, depth=depth + 1)
    elif isinstance(schema, list):
        for item in schema:
            yield from _words(item, depth=depth + 1)


_MAX_DEPTH = 12
