"""Which tool was called after a search: the only thing that the router learns from. Pure; times come in as arguments.

A search teaches a lesson only if the same caller, in the same session and before its next search, successfully called
exactly one of the tools that the search showed. A request that took two tools would be a wrong example for both.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from silo.router.cleaning import clean, suspicious_phrases

WINDOW_S = 15 * 60.0
"""A later call is probably not about the search. A person may take minutes to approve a call."""

MAX_REQUEST_CHARS = 200
"""A longer request says more than one thing, or quotes something."""

MAX_SESSIONS = 64
"""How many sessions' last searches are remembered; one process serves one session or a few."""

_MIN_WORDS = 2
_MAX_WORD_CHARS = 30
_MIN_PART_CHARS = 3
_MAX_VALUES = 10_000


@dataclass(frozen=True)
class Lesson:
    """A request, without the values that the call was made with, and the one tool that answered it."""

    who: str
    request: str
    tool: str


@dataclass
class _Search:
    """Requests that were made together.

    Attributes:
        shown: each request with the tools that were shown for it.
        called: by request, the calls since: each tool with the text to learn.
    """

    at: float
    shown: tuple[tuple[str, frozenset[str]], ...]
    called: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


class Feedback:
    """The last search of each session, until it is over."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Search] = {}

    def searched(self, who: str, session: str, shown: Sequence[tuple[str, Sequence[str]]], at: float) -> None:
        """Begin a search: the tools that were shown for each request.

        The session's search before this one is dropped; call `end` first to learn from it.
        """
        self._open.pop((who, session), None)
        self._open[who, session] = _Search(at, tuple((request, frozenset(tools)) for request, tools in shown))
        while len(self._open) > MAX_SESSIONS:
            del self._open[next(iter(self._open))]

    def called(self, who: str, session: str, tool: str, arguments: Mapping[str, Any], at: float) -> None:
        """Note a call that succeeded."""
        search = self._open.get((who, session))
        if search is None or at - search.at > WINDOW_S:
            return
        requests = [request for request, tools in search.shown if tool in tools]
        for request in requests:
            # A tool that was shown for two requests of one search may have answered either of them.
            learnt = without_values(request, arguments) if len(requests) == 1 else ""
            search.called.setdefault(request, []).append((tool, learnt))

    def end(self, who: str, session: str) -> list[Lesson]:
        """End the search of a session; return what it has taught."""
        search = self._open.pop((who, session), None)
        if search is None:
            return []
        return [Lesson(who, learnt, tool) for calls in search.called.values() for learnt, tool in _only(calls)]

    def close(self) -> list[Lesson]:
        """End all searches; return what they have taught."""
        return [lesson for who, session in tuple(self._open) for lesson in self.end(who, session)]


def _only(calls: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the request and the tool if all calls were of one tool, and left the same request without their values."""
    found = {(learnt, tool) for tool, learnt in calls}
    return [pair for pair in found if pair[0]] if len(found) == 1 else []


def without_values(request: str, arguments: Mapping[str, Any]) -> str:
    """Return a request without the values of a call and without words that look like values.

    It is empty if too little is left to learn from. Values say what a call is about, not what its tool does; and they
    are the user's, so silo does not keep them.
    """
    text = clean(request, limit=MAX_REQUEST_CHARS + 1)
    if len(text) > MAX_REQUEST_CHARS or suspicious_phrases(text):
        return ""
    given = list(islice(_values(arguments), _MAX_VALUES + 1))
    if len(given) > _MAX_VALUES:
        return ""
    values = {_folded(value) for value in given if len(value) <= MAX_REQUEST_CHARS}
    text = " ".join(text.split())
    for value in sorted(values, key=len, reverse=True):
        if " " in value:
            text = re.sub(re.escape(value), " ", text, flags=re.IGNORECASE)
    parts = [value for value in values if len(value) >= _MIN_PART_CHARS]
    words = [word for word in text.split() if not _is_data(word) and not _holds(word.casefold(), values, parts)]
    left = " ".join(words)
    if any(part in left.casefold() for part in parts):
        return ""
    return left if sum(any(map(str.isalpha, word)) for word in words) >= _MIN_WORDS else ""


def _folded(value: str) -> str:
    return " ".join(clean(value, limit=MAX_REQUEST_CHARS).casefold().split())


def _holds(word: str, values: Collection[str], parts: Sequence[str]) -> bool:
    return word.strip(_MARKS) in values or any(part in word for part in parts)


def _is_data(word: str) -> bool:
    return len(word) > _MAX_WORD_CHARS or _DATA.search(word) is not None


_MARKS = "\"'.,;:!?()[]{}"
_DATA = re.compile(r"^\W*\d+\W*$|\d{3}|[@\\/=]|\d.*[A-Za-z].*\d")
"""Numbers, addresses, paths, assignments, keys."""


def _values(value: object) -> Iterator[str]:
    """Yield the text of every value, also of those in lists and objects."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _values(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _values(item)
    elif isinstance(value, str):
        yield value.strip()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
