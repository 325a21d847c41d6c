"""Which parts of the ranking are on. Values only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RouterSettings:
    """Each part can be switched off; `docs/explanation/routing.md` says what each gives.

    Attributes:
        clauses: a request's clauses are looked at by themselves, too.
        semantic: the token table is used.
        rerank: the first tools are put in order by the linear model.
        typos: words that no tool has stand for similar ones.
    """

    clauses: bool = True
    semantic: bool = True
    rerank: bool = True
    typos: bool = True
