"""Find secrets in a text of moderate size, replace them, and tell what a cut has left of one. Pure.

`silo.secrets.scan` finds the same in large texts by the same steps: matches in the skeleton of a view are merged,
mapped back to the text, and widened by what belongs to the form beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from typing import Final, NamedTuple

from silo.sdk.forms import (
    GONE,
    KEPT,
    MIN_CHARS,
    MIN_SKELETON,
    PAD,
    Forms,
    Needle,
    decoded,
    skeleton,
    without_cut_escape,
    without_escaped_backslashes,
)

FEW: Final = 64
"""Up to so many needles, each is searched for by itself; of more, a table has their beginnings."""

MAX_GROWTH: Final = 4096
"""How many bytes a text may grow by being redacted. Once it has grown so far, a marker that is longer than what it
replaces becomes `***`. Otherwise, a value of four digits that stands everywhere would make a result several times as
long as its limit."""

MAX_ESCAPE: Final = 12
MAX_WIDENING: Final = 255
"""The longest escape, and how far escapes beside a form are followed, in bytes."""

SWALLOWED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"

KEPT_BITS: Final = bytes(byte in KEPT for byte in range(256))


class Span(NamedTuple):
    """A range of bytes to replace, and the owner of what is there; -1 for what a cut may have left of a form."""

    start: int
    end: int
    owner: int


@dataclass(frozen=True, repr=False)
class Finder:
    """Finds the forms of some values."""

    forms: Forms

    @cached_property
    def _exact(self) -> _Needles:
        return _Needles(self.forms.exact)

    @cached_property
    def _loose(self) -> _Needles:
        return _Needles(self.forms.loose)

    def spans(self, data: bytes) -> tuple[list[Span], frozenset[int]]:
        """Return what to replace, disjoint and in order, and the owners of all that was found."""
        found, owners = [], set()
        for start, needle in self._exact.matches(data):
            owners.add(needle.owner)
            found.append(
                _swallowed(data, start, start + len(needle.text), needle.owner, needle.swallows, needle.swallows)
            )
        plain = decoded(data)
        for view in views(data):
            loose = list(self._loose.matches(skeleton(view)))
            owners.update(needle.owner for _, needle in loose)
            if loose:
                found += _mapped(data, plain, view, loose)
        return merged(found), frozenset(owners)

    def left_by_cut(self, data: bytes) -> list[Span]:
        """Return the end of a text that was cut off there, if `MIN_CHARS` or more of it are the beginning of a form."""
        starts = [len(data) - length for form in self.forms.written if (length := overlap(data, form))]
        whole = without_cut_escape(data)
        # One character less than for a form: the one before it may happen to go on with the form.
        if len(data) - len(whole) >= MIN_CHARS - 1:
            starts.append(len(whole))
        for text in dict.fromkeys((data, whole)):  # what looks like the beginning of an escape may be none
            for view in views(text):
                starts += self._left_in(text, view, cut=len(data) - len(text))
        return [Span(min(starts), len(data), -1)] if starts else []

    def _left_in(self, text: bytes, view: bytes, *, cut: int) -> Iterator[int]:
        """Yield where a form may begin that goes on beyond the end of the text, or beyond a cut escape after it."""
        positions = list(compress(range(len(view)), view.translate(KEPT_BITS)))
        bare = skeleton(view)
        last = positions[-1] if positions else -1
        escape = next((place for place in range(last + 1, len(view)) if _is_filler(text, view, place)), None)
        # What a skeleton drops may belong to the form as well: `b00\\/` of a PHP program that writes `b00/…`.
        end = len(view) + cut
        if escape is not None and end - escape >= MIN_CHARS and any(needle.lead for needle in self.forms.loose):
            yield escape  # what a skeleton drops at the beginning of a form, escaped
        for needle in self.forms.loose:
            length = overlap(bare, needle.text) or _short_overlap(bare, needle.text)
            if not length:
                continue
            start = positions[-length]
            while start and _is_filler(text, view, start - 1):
                start -= 1
            if end - start >= MIN_CHARS:
                yield start


class Side(NamedTuple):
    """How far a span is widened at a side: by bytes that a skeleton drops, and by a character that holds some bits."""

    dropped: int
    swallows: bool


_NO_SIDE: Final = Side(0, False)


def views(data: bytes) -> tuple[bytes, ...]:
    """Return the text as it is, and as its escapes can be read: with and without pairs of backslashes; each once."""
    return tuple(dict.fromkeys((data, decoded(without_escaped_backslashes(data)), decoded(data))))


def overlap(text: bytes, form: bytes) -> int:
    """Return how many bytes at the end of `text` are the beginning of `form`; 0 if fewer than `MIN_CHARS`."""
    seed = form[:MIN_CHARS]
    position = text.find(seed, max(0, len(text) - len(form)))
    while position >= 0:
        if form.startswith(text[position:]):
            return len(text) - position
        position = text.find(seed, position + 1)
    return 0


def _is_filler(text: bytes, view: bytes, position: int) -> bool:
    """Whether a byte of a view belongs to a decoded escape, and isn't its character."""
    return view[position] in (PAD, GONE) and text[position] != view[position]


def _short_overlap(text: bytes, form: bytes) -> int:
    return next((length for length in range(MIN_CHARS - 1, 0, -1) if text.endswith(form[:length])), 0)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return spans in order, those joined that overlap or touch, under the first owner."""
    joined: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if joined:
            last = joined[-1]
            if span.start <= last.end:
                owner = last.owner if last.owner >= 0 else span.owner
                joined[-1] = Span(last.start, max(last.end, span.end), owner)
                continue
        joined.append(span)
    return joined


@dataclass
class Markers:
    """Chooses the markers for one text, so that it does not grow beyond its limit.

    Args:
        names: the name of each owner.
        left: how many bytes the text may still grow.
    """

    names: Sequence[str]
    left: int = MAX_GROWTH
    _full: dict[int, bytes] = field(default_factory=dict, init=False)

    def of(self, span: Span) -> bytes:
        """Return what replaces a span."""
        if span.owner < 0:
            return b""
        full = self._full.get(span.owner)
        if full is None:
            full = self._full[span.owner] = f"[redacted:{self.names[span.owner]}]".encode()
        growth = max(0, len(full) - (span.end - span.start))
        if growth > self.left:
            return SHORT_MARKER
        self.left -= growth
        return full


SHORT_MARKER: Final = b"***"


def replaced(data: bytes, spans: Sequence[Span], markers: Markers) -> bytes:
    """Return the text with a marker in place of each span."""
    pieces: list[bytes] = []
    position = 0
    for span in spans:
        pieces += (data[position : span.start], markers.of(span))
        position = span.end
    pieces.append(data[position:])
    return b"".join(pieces)


class _Needles:
    """Needles, ready to be searched for."""

    def __init__(self, needles: Sequence[Needle]) -> None:
        self._needles = needles
        self._width = min((MIN_SKELETON, *(len(needle.text) for needle in needles)))
        self._by_start: dict[bytes, list[Needle]] = {}
        if len(needles) > FEW:
            for needle in needles:
                self._by_start.setdefault(needle.text[: self._width], []).append(needle)

    def matches(self, text: bytes) -> Iterator[tuple[int, Needle]]:
        """Yield each place of each needle, overlapping ones too; of needles at one place, those given first first."""
        if not self._by_start:
            for needle in self._needles:
                position = text.find(needle.text)
                while position >= 0:
                    yield position, needle
                    position = text.find(needle.text, position + 1)
            return
        width, by_start = self._width, self._by_start
        for position in range(len(text) - width + 1):
            for needle in by_start.get(text[position : position + width], ()):
                if text.startswith(needle.text, position):
                    yield position, needle


def _mapped(data: bytes, plain: bytes, view: bytes, matches: Sequence[tuple[int, Needle]]) -> list[Span]:
    """Return the spans of a view for matches in its skeleton, those merged that overlap.

    Args:
        data: the text.
        plain: the text with its escapes decoded.
        view: the one of `views(data)` in whose skeleton the matches are.
        matches: where they start, and what was found.
    """
    positions = list(compress(range(len(view)), view.translate(KEPT_BITS)))
    positions.append(len(view))
    spans: list[Span] = []
    start, owner, before, end, after = -1, -1, _NO_SIDE, -1, _NO_SIDE

    def close() -> None:
        if end > 0:
            bounds = (positions[start - 1] + 1 if start else 0, positions[end])
            spans.append(
                _widened(data, plain, Span(positions[start], positions[end - 1] + 1, owner), before, after, bounds)
            )

    for at, needle in sorted(matches, key=lambda match: match[0]):
        past, side = at + len(needle.text), Side(needle.trail, needle.swallows)
        if at >= end:
            close()
            start, owner, before, end, after = at, needle.owner, Side(needle.lead, needle.swallows), past, side
        elif (past, side) > (end, after):
            end, after = past, side
    close()
    return spans


def _widened(data: bytes, plain: bytes, span: Span, before: Side, after: Side, bounds: tuple[int, int]) -> Span:
    """Widen a span by the rest of an escape that it starts with, and then by what a skeleton drops, within `bounds`."""
    start = span.start
    for _ in range(MAX_ESCAPE):
        if not start or plain[start - 1] != PAD or data[start - 1] == PAD:
            break
        start -= 1
    if before.dropped:
        start = max(min(bounds[0], start), start - before.dropped)
        for _ in range(min(MAX_ESCAPE * before.dropped, MAX_WIDENING)):
            if not start or plain[start - 1] != GONE or data[start - 1] == GONE:
                break
            start -= 1
    end = min(bounds[1], span.end + after.dropped)
    for _ in range(min(MAX_ESCAPE * after.dropped, MAX_WIDENING)):
        if end == len(plain) or plain[end] != GONE or data[end] == GONE:
            break
        end += 1
    return _swallowed(data, start, end, span.owner, before.swallows, after.swallows)


def _swallowed(data: bytes, start: int, end: int, owner: int, before: bool, after: bool) -> Span:
    """Return the span, widened by a character at either side that holds some bits of the form."""
    if before and start and data[start - 1] in SWALLOWED:
        start -= 1
    if after and end < len(data) and data[end] in SWALLOWED:
        end += 1
    return Span(start, end, owner)
