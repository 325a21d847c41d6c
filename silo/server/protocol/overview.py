"""A short map of the installed skills for the description of `silo_search`: their names and what they are about. Pure.

Agents ignore a search tool that does not say what it can find. The same skills give the same map, byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from silo.model import Skill
from silo.server.protocol.tokens import count_tokens
from silo.server.protocol.untrusted_text import gives_orders, line

MAP_TOKENS = 280
"""For any number of skills. With it, an agent pays less than 700 tokens in all before its first call. With half of it,
the map would name half as many skills."""

WORDS_CHARS = 60
"""The longest text about one skill: enough for a sentence like `Sign and verify JSON Web Tokens.`"""


def overview(skills: Sequence[Skill], budget: int = MAP_TOKENS) -> str:
    """Return the map, sorted by name, in at most `budget` tokens; empty if there are no skills.

    It has all names if they fit, else the names of the largest skills and the number of the others. The rest of the
    budget goes to a few words about the largest skills. The largest skills are those with the most tools; among skills
    of the same size, the named ones are spread over the alphabet. A skill whose name gives orders is only counted. A
    description that gives orders is left out.
    """
    nameable = [skill for skill in skills if not gives_orders(skill.namespace.replace("_", " "))]
    ranked = sorted(nameable, key=lambda skill: (-len(skill.tools), _shuffled(skill.namespace)))
    named = {skill.namespace: "" for skill in ranked}
    if not _fits(named, len(skills), budget):
        named = _first_names(ranked, len(skills), budget * _NAMES_SHARE)
    for skill in ranked[: len(named)]:
        described = named | {skill.namespace: about(skill)}
        if not _fits(described, len(skills), budget):
            break
        named = described
    return _render(named, len(skills))


_NAMES_SHARE = 2 / 3
"""How much of the budget names get when they don't all fit. A name helps to find a service that the user named; words
help to find what the user only described."""


def _shuffled(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _first_names(ranked: Sequence[Skill], total: int, budget: float) -> dict[str, str]:
    named: dict[str, str] = {}
    for skill in ranked:
        more = named | {skill.namespace: ""}
        if not _fits(more, total, budget):
            break
        named = more
    return named


def about(skill: Skill) -> str:
    """Return a few words about what a skill is for."""
    said = (skill.header.description, *(tool.description for tool in skill.tools[:1]))
    return next((found for text in said if (found := line(text, WORDS_CHARS))), "")


def _fits(named: Mapping[str, str], total: int, budget: float) -> bool:
    return count_tokens(_render(named, total)) <= budget


def _render(named: Mapping[str, str], total: int) -> str:
    if not named:
        return f"{total} skills are installed." if total else ""
    lines = [f"- {name}: {words}" for name, words in sorted(named.items()) if words]
    bare = sorted(name for name, words in named.items() if not words)
    rest = total - len(named)
    if rest:
        bare.append(f"and {rest} more")
    return "\n".join([*lines, ", ".join(bare)] if bare else lines)
