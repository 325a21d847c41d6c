"""Lessons: requests that led to a successful call become examples of the tool. Pure; callers store them.

A caller records a lesson only if a search was followed by one successful call of one tool: no refused or failed call,
and no request that took several tools. Lessons of one principal never affect the searches of another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from silo.router.cleaning import clean, suspicious_phrases
from silo.router.documents import MAX_EXAMPLE_CHARS, MAX_EXAMPLES

MAX_TOOLS = 2000
"""Tools with lessons for one principal; of more, the tool whose last lesson is oldest is dropped."""

MAX_AGE_S = 90 * 24 * 3600
"""A lesson expires after a quarter: tools change, and so do requests."""

VERSION = 1


class LessonsDamaged(Exception):
    """The document is not what `Lessons.to_json` writes."""


@dataclass(frozen=True)
class LearnedRequest:
    """A request that a tool answered, and the time, in seconds since the epoch."""

    request: str
    at: float


class Lessons:
    """All lessons, immutable: for each principal, its tools, each with its latest requests, oldest first.

    Args:
        tools: by principal, then by the tool's id.
    """

    def __init__(self, tools: Mapping[str, Mapping[str, tuple[LearnedRequest, ...]]] | None = None) -> None:
        self._tools = {principal: dict(theirs) for principal, theirs in (tools or {}).items()}

    def with_lesson(self, principal: str, request: str, tool: str, *, now: float) -> Lessons:
        """Return the lessons with one more. An empty request, or one that instructs the model, is not added.

        The same request for the same tool counts once, with its latest time; of more than `MAX_EXAMPLES`, the oldest
        goes.
        """
        text = clean(request, limit=MAX_EXAMPLE_CHARS).strip()
        if not text or suspicious_phrases(text):
            return self
        theirs = dict(self._tools.get(principal, {}))
        kept = [lesson for lesson in theirs.pop(tool, ()) if lesson.request.casefold() != text.casefold()]
        # Removed and added again, because the dictionary is in the order of each tool's last lesson.
        theirs[tool] = tuple([*kept, LearnedRequest(text, now)][-MAX_EXAMPLES:])
        while len(theirs) > MAX_TOOLS:
            del theirs[next(iter(theirs))]
        return Lessons({**self._tools, principal: theirs})

    def examples(self, principal: str, *, now: float) -> dict[str, tuple[str, ...]]:
        """Return a principal's requests by tool, for `silo.router.index.Index`, without expired ones."""
        fresh = {tool: _fresh(lessons, now) for tool, lessons in self._tools.get(principal, {}).items()}
        return {tool: tuple(lesson.request for lesson in lessons) for tool, lessons in fresh.items() if lessons}

    def without_expired(self, *, now: float) -> Lessons:
        """Return the lessons without expired ones."""
        tools = {
            principal: {tool: fresh for tool, lessons in theirs.items() if (fresh := _fresh(lessons, now))}
            for principal, theirs in self._tools.items()
        }
        return Lessons({principal: theirs for principal, theirs in tools.items() if theirs})

    def without(self, tool: str) -> Lessons:
        """Return the lessons without those of a removed tool: a later tool of that name may be another one."""
        return Lessons(
            {
                principal: {name: each for name, each in theirs.items() if name != tool}
                for principal, theirs in self._tools.items()
            }
        )

    def without_principal(self, principal: str) -> Lessons:
        """Return the lessons without those of a principal."""
        return Lessons({each: theirs for each, theirs in self._tools.items() if each != principal})

    def to_json(self) -> str:
        """Return the lessons as a document."""
        tools = {
            principal: {tool: [[lesson.request, lesson.at] for lesson in lessons] for tool, lessons in theirs.items()}
            for principal, theirs in self._tools.items()
        }
        return json.dumps({"version": VERSION, "lessons": tools}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Lessons:
        """Read a document.

        Raises:
            LessonsDamaged: the text is not from `to_json`; the caller starts again without lessons.
        """
        try:
            content = json.loads(text)
            if content["version"] != VERSION:
                raise LessonsDamaged(f"lessons of version {content['version']!r} are not known here")
            tools = {
                str(principal): {str(tool): _lessons(lessons) for tool, lessons in theirs.items()}
                for principal, theirs in content["lessons"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LessonsDamaged("the lessons cannot be read") from error
        return cls(tools)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lessons) and self._tools == other._tools

    def __hash__(self) -> int:
        return hash(self.to_json())


def _fresh(lessons: tuple[LearnedRequest, ...], now: float) -> tuple[LearnedRequest, ...]:
    return tuple(lesson for lesson in lessons if now - lesson.at <= MAX_AGE_S)


def _lessons(content: Iterable[tuple[object, float]]) -> tuple[LearnedRequest, ...]:
    lessons = [LearnedRequest(clean(str(request), limit=MAX_EXAMPLE_CHARS), float(at)) for request, at in content]
    return tuple(lessons[-MAX_EXAMPLES:])
