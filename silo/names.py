"""Split tool names, and find the one that was probably meant. `silo.router` searches by meaning."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from silo.remedies import Advice, NearestNames, Remedy

SEPARATORS = (".", "__")
"""`skill.tool` is a tool's id; `skill__tool` replaces it where a client allows only letters, digits, `_` and `-`."""

MAX_NAME_CHARS = 200
"""Longer than any valid name (32 for a skill, 64 for a tool), so nothing longer is compared."""


def split_id(name: str) -> tuple[str, str] | None:
    """Return skill and tool of `skill.tool` or `skill__tool`; None if `name` has neither form.

    A skill's name never contains `__` or a dot, so the first separator is the right one.
    """
    if len(name) > MAX_NAME_CHARS:
        return None
    for separator in SEPARATORS:
        skill, found, tool = name.partition(separator)
        if found and skill and tool and "." not in skill and "." not in tool:
            return skill, tool
    return None


def nearest(name: str, names: Iterable[str], *, limit: int = 3) -> tuple[str, ...]:
    """Return up to `limit` of `names` that look like `name`, best first; ties in alphabetical order.

    Letter case and the three separators `.`, `_` and `-` do not count as differences.
    """
    wanted = _plain(name[:MAX_NAME_CHARS])
    if not wanted or limit < 1:
        return ()
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    scored = []
    for candidate in sorted(set(names)):
        plain = _plain(candidate)
        matcher.set_seq1(plain)
        is_far = matcher.real_quick_ratio() < _CUTOFF or matcher.quick_ratio() < _CUTOFF
        score = 0.0 if is_far else matcher.ratio()
        # A whole part (`sign` for `jwt.sign`) is a better sign than similar letters.
        if len(wanted) > 2 and (wanted in plain.split() or plain.startswith(wanted)):
            score = max(score, 0.8)
        if score >= _CUTOFF:
            scored.append((-score, candidate))
    return tuple(candidate for _, candidate in sorted(scored)[:limit])


def suggest(name: str, names: Iterable[str], *, otherwise: Remedy | str) -> Remedy:
    """Return the nearest names as what to do next, or `otherwise` when nothing is near."""
    near = nearest(name, names)
    if near:
        return NearestNames(near)
    return Advice(otherwise) if isinstance(otherwise, str) else otherwise


def suggestion(name: str, names: Iterable[str], *, otherwise: str) -> str:
    """Return `did you mean 'x' or 'y'?`, or `otherwise` when nothing is near."""
    return str(suggest(name, names, otherwise=otherwise))


_CUTOFF = 0.6
"""The default of `difflib.get_close_matches`: roughly one wrong letter in three."""


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("__", " ").replace(".", " ").replace("_", " ").replace("-", " ").split())
