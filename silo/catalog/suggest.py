"""Names close to a misspelt one, for hints. Ranking tools by what they do is `silo.router`'s."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_CHARS = 200
# difflib compares in quadratic time; nobody mistypes a longer name.


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> tuple[str, ...]:
    """Return up to `limit` of the known names that look like `name`, best first."""
    return tuple(difflib.get_close_matches(name[:_MAX_CHARS], sorted(set(known)), n=limit, cutoff=0.6))


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str) -> str:
    """Word a hint: the nearest names, or `otherwise` if none is near."""
    found = nearest(name, known)
    if not found:
        return otherwise
    return f"did you mean {' or '.join(repr(one) for one in found)}?"
