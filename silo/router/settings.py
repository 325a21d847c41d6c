"""The settings of the router: which parts of the ranking are on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RouterSettings:
    """Each part can be switched off; `docs/explanation/routing.md` has the effect of each.

    Attributes:
        clauses: a request's clauses are also scored separately.
        semantic: the token table is used.
        rerank: a linear model orders the first tools.
        typos: unknown words are replaced by similar ones.
    """

    clauses: bool = True
    semantic: bool = True
    rerank: bool = True
    typos: bool = True
