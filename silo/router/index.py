"""Find the tools that answer a request: the interface of the router. `silo.router.ranker` ranks.

Pure, except for the cache file that a caller may name. Commands that search for nothing load this module, so slow
modules are imported where they are used: `silo.router.ranker` (numpy, a tenth of a second).
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from silo.model import Tool
from silo.router.documents import SkillAbout, ToolDocument, document
from silo.router.settings import RouterSettings

if TYPE_CHECKING:
    from silo.router.ranker import Ranker

MAX_SIBLINGS = 8
"""How many other tools of its skill are listed with a match; more names would help little."""


@dataclass(frozen=True)
class Match:
    """A tool that was found.

    Attributes:
        tool: the tool.
        score: from 0 to 1, how likely it answers the request; only comparable within one search.
        why: which of its texts have which words of the request, e.g. `name: sign, token`; empty if only the meaning is
            similar.
        low_confidence: the match is doubtful; a caller should check it, or ask differently.
        siblings: names of other visible tools of its skill that were not found; at most `MAX_SIBLINGS`.
    """

    tool: Tool
    score: float
    why: tuple[str, ...] = ()
    low_confidence: bool = False
    siblings: tuple[str, ...] = ()


class Index:
    """A search index of tools. Immutable: if the catalogue changes, call `changed`, or make a new index with the cache.

    Args:
        tools: the tools to search; of two with the same id, the later one counts.
        skills: the texts about whole skills, by skill name.
        examples: requests that a tool answers, by its id; from its author, and from `silo.router.learning`.
        settings: which parts of the ranking are on.
        cache: a file that keeps the index between starts; it is replaced if it is for other tools.
    """

    def __init__(
        self,
        tools: Iterable[Tool],
        *,
        skills: Mapping[str, SkillAbout] | None = None,
        examples: Mapping[str, Sequence[str]] | None = None,
        settings: RouterSettings | None = None,
        cache: Path | None = None,
    ) -> None:
        self._tools = {tool.id: tool for tool in sorted(tools, key=lambda tool: tool.id)}
        self._by_skill: dict[str, list[Tool]] = {}
        for tool in self._tools.values():
            self._by_skill.setdefault(tool.skill, []).append(tool)
        self._skills = dict(skills or {})
        self._examples = {tool: tuple(given) for tool, given in (examples or {}).items()}
        self._settings = settings or RouterSettings()
        self._cache = cache
        self._ranker: Ranker | None = None
        self._lock = threading.Lock()

    def search(
        self,
        query: str | Sequence[str],
        *,
        limit: int = 5,
        visible: Collection[str] | None = None,
        usage: Mapping[str, int] | None = None,
    ) -> tuple[Match, ...]:
        """Return up to `limit` tools, best first; tools with the same score are sorted by id.

        A tool whose name or id is the query comes first. A query without meaningful words finds nothing. Any text is
        accepted; only its first 2,000 characters count.

        Args:
            query: a request, or several that belong together.
            limit: how many tools to return.
            visible: ids of the tools that the caller may see; the others have no effect, not even on scores. None: all.
            usage: how often each tool was called; decides between tools that fit equally well.
        """
        queries = [query] if isinstance(query, str) else list(query)
        hits = self._ready().search(queries, limit=limit, visible=visible, usage=usage)
        found = {hit.id for hit in hits}
        return tuple(
            Match(self._tools[hit.id], hit.score, hit.why, hit.low_confidence, self._siblings(hit.id, found, visible))
            for hit in hits
        )

    def changed(
        self,
        *,
        add: Iterable[Tool] = (),
        remove: Collection[str] = (),
        examples: Mapping[str, Sequence[str]] | None = None,
    ) -> Index:
        """Return an index with some tools added or replaced, some removed, and new examples for some.

        Only those are read again, and every search has the same result as in a newly built index. The cache is not
        changed.
        """
        new = {tool.id: tool for tool in add}
        tools = {id_: tool for id_, tool in self._tools.items() if id_ not in set(remove)} | new
        given = self._examples | {id_: tuple(each) for id_, each in (examples or {}).items()}
        other = Index(tools.values(), skills=self._skills, examples=given, settings=self._settings)
        if self._ranker is not None:
            touched = {*new, *(id_ for id_ in examples or () if id_ in tools)}
            documents = [other._document(tools[id_]) for id_ in sorted(touched)]
            other._ranker = self._ranker.changed(add=documents, remove=remove)
        return other

    @property
    def notes(self) -> tuple[str, ...]:
        """Problems that were worked around (a damaged cache, a broken table), for the log; builds the index."""
        return self._ready().notes

    def _ready(self) -> Ranker:
        with self._lock:
            if self._ranker is None:
                from silo.router.ranker import Ranker

                documents = [self._document(tool) for tool in self._tools.values()]
                self._ranker = Ranker.build(documents, settings=self._settings, cache=self._cache)
            return self._ranker

    def _document(self, tool: Tool) -> ToolDocument:
        return document(tool, about=self._skills.get(tool.skill), examples=self._examples.get(tool.id, ()))

    def _siblings(self, tool_id: str, found: Collection[str], visible: Collection[str] | None) -> tuple[str, ...]:
        near = self._by_skill[self._tools[tool_id].skill]
        others = (tool for tool in near if tool.id not in found and (visible is None or tool.id in visible))
        return tuple(tool.name for tool in islice(others, MAX_SIBLINGS))


def search(query: str, tools: Iterable[Tool], *, limit: int = 5) -> tuple[Match, ...]:
    """Search once, without keeping the index; see `Index.search`."""
    return Index(tools).search(query, limit=limit)
