"""Compare the arguments of a call with the patterns of a rule. The rules themselves are in `silo.policy.rules`.

Both directions fail closed. A rule that denies or asks must not be evaded, so it matches if one piece of a value
matches in any way in which it may be read (`silo.policy.texts`). A rule that allows must be sure, so every piece has to
match in each way, and a piece that may be read in unknown ways doesn't.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property

from silo.model import File
from silo.policy.texts import Unclear, readings, split_url, sure_readings
from silo.schema.possible import Place
from silo.wire.messages import Json


@dataclass(frozen=True)
class Glob:
    """A case-sensitive pattern for a whole text: `*` any characters and line ends, `?` one, `[abc]`, `[!abc]` a set."""

    text: str

    def matches(self, text: str) -> bool:
        """Whether the pattern matches the whole text."""
        return self._matcher.match(text) is not None

    def covers(self, text: str) -> bool:
        """Whether the pattern matches the whole text, and a URL part by part: scheme, authority, and the rest.

        So a `*` in the host of a pattern stands for no `/`, and a pattern without `://` covers no URL, except `*`.
        """
        url = split_url(text)
        if url is None or set(self.text) <= {"*"}:
            return self.matches(text)
        scheme, authority, rest = self._url
        return scheme.matches(url.scheme) and authority.matches(url.authority) and rest.matches(url.rest)

    @cached_property
    def _url(self) -> tuple[Glob, Glob, Glob]:
        scheme, _, rest = self.text.partition("://")
        # A `/` in a set, as in `[a/]`, ends the authority too; the pattern then covers no URL.
        authority, slash, path = rest.partition("/")
        # `https://host*` goes on after the host.
        return Glob(scheme), Glob(authority), Glob(slash + path if slash or not authority.endswith("*") else "*")

    @cached_property
    def _matcher(self) -> re.Pattern[str]:
        # `fnmatch` writes expressions that never backtrack over a `*` (Python 3.11), so a long text from an agent takes
        # linear time. The pattern is converted to NFC, because an editor may have saved another form.
        return re.compile(translate(unicodedata.normalize("NFC", self.text)))


@dataclass(frozen=True)
class Arguments:
    """The arguments of a call, defaults included, and the schema of the tool that gets them."""

    values: Mapping[str, Json]
    schema: Mapping[str, Json] = field(default_factory=dict)

    @cached_property
    def place(self) -> Place:
        """The arguments as the schema may describe them."""
        return Place.of(self.values, self.schema)


def is_unknown(arguments: Arguments, path: str) -> bool:
    """Whether the value at a path was left out and may come from a default that silo can't see."""
    return any(value is _UNKNOWN for value in _reach(arguments.values, path, arguments.place))


def any_mismatch(arguments: Arguments, path: str, globs: Sequence[Glob]) -> str | None:
    """Return why no part of an argument matches any pattern, or None if one does; for rules that deny or ask.

    Lists and objects are searched, names included. A file counts by its name. Text is tried in all its readings.
    """
    found = [value for value in _reach(arguments.values, path, arguments.place) if value is not _MISSING]
    if not found:
        return f"{path} is not given"
    if any(value is _UNKNOWN for value in found):
        return None
    texts = (text for value in found for text in _all_texts(value))
    # None is a text that can't be compared; it counts as a match.
    if any(text is None or any(glob.matches(text) for glob in globs) for text in texts):
        return None
    return f"{path} is {_show(found)}, not {_show_globs(globs)}"


def whole_mismatch(arguments: Arguments, path: str, globs: Sequence[Glob]) -> str | None:
    """Return why some part of an argument matches no pattern, or None if all parts match; for rules that allow.

    A list must have items, and all of them must match; objects and files never match. Text must be plain, as
    `silo.policy.texts.sure_readings` has it, and match in all its readings.
    """
    found = list(_reach(arguments.values, path, arguments.place))
    if any(value is _UNKNOWN for value in found):
        return f"{path} is not given, and its default is not known"
    if not found or any(value is _MISSING for value in found):
        return f"{path} is not given" if len(found) <= 1 else f"{path} is not given everywhere"
    for value in found:
        for piece in _pieces(value):
            if isinstance(piece, Unclear):
                return f"{path} {piece.why}"
            if not all(any(glob.covers(text) for glob in globs) for text in piece):
                return f"{path} is {_show(found)}, not {_show_globs(globs)}"
    return None


_MISSING = object()
_UNKNOWN = object()


def _reach(value: Json, path: str, place: Place) -> Iterator[Json]:
    """Yield every value at a dotted path; where the path ends too early, `_UNKNOWN` or `_MISSING`.

    A name may contain dots, so `a.b` is both `b` in `a` and the name `a.b`. For a list on the path, each item is
    followed. It is unknown what a tool takes for a property that its schema has and that is absent.
    """
    if not path:
        yield value
    elif isinstance(value, Mapping):
        is_known = True
        ways = [(name, path[end + 1 :]) for end in _ends(path) for name in _spelled(value, path[:end])]
        for name, rest in ways:
            yield from _reach(value[name], rest, place.inside(name))
        if any(path[:end] not in value and place.may_have(path[:end]) for end in _ends(path)):
            is_known = False
            yield _UNKNOWN
        if is_known and not ways:
            yield _MISSING
    elif isinstance(value, list | tuple) and value:
        for index, item in enumerate(value):
            yield from _reach(item, path, place.inside(index))
    else:
        yield _MISSING


def _spelled(value: Mapping[str, Json], name: str) -> list[str]:
    """Return the names of an object that are a name, in any canonically equivalent spelling."""
    if name.isascii():
        return [name] if name in value else []
    return [one for one in value if unicodedata.normalize("NFC", one) == name]


def _ends(path: str) -> Iterator[int]:
    yield from (index for index, character in enumerate(path) if character == ".")
    yield len(path)


# --- for rules that deny or ask ---------------------------------------------------------------------------------------


def _all_texts(value: Json) -> Iterator[str | None]:
    """Yield every text in a value, in all its readings; None for one that can't be compared."""
    if isinstance(value, str):
        yield from readings(value)
    elif isinstance(value, File):
        yield from readings(value.name)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from readings(str(name))
            yield from _all_texts(item)
        if not value:
            yield "{}"
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _all_texts(item)
        if not value:
            yield "[]"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from {json.dumps(value), json.dumps(float(value)), scalar_text(value)}
    elif value is None or isinstance(value, bool):
        yield scalar_text(value)
    else:
        yield None


# --- for rules that allow ---------------------------------------------------------------------------------------------


def _pieces(value: Json) -> Iterator[tuple[str, ...] | Unclear]:
    """Yield, for each piece of a value, the texts that must all match."""
    if isinstance(value, str):
        yield sure_readings(value)
    elif isinstance(value, list | tuple):
        if not value:
            yield Unclear("is an empty list")
        for item in value:
            yield from _pieces(item)
    elif value is None or isinstance(value, bool | int | float):
        yield (scalar_text(value),)
    else:
        yield Unclear(f"is {'a file' if isinstance(value, File) else 'an object'}, which no rule allows by a pattern")


# --- numbers, and what is shown ---------------------------------------------------------------------------------------


def scalar_text(value: str | bool | float | None) -> str:
    """Return the JSON text for comparing a scalar; a whole number has no point, as 1.0 is 1 in JSON Schema."""
    if isinstance(value, str):
        return value
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _show(found: Sequence[Json]) -> str:
    value = found[0] if len(found) == 1 else list(found)
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_show_other)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


_SHOWN_CHARS = 60


def _show_other(value: object) -> str:
    return f"file {value.name!r}" if isinstance(value, File) else type(value).__name__


def _show_globs(globs: Sequence[Glob]) -> str:
    return " or ".join(repr(glob.text) for glob in globs)
