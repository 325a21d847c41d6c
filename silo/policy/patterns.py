"""Compare the arguments of a call with the patterns of a rule. The rules themselves are in `silo.policy.rules`.

Both directions fail closed. A rule that denies or asks must not be evaded, so it matches if one piece of a value
matches in any equivalent Unicode form. A rule that allows must be sure, so every piece has to match exactly.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property

from silo.model import File
from silo.wire.messages import Json


@dataclass(frozen=True)
class Glob:
    """A case-sensitive pattern for a whole text: `*` any characters and line ends, `?` one, `[abc]`, `[!abc]` a set."""

    text: str

    def matches(self, text: str) -> bool:
        """Whether the pattern matches the whole text."""
        return self._matcher.match(text) is not None

    @cached_property
    def _matcher(self) -> re.Pattern[str]:
        # `fnmatch` writes expressions that never backtrack over a `*` (Python 3.11), so a long text from an agent takes
        # linear time. The pattern is converted to NFC, because an editor may have saved another form.
        return re.compile(translate(unicodedata.normalize("NFC", self.text)))


def any_mismatch(arguments: Mapping[str, Json], path: str, globs: Sequence[Glob]) -> str | None:
    """Return why no part of an argument matches any pattern, or None if one does; for rules that deny or ask.

    Lists and objects are searched, names included. A file counts by its name. Text is tried unchanged, in NFC and in
    NFKC.
    """
    found = [value for value in _reach(arguments, path) if value is not _MISSING]
    if not found:
        return f"{path} is not given"
    texts = (text for value in found for text in _all_texts(value))
    # None is a text that can't be compared; it counts as a match.
    if any(text is None or any(glob.matches(text) for glob in globs) for text in texts):
        return None
    return f"{path} is {_show(found)}, not {_show_globs(globs)}"


def whole_mismatch(arguments: Mapping[str, Json], path: str, globs: Sequence[Glob]) -> str | None:
    """Return why some part of an argument matches no pattern, or None if all parts match; for rules that allow.

    A list must have items, and all of them must match; objects and files never match. Text must be in NFC, without
    control and format characters, and must match in NFKC as well.
    """
    found = list(_reach(arguments, path))
    if not found or any(value is _MISSING for value in found):
        return f"{path} is not given" if len(found) <= 1 else f"{path} is not given everywhere"
    for value in found:
        for piece in _pieces(value):
            if isinstance(piece, _Unclear):
                return f"{path} {piece.why}"
            if not all(any(glob.matches(text) for glob in globs) for text in piece):
                return f"{path} is {_show(found)}, not {_show_globs(globs)}"
    return None


_MISSING = object()


def _reach(value: Json, path: str) -> Iterator[Json]:
    """Yield every value at a dotted path, and `_MISSING` wherever the path ends too early.

    A name may contain dots, so `a.b` is both `b` in `a` and the name `a.b`. For a list on the path, each item is
    followed.
    """
    if not path:
        yield value
    elif isinstance(value, Mapping):
        ways = [(path[:end], path[end + 1 :]) for end in _ends(path) if path[:end] in value]
        for name, rest in ways:
            yield from _reach(value[name], rest)
        if not ways:
            yield _MISSING
    elif isinstance(value, list | tuple) and value:
        for item in value:
            yield from _reach(item, path)
    else:
        yield _MISSING


def _ends(path: str) -> Iterator[int]:
    yield from (index for index, character in enumerate(path) if character == ".")
    yield len(path)


# --- for rules that deny or ask ---------------------------------------------------------------------------------------


def _all_texts(value: Json) -> Iterator[str | None]:
    """Yield every text in a value, in every Unicode form; None for one that can't be compared."""
    if isinstance(value, str):
        yield from _spellings(value)
    elif isinstance(value, File):
        yield from _spellings(value.name)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _spellings(str(name))
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


def _spellings(text: str) -> tuple[str | None, ...]:
    if text.isascii():
        return (text,)
    if not _is_quick_to_normalize(text):
        return (text, None)
    return tuple({text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFKC", text)})


# --- for rules that allow ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Unclear:
    """A piece of a value that no rule can allow."""

    why: str


def _pieces(value: Json) -> Iterator[tuple[str, ...] | _Unclear]:
    """Yield, for each piece of a value, the texts that must all match."""
    if isinstance(value, str):
        yield _clear_text(value)
    elif isinstance(value, list | tuple):
        if not value:
            yield _Unclear("is an empty list")
        for item in value:
            yield from _pieces(item)
    elif value is None or isinstance(value, bool | int | float):
        yield (scalar_text(value),)
    else:
        yield _Unclear(f"is {'a file' if isinstance(value, File) else 'an object'}, which no rule allows by a pattern")


def _clear_text(text: str) -> tuple[str, ...] | _Unclear:
    if any(unicodedata.category(character) in _UNSEEN for character in set(text)):
        return _Unclear("holds control or format characters (a line end is one)")
    if text.isascii():
        return (text,)
    if not _is_quick_to_normalize(text) or not unicodedata.is_normalized("NFC", text):
        return _Unclear("is not in Unicode's form NFC")
    return (text, unicodedata.normalize("NFKC", text))


_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


# --- numbers and Unicode ----------------------------------------------------------------------------------------------


def scalar_text(value: str | bool | float | None) -> str:
    """Return the JSON text for comparing a scalar; a whole number has no point, as 1.0 is 1 in JSON Schema."""
    if isinstance(value, str):
        return value
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _is_quick_to_normalize(text: str) -> bool:
    """Whether at most 30 marks follow each other, as in text of any language (UAX #15 §13, Stream-Safe Text Format).

    Normalising sorts the marks of one run by insertion: half a megabyte of them would take minutes.
    """
    # Decomposed, because three Tibetan vowels (e.g. U+0F73) are not marks themselves, but decompose into marks.
    marks = [one for one in set(text) if all(map(unicodedata.combining, unicodedata.normalize("NFKD", one)))]
    return not marks or re.search(f"[{''.join(marks)}]{{{_MAX_MARKS + 1}}}", text) is None


_MAX_MARKS = 30


def _show(found: Sequence[Json]) -> str:
    value = found[0] if len(found) == 1 else list(found)
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_show_other)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


_SHOWN_CHARS = 60


def _show_other(value: object) -> str:
    return f"file {value.name!r}" if isinstance(value, File) else type(value).__name__


def _show_globs(globs: Sequence[Glob]) -> str:
    return " or ".join(repr(glob.text) for glob in globs)
