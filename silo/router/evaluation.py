"""The router as a backend of `silo bench routing` and of the public sets' own `evaluate.py`.

evaluate.py --backend silo.router.evaluation:ToolSetIndex SET ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from silo.router.documents import ToolDocument
from silo.router.ranker import Ranker
from silo.router.settings import RouterSettings


def document_of(tool: Mapping[str, Any], *, examples: Sequence[str] = ()) -> ToolDocument:
    """Return the document of a tool of a public set; its category, if it has one, becomes a tag."""
    category = tool.get("category")
    return ToolDocument(
        id=tool["id"],
        name=tool["name"],
        description=tool.get("description") or "",
        group=tool.get("group") or "",
        group_description=tool.get("group_description") or "",
        schema=tool.get("parameters"),
        tags=(category,) if isinstance(category, str) else (),
        examples=tuple(examples),
    )


class ToolSetIndex:
    """An index over the tools of a set.

    Args:
        tools: the lines of `tools.jsonl`.
        settings: which parts of the ranking are on.
        examples: requests by the id of the tool that answers them.
    """

    def __init__(
        self,
        tools: Sequence[Mapping[str, Any]],
        settings: RouterSettings | None = None,
        *,
        examples: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        documents = [document_of(tool, examples=(examples or {}).get(tool["id"], ())) for tool in tools]
        self._ranker = Ranker.build(documents, settings=settings or RouterSettings())

    def search(self, query: str, k: int) -> list[tuple[str, float]]:
        """Return the ids of the first `k` tools, with their scores."""
        return [(hit.id, hit.score) for hit in self._ranker.search([query], limit=k)]
