"""Parses the JSON of a hostile sender: strictly, in bounded memory, and in steps of bounded work. Pure.

`json.loads` is one call that no other thread can interrupt: 8 MiB of `[],[],…` stop a whole program for a second. Here
the same parser (CPython's, in C) gets a *window* of the payload at a time, and the caller can do something else between
two windows. A list or an object that is longer than a window is taken apart; its parts are parsed in runs, as many as
the window has whole. `silo.wire.messages` gives the values their meaning.
"""

from __future__ import annotations

import json
import re
from codecs import utf_8_decode
from collections.abc import Generator
from itertools import chain
from typing import Any, Final, TypeVar

from silo.wire.frames import WireError

Json = Any
"""A JSON value in Python's types; the parser of a message checks which."""

MAX_DEPTH: Final = 64
"""How deep the JSON of a message may nest; Python's own parser allows about a thousand levels."""

MAX_VALUES: Final = 256 * 1024
"""The most values in one document. Each takes about 64 bytes of the host's memory, however short it is in JSON."""

MAX_CONTAINERS: Final = 64 * 1024
"""The most lists and objects among them. Python's garbage collector scans these again and again, and no other thread
runs meanwhile."""

MAX_FIELDS: Final = 32
"""The most entries of an object of which each value's size is told. Messages have fewer."""

WINDOW_BYTES: Final = 32 * 1024
"""How much is parsed in one step: about a millisecond for the worst content."""

_TAIL_CHARS = 12
"""A value that ends nearer to the end of a window may go on behind it (`1` of `1e5`), or be half an escape."""

_CUT: Final = object()
"""Stands for a value that the window may not have whole."""

_SPACE = re.compile(r"[ \t\n\r]*+")
_PIECE = re.compile(r'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
_SURROGATES = re.compile("[\ud800-\udfff]")
_HIGH_SURROGATES = ("\ud800", "\udbff")

_LIST_ENDS = (",", "],", "},")
_OBJECT_ENDS = (',"', '],"', '},"')
"""Where a run of whole parts may end: behind a plain value, a list, or an object. What is tried first is what fitted
last."""

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Work in steps: it may be suspended after each, and returns its result after the last."""


def parse_json(payload: bytes) -> Json:
    """Parse hostile JSON into Python values at once; for payloads of at most some windows.

    Raises: as `steps_to_json`.
    """
    return finish(steps_to_json(payload))


def finish(steps: Steps[T]) -> T:
    """Take all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value


def steps_to_json(payload: bytes, *, window: int = WINDOW_BYTES) -> Steps[Json]:
    """Parse hostile JSON into Python values.

    Args:
        payload: one document.
        window: bytes that are parsed in a step, at least 64. No number may be longer.

    Raises:
        WireError: not UTF-8, not strict JSON (RFC 8259: duplicate keys, NaN and lone surrogates are refused), nested
            deeper than `MAX_DEPTH`, more than `MAX_VALUES` values, more than `MAX_CONTAINERS` lists and objects, or a
            number beyond the range of a float.
    """
    parser = _Parser(payload, window)
    value = yield from parser.value(0)
    yield from parser.end()
    return value


def steps_to_fields(payload: bytes, *, window: int = WINDOW_BYTES) -> Steps[tuple[dict[str, Json], dict[str, int]]]:
    """Parse a hostile JSON object; return its entries, and how many bytes of the payload each value took.

    Raises:
        WireError: as `steps_to_json`, or the document is not an object of at most `MAX_FIELDS` entries.
    """
    parser = _Parser(payload, window)
    sizes: dict[str, int] = {}
    if (yield from parser.peek()) != "{":
        raise WireError("a message must be a JSON object")
    value = yield from parser.entries(1, sizes)
    yield from parser.end()
    return value, sizes


class _Parser:
    """One pass over one document. It holds a window of the text, and its place there.

    Its methods are generators, because each may need the next window, and stops before that.
    """

    def __init__(self, payload: bytes, window: int) -> None:
        self._payload = payload
        self._width = window
        self._decoder = json.JSONDecoder(
            object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
        )
        self._left = MAX_VALUES - 1
        self._containers_left = MAX_CONTAINERS
        self._start = 0
        """Where the window begins, in bytes."""
        self._text = ""
        self._at = 0
        """The place in the window, in characters."""
        self._is_last = False
        self._may_run = True
        self._load()

    def _load(self) -> None:
        stop = self._start + self._width
        self._is_last = stop >= len(self._payload)
        try:
            self._text, _ = utf_8_decode(self._payload[self._start : stop], "strict", self._is_last)
        except UnicodeDecodeError as error:
            raise WireError("not UTF-8") from error
        self._at = 0
        self._may_run = True

    def _place(self) -> int:
        """The place in the payload, in bytes."""
        before = self._text[: self._at]
        return self._start + (len(before) if before.isascii() else len(before.encode()))

    def _move(self) -> Steps[None]:
        """Stop, then go on with a window that begins at the place."""
        self._start = self._place()
        yield
        self._load()

    def peek(self) -> Steps[str]:
        """Skip white space and return the next character, or nothing at the end."""
        while True:
            self._at = _behind(_SPACE, self._text, self._at)
            if self._at < len(self._text) or self._is_last:
                return self._text[self._at : self._at + 1]
            yield from self._move()

    def end(self) -> Steps[None]:
        """Require that nothing follows."""
        if (yield from self.peek()) != "":
            raise WireError("not JSON: something follows the value")

    def value(self, depth: int) -> Steps[Json]:
        """Parse the value that begins here, inside of `depth` lists and objects."""
        yield from self.peek()
        value = self._whole(depth)
        if value is _CUT and self._at and not self._is_last:
            yield from self._move()
            value = self._whole(depth)
        if value is not _CUT:
            return value
        if self._is_last:  # taking it apart would find the same fault, once for each level
            raise WireError(_NOT_A_VALUE)
        begins = self._text[:1]  # it is longer than the window, or is no value
        if begins == "[":
            return (yield from self._items(depth + 1))
        if begins == "{":
            return (yield from self.entries(depth + 1))
        if begins == '"':
            return (yield from self._string())
        raise WireError(_NOT_A_VALUE)

    def _whole(self, depth: int) -> Json:
        """Parse the value that begins here if the window has all of it; else return `_CUT` and stay."""
        found = self._scanned(self._text, self._at)
        if found is None or (found[1] > len(self._text) - _TAIL_CHARS and not self._is_last):
            return _CUT
        self._count(found[0], depth)
        self._at = found[1]
        return found[0]

    def _run(self, brackets: str, ends: list[str], depth: int) -> tuple[Json, bool]:
        """Parse what the window has of the rest of a list or object, up to its end or a comma between two parts.

        What lies before a comma and is valid between brackets consists of whole parts: a comma in a string or in a
        deeper value leaves that open. Tried once in a window, because each attempt may parse all of it.

        Returns: the parts, empty if there are none; whether the list or object ends with them.
        """
        if not self._may_run:
            return (), False
        self._may_run = False
        rest = f"{brackets[0]}{self._text[self._at :]}"
        for end in ends:
            stop = rest.rfind(end)
            if stop < 0:
                continue
            stop += len(end) - 1 - end.endswith('"')
            found = self._scanned(f"{rest[:stop]}{brackets[1]}")
            if found is not None and found[0] and found[1] == stop + 1:
                ends.remove(end)
                ends.insert(0, end)
                self._count(found[0], depth - 1, is_part=True)
                self._at += stop - 1
                return found[0], False
        if brackets[1] in rest and (found := self._scanned(rest)) is not None and found[0]:
            self._count(found[0], depth - 1, is_part=True)
            self._at += found[1] - 1
            return found[0], True
        return (), False

    def _scanned(self, text: str, at: int = 0) -> tuple[Json, int] | None:
        """Parse the value at a place of a text; return it and where it ends, or None if it is not whole."""
        try:
            return self._decoder.raw_decode(text, at)
        except WireError:
            raise
        except ValueError:
            return None
        except RecursionError:
            if self._is_last:
                raise WireError(_TOO_DEEP) from None
            return None

    def _items(self, depth: int) -> Steps[list[Json]]:
        """Parse a list that is longer than a window."""
        _check_depth(depth)
        self._spend(0, 1)
        items: list[Json] = []
        ends = list(_LIST_ENDS)
        self._at += 1
        if (yield from self.peek()) == "]":
            self._at += 1
            return items
        while True:
            run, is_end = self._run("[]", ends, depth)
            items += run
            if is_end:
                return items
            if not run:
                items.append((yield from self.value(depth)))
                self._spend(1)
            if not (yield from self._goes_on("]")):
                return items
            if run:
                yield from self._move()

    def entries(self, depth: int, sizes: dict[str, int] | None = None) -> Steps[dict[str, Json]]:
        """Parse an object that is longer than a window; or any, for the size in bytes of each value."""
        _check_depth(depth)
        self._spend(0, 1)
        entries: dict[str, Json] = {}
        ends = list(_OBJECT_ENDS)
        self._at += 1
        if (yield from self.peek()) == "}":
            self._at += 1
            return entries
        while True:
            run, is_end = self._run("{}", ends, depth) if sizes is None else ({}, False)
            found = run
            if not run:
                key = yield from self._key()
                yield from self.peek()
                begin = self._place()
                found = {key: (yield from self.value(depth))}
                self._spend(1)
                if sizes is not None:
                    sizes[key] = self._place() - begin
                    if len(sizes) > MAX_FIELDS:
                        raise WireError(f"more than {MAX_FIELDS} fields")
            if not entries.keys().isdisjoint(found):
                raise WireError(_SAME_KEY)
            entries.update(found)
            if is_end or not (yield from self._goes_on("}")):
                return entries
            if run:
                yield from self._move()

    def _goes_on(self, bracket: str) -> Steps[bool]:
        """Pass the comma behind a part, or the bracket behind the last; return whether it was a comma."""
        character = yield from self.peek()
        if character not in (",", bracket):
            raise WireError("not JSON: a comma is missing")
        self._at += 1
        return character == ","

    def _key(self) -> Steps[str]:
        if (yield from self.peek()) != '"':
            raise WireError("not JSON: a key is missing")
        key: str = yield from self.value(MAX_DEPTH)
        if (yield from self.peek()) != ":":
            raise WireError("not JSON: a colon is missing")
        self._at += 1
        return key

    def _string(self) -> Steps[str]:
        """Parse a string that is longer than a window."""
        pieces: list[str] = []
        self._at += 1
        while True:
            end = _behind(_PIECE, self._text, self._at)
            piece = self._text[self._at : end]
            if "\\" in piece:
                piece = json.loads(f'"{piece}"')
            self._at = end
            if self._text[end : end + 1] == '"':
                self._at += 1
                pieces.append(piece)
                text = "".join(pieces)
                _check_text(text)
                return text
            if self._is_last or (end < len(self._text) - _TAIL_CHARS):
                raise WireError("not JSON: a string does not end, or has a control character or a wrong escape")
            if piece and _HIGH_SURROGATES[0] <= piece[-1] <= _HIGH_SURROGATES[1]:
                piece = piece[:-1]  # UTF-8 has no surrogates, so this is an escape, and its second half may follow
                self._at -= len(r"\ud800")
            pieces.append(piece)
            yield from self._move()

    def _spend(self, values: int, containers: int = 0) -> None:
        self._left -= values
        self._containers_left -= containers
        if self._left < 0:
            raise WireError(f"more than {MAX_VALUES} values")
        if self._containers_left < 0:
            raise WireError(f"more than {MAX_CONTAINERS} lists and objects")

    def _count(self, value: Json, depth: int, *, is_part: bool = False) -> None:
        """Check the depth, the number and the texts of values that C code has just made; they are a window's.

        Args:
            value: the value; with `is_part`, a part of a list or object that was counted already.
            depth: the number of lists and objects around it.
        """
        may_have_surrogates = r"\u" in self._text
        level = [value] if type(value) in _CONTAINERS else []
        if may_have_surrogates and type(value) is str:
            _check_text(value)
        while level:
            depth += 1
            _check_depth(depth)
            below = [*chain.from_iterable([each.values() if type(each) is dict else each for each in level])]
            self._spend(len(below), len(level) - is_part)
            is_part = False
            if may_have_surrogates:
                keys = chain.from_iterable([each for each in level if type(each) is dict])
                _check_text(" ".join([*keys, *[member for member in below if type(member) is str]]))
            level = [member for member in below if type(member) in _CONTAINERS]


_CONTAINERS = frozenset({list, dict})
_NOT_A_VALUE = "not JSON: a value is missing or has a fault, or a number is too long"
_TOO_DEEP = f"nested deeper than {MAX_DEPTH}"
_SAME_KEY = "an object has the same key twice"


def _behind(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return where what the pattern matches at a place ends; the place itself if it does not match."""
    found = pattern.match(text, at)
    return found.end() if found else at


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise WireError(_TOO_DEEP)


def _check_text(text: str) -> None:
    r"""Refuse lone surrogates, which JSON can have as escapes (`"\ud800"`) and UTF-8 can't."""
    if _SURROGATES.search(text):
        raise WireError("a string has a lone surrogate")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise WireError(_SAME_KEY)
    return value


def _refuse_constant(name: str) -> Json:
    raise WireError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise WireError("a number is too large")
    return value
