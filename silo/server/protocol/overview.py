"""A map of the installed skills for the description of `silo_search`: which skills there are and what they are about, in few tokens. Pure.

Agents pass over a search tool that does not say what can be found. The same skills give the same map, byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from silo.model import Skill
from silo.server.protocol.tokens import count_tokens
from silo.server.protocol.untrusted_text import gives_orders, line

MAP_TOKENS = 280
"""For any number of skills. With it, all that an agent pays before its first call stays under 700; half of it would name half as many."""

WORDS_CHARS = 60
"""What is said of one skill, at most: enough for a sentence like `Sign and verify JSON Web Tokens.`"""


def overview(skills: Sequence[Skill], budget: int = MAP_TOKENS) -> str:
    """Return the map, sorted by name, in at most `budget` tokens; empty if there are no skills.

    All names if they fit, else those of the largest skills, and how many there are besides; what is left goes to a few words on the
    largest. Large is what has many tools; of skills of one size, those that are named are spread over the alphabet. A skill whose name
    gives orders is only counted, a description that does is left out.
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
"""Of the budget, when not even the names fit: a name finds a service that the user named, words find what nobody named."""


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
    """Return a few words on what a skill is for."""
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
