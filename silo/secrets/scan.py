"""Find secrets in large texts, in linear time and bounded memory. The same spans as `silo.sdk.finding`, with numpy.

Each needle has an anchor: eight bytes of it (four, for the short exact ones) that no other needle has as its anchor, if
possible. The words at all places of a text are looked up at once in a table of the anchors, however many these are. The
needle around an anchor is then compared word by word. If that would take longer than going through the text once, it is
compared by its polynomial hash (mod 2⁶⁴, over random numbers for the bytes): the sums over all beginnings of the text
give the hash of any range in one subtraction, so a comparison costs the same for a needle of 20 bytes and of a million.
Equal ranges have equal hashes. Two different ranges with one hash (a chance of about 2⁻⁶⁴) would only mean that too
much is redacted.

Texts are taken in segments, which overlap by the longest needle. Import this module where it is used: numpy is slow to
load, and most results are small.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from silo.sdk.finding import (
    KEPT_BITS,
    MAX_ESCAPE,
    MAX_WIDENING,
    SHORT_MARKER,
    SWALLOWED,
    Markers,
    Span,
    replaced,
)
from silo.sdk.forms import GONE, KEPT, PAD, Forms, Needle, skeleton, without_escaped_backslashes
from silo.sizes import KIB

Numbers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

_Ranges = tuple[Numbers, Numbers, Numbers]
"""Starts, ends and owners."""

Tick = Callable[[], None]
"""Called between segments; raises if there is no time left."""

SEGMENT: Final = 128 * KIB
"""So that the arrays of a segment stay in the processor's caches."""

_FEW_CANDIDATES: Final = 32
"""So few are compared one by one, which is faster than preparing to compare many."""

_MAX_WORDS: Final = 64
"""Longer needles are compared by their hashes, and so are needles that overlap in the text: otherwise a needle that
repeats itself would be compared from each of its places to its end."""

_MAX_ANCHOR_OFFSET: Final = 64
_MANY_SPANS: Final = 4096
"""From so many spans on, the rest gets the short marker, all at once."""


@dataclass(frozen=True)
class Found:
    """The ranges to replace, disjoint and in order, as arrays; and the owners of all that was found."""

    starts: Numbers
    ends: Numbers
    owners: Numbers
    seen: frozenset[int]

    def __len__(self) -> int:
        return len(self.starts)

    def listed(self) -> list[Span]:
        """Return the ranges one by one."""
        rows = zip(self.starts.tolist(), self.ends.tolist(), self.owners.tolist(), strict=True)
        return [Span(*row) for row in rows]


class Scanner:
    """Finds the forms of some values in large texts."""

    def __init__(self, forms: Forms) -> None:
        self._exact = _Index(forms.exact, 4) if forms.exact else None
        self._loose = _Index(forms.loose, 8) if forms.loose else None

    def spans(self, data: bytes, tick: Tick) -> Found:
        """Return what to replace; equal to `silo.sdk.finding.Finder.spans`."""
        parts: list[_Ranges] = []
        seen: set[int] = set()
        if self._exact is not None and (exact := self._exact.exact(data, tick, seen)) is not None:
            parts.append(exact)
        if self._loose is not None:
            plain = decoded(data, tick)
            paired = plain if b"\\\\" not in data else decoded(without_escaped_backslashes(data), tick)
            views = dict.fromkeys((data, paired, plain))
            found = ((view, self._loose.loose(skeleton(view), tick, seen)) for view in views)
            parts += [_mapped(data, plain, view, matches, tick) for view, matches in found if matches is not None]
        if not parts:
            none = np.empty(0, np.int64)
            return Found(none, none, none, frozenset())
        starts, ends, owners = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Found(*_joined(starts, ends, owners), frozenset(seen))


def replaced_all(data: bytes, found: Found, markers: Markers) -> bytes:
    """Return the text with a marker in place of each range; after some thousands of them, with the short one."""
    if len(found) <= _MANY_SPANS:
        return replaced(data, found.listed(), markers)
    border = int(found.starts[_MANY_SPANS])
    first = Found(found.starts[:_MANY_SPANS], found.ends[:_MANY_SPANS], found.owners[:_MANY_SPANS], found.seen)
    rest = np.frombuffer(data, np.uint8)[border:].copy()
    starts, ends = found.starts[_MANY_SPANS:] - border, found.ends[_MANY_SPANS:] - border
    for byte in SHORT_MARKER:  # every range is longer
        rest[starts] = byte
        starts += 1
    change = np.zeros(len(rest) + 1, np.int8)
    change[starts] = 1
    change[ends] = -1
    is_left: Bits = np.cumsum(change[:-1], dtype=np.int8) == 0
    return replaced(data[:border], first.listed(), markers) + bytes(rest[is_left].tobytes())


class _Index:
    """The anchors, words and hashes of some needles, each of at least `width` bytes."""

    def __init__(self, needles: Sequence[Needle], width: int) -> None:
        self._needles = needles
        self._width = width
        self._kind: Any = np.dtype(f"<u{width}")
        self._owners = np.array([needle.owner for needle in needles], np.int64)
        self._lengths = np.array([len(needle.text) for needle in needles], np.int64)
        self._before = np.array([_side(needle.lead, needle.swallows) for needle in needles], np.int64)
        self._after = np.array([_side(needle.trail, needle.swallows) for needle in needles], np.int64)
        self._longest = int(self._lengths.max())
        self._segment = max(SEGMENT, 2 * self._longest)
        self._hash = _Hash(self._segment + self._longest + _MAX_ANCHOR_OFFSET)
        self._choose_anchors()

    def loose(self, text: bytes, tick: Tick, seen: set[int]) -> _Matches | None:
        """Return the places of the needles in a skeleton, merged where they overlap; add their owners to `seen`."""
        parts = [_merged(found) for found in self._find(text, tick, seen)]
        return _merged(_Matches(*map(np.concatenate, zip(*parts, strict=True)))) if parts else None

    def exact(self, data: bytes, tick: Tick, seen: set[int]) -> _Ranges | None:
        """Return the ranges of the needles in a text; add their owners to `seen`."""
        view, ranges = np.frombuffer(data, np.uint8), []
        for found in self._find(data, tick, seen):
            ends = found.reach >> _SIDE_BITS
            ranges.append(_joined(*_swallowed(view, found.starts, ends, found.before, found.before), found.owners))
        if not ranges:
            return None
        starts, ends, owners = map(np.concatenate, zip(*ranges, strict=True))
        return starts, ends, owners

    def _find(self, text: bytes, tick: Tick, seen: set[int]) -> Iterator[_Matches]:
        """Yield the places of all needles by segments, in order; add their owners to `seen`."""
        is_found = np.zeros(len(self._needles), np.bool_)
        last = len(text) - self._width + 1
        for low in range(0, last, self._segment):
            tick()
            starts, which = self._in_segment(text, low, min(low + self._segment, last))
            if not len(starts):
                continue
            if (starts[1:] < starts[:-1]).any():
                order = np.lexsort((which, starts))
                starts, which = starts[order], which[order]
            is_found[which] = True
            reach = ((starts + self._lengths[which]) << _SIDE_BITS) | self._after[which]
            yield _Matches(starts, which, reach, self._owners[which], self._before[which])
        seen.update(self._owners[is_found].tolist())

    def _choose_anchors(self) -> None:
        width = self._width
        groups: dict[bytes, list[int]] = {}
        offsets = []
        for number, needle in enumerate(self._needles):
            text, offset = needle.text, 0
            while text[offset : offset + width] in groups:
                offset += 1
                if offset > min(len(text) - width, _MAX_ANCHOR_OFFSET):
                    offset = 0
                    break
            offsets.append(offset)
            groups.setdefault(text[offset : offset + width], []).append(number)
        self._offsets = np.array(offsets, np.int64)
        self._anchors = np.frombuffer(b"".join(groups), self._kind)
        self._sizes = np.array([len(group) for group in groups.values()], np.int64)
        self._firsts = np.cumsum(self._sizes) - self._sizes
        self._members = np.array([number for group in groups.values() for number in group], np.int64)
        # A table by hash says whether an anchor may be at a place; anchors with one hash are chained.
        bits = min(max(14, (256 * len(groups)).bit_length()), 22)
        self._factor = self._kind.type(0x9E3779B97F4A7C15 if width == 8 else 0x9E3779B1)
        self._shift = self._kind.type(8 * width - bits)
        slots = self._slots(self._anchors)
        self._is_used = np.zeros(1 << bits, np.bool_)
        self._is_used[slots] = True
        self._first_of_slot = np.zeros(1 << bits, np.int32)
        self._next = np.full(len(groups), -1, np.int64)
        seen: dict[int, int] = {}
        for number, slot in enumerate(slots.tolist()):
            if slot in seen:
                self._next[seen[slot]] = number
            else:
                self._first_of_slot[slot] = number
            seen[slot] = number
        # The words of each needle, one after the other; the last one ends with the needle, and may overlap.
        texts = (needle.text for needle in self._needles)
        whole = (text if len(text) % width == 0 else text[: -(len(text) % width)] + text[-width:] for text in texts)
        self._words = np.frombuffer(b"".join(whole), self._kind)
        counts = -(-self._lengths // width)
        self._first_word = np.cumsum(counts) - counts

    def _slots(self, words: Any) -> Any:  # noqa: ANN401 - arrays of words of 4 or 8 bytes
        slots = words * self._factor
        slots >>= self._shift
        return slots

    def _in_segment(self, text: bytes, low: int, high: int) -> tuple[Numbers, Numbers]:
        """Return the places whose anchors start in a range of the text: where each starts, and which needle it is."""
        words: Any = np.ndarray((high - low,), self._kind, text, low, (1,))  # one at each byte
        slots = self._slots(words)
        hits = np.flatnonzero(self._is_used.take(slots, mode="clip"))
        if not len(hits):
            return hits, hits
        words = words[hits]
        anchor = self._first_of_slot[slots[hits]].astype(np.int64)
        is_other = self._anchors[anchor] != words
        while is_other.any():
            anchor[is_other] = self._next[anchor[is_other]]
            found = anchor >= 0
            hits, words, anchor = hits[found], words[found], anchor[found]
            is_other = self._anchors[anchor] != words
        sizes = self._sizes[anchor]
        if len(sizes) == int(sizes.sum()):
            which = self._members[self._firsts[anchor]]
        else:
            within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            which = self._members[np.repeat(self._firsts[anchor], sizes) + within]
            hits = np.repeat(hits, sizes)
        starts = hits + low - self._offsets[which]
        fits = (starts >= 0) & (starts + self._lengths[which] <= len(text))
        if not fits.all():
            starts, which = starts[fits], which[fits]
        same = self._same(text, low, high, starts, which)
        return (starts, which) if same.all() else (starts[same], which[same])

    def _same(self, text: bytes, low: int, high: int, starts: Numbers, which: Numbers) -> Bits:
        """Whether the needle that is expected at each place is there."""
        lengths = self._lengths[which]
        same: Bits = lengths == self._width  # then the anchor is all of it
        todo = np.flatnonzero(~same)
        if len(todo) <= _FEW_CANDIDATES:
            for number in todo.tolist():
                same[number] = text.startswith(self._needles[int(which[number])].text, int(starts[number]))
            return same
        lengths = lengths[todo]
        is_short = int(lengths.max()) <= _MAX_WORDS * self._width
        if is_short and int(lengths.sum()) <= (high - low) * self._width // 4:
            same[todo] = self._same_words(text, starts[todo], which[todo])
        else:
            same[todo] = self._same_hash(text, low, high, starts[todo], which[todo])
        return same

    def _same_words(self, text: bytes, starts: Numbers, which: Numbers) -> Bits:
        words: Any = np.ndarray((len(text) - self._width + 1,), self._kind, text, 0, (1,))
        same = np.ones(len(starts), np.bool_)
        todo = np.arange(len(starts))
        last = self._lengths[which] - self._width
        number = 0
        while len(todo):
            needle = which[todo]
            offset = np.minimum(number * self._width, last[todo])
            is_same = words[starts[todo] + offset] == self._words[self._first_word[needle] + number]
            same[todo[~is_same]] = False
            todo = todo[is_same & (offset < last[todo])]
            number += 1
        return same

    def _same_hash(self, text: bytes, low: int, high: int, starts: Numbers, which: Numbers) -> Bits:
        base = max(0, low - _MAX_ANCHOR_OFFSET)
        sums = self._hash.sums(text[base : min(len(text), high + self._longest)])
        begin = starts - base
        same: Bits = sums[begin + self._lengths[which]] - sums[begin] == self._hashes[which] * self._hash.powers[begin]
        return same

    @cached_property
    def _hashes(self) -> Words:
        return np.array([self._hash.sums(needle.text)[-1] for needle in self._needles], np.uint64)


class _Hash:
    """Sums of the numbers of a text's bytes, each times a power of an odd base that depends on its position."""

    def __init__(self, longest: int) -> None:
        self._numbers = np.frombuffer(secrets.token_bytes(8 * 256), np.uint64)
        self._base = np.uint64(secrets.randbits(64) | 1)
        self._longest = longest
        self._powers: Words | None = None

    @property
    def powers(self) -> Words:
        """The powers of the base, from 0 on."""
        if self._powers is None:
            self._powers = np.full(self._longest + 1, self._base, np.uint64)
            self._powers[0] = 1
            np.cumprod(self._powers, out=self._powers)
        return self._powers

    def sums(self, text: bytes) -> Words:
        """Return the sums of all beginnings of a text, from that of none to that of all."""
        sums = np.zeros(len(text) + 1, np.uint64)
        np.multiply(self._numbers[np.frombuffer(text, np.uint8)], self.powers[: len(text)], out=sums[1:])
        np.cumsum(sums, out=sums)
        return sums


# --- from a skeleton to the text --------------------------------------------------------------------------------------

_MAX_DROPPED: Final = 2**14 - 1
_SIDE_BITS: Final = 15
_IS_SWALLOWED: Final[Bits] = np.isin(np.arange(256), np.frombuffer(SWALLOWED, np.uint8))


class _Matches(NamedTuple):
    """Places of needles, in order. `reach` has the end and, in its low bits, the side after it: the larger end wins."""

    starts: Numbers
    which: Numbers
    reach: Numbers
    owners: Numbers
    before: Numbers


def _side(dropped: int, swallows: bool) -> int:
    return min(dropped, _MAX_DROPPED) * 2 + swallows


def _merged(found: _Matches) -> _Matches:
    """Merge places that overlap, under the first."""
    if (found.starts[1:] < found.starts[:-1]).any():  # an anchor further inside a needle was in the next segment
        order = np.lexsort((found.which, found.starts))
        found = _Matches(*(column[order] for column in found))
    reach = np.maximum.accumulate(found.reach)
    begins = np.ones(len(reach), np.bool_)
    begins[1:] = found.starts[1:] >= reach[:-1] >> _SIDE_BITS
    if begins.all():
        return found
    first = np.flatnonzero(begins)
    last = np.append(first[1:] - 1, len(reach) - 1)
    return _Matches(found.starts[first], found.which[first], reach[last], found.owners[first], found.before[first])


def _mapped(data: bytes, plain: bytes, view: bytes, found: _Matches, tick: Tick) -> _Ranges:
    """Return the ranges of a view for merged places in its skeleton, as `silo.sdk.finding._mapped`.

    A kept character's position is looked up in the segment of the view that has it; the positions of all characters
    would take eight times the memory of the text.
    """
    past = found.reach >> _SIDE_BITS
    wanted = (found.starts, past - 1, found.starts - 1, past)  # the first, the last, the one before, the one after
    places = [np.full(len(past), otherwise, np.int64) for otherwise in (-1, -1, -1, len(view))]
    counted = 0
    for low in range(0, len(view), SEGMENT):
        tick()
        bits = np.frombuffer(view[low : low + SEGMENT].translate(KEPT_BITS), np.bool_)
        count = int(np.count_nonzero(bits))
        parts = [slice(*np.searchsorted(numbers, (counted, counted + count))) for numbers in wanted]
        if any(part.start < part.stop for part in parts):
            kept = np.flatnonzero(bits) + low
            for numbers, place, part in zip(wanted, places, parts, strict=True):
                place[part] = kept[numbers[part] - counted]
        counted += count
    first, last, previous, following = places
    after = found.reach & ((1 << _SIDE_BITS) - 1)
    text = np.frombuffer(data, np.uint8)
    shown = text if plain == data else np.frombuffer(plain, np.uint8)
    starts, ends = _widened(text, shown, (first, last + 1), (found.before, after), (previous + 1, following))
    return _joined(starts, ends, found.owners)


def _widened(
    data: Bytes,
    plain: Bytes,
    ranges: tuple[Numbers, Numbers],
    sides: tuple[Numbers, Numbers],
    bounds: tuple[Numbers, Numbers],
) -> tuple[Numbers, Numbers]:
    """Widen ranges within `bounds`, as `silo.sdk.finding._widened`."""
    (starts, ends), (before, after), (low, high) = ranges, sides, bounds
    is_escape = plain is not data
    dropped = before >> 1
    if is_escape:
        starts = _back_over(PAD, data, plain, starts, np.full_like(starts, MAX_ESCAPE))
    starts = np.maximum(np.minimum(low, starts), starts - dropped)
    if is_escape and dropped.any():
        starts = _back_over(GONE, data, plain, starts, np.minimum(MAX_ESCAPE * dropped, MAX_WIDENING))
    dropped = after >> 1
    ends = np.minimum(high, ends + dropped)
    if is_escape and dropped.any():
        steps = np.minimum(MAX_ESCAPE * dropped, MAX_WIDENING)
        for step in range(int(steps.max(initial=0))):
            is_gone = (plain.take(ends, mode="clip") == GONE) & (data.take(ends, mode="clip") != GONE)
            is_gone &= (ends < len(plain)) & (steps > step)
            if not is_gone.any():
                break
            ends = ends + is_gone
    return _swallowed(data, starts, ends, before, after)


def _back_over(filler: int, data: Bytes, plain: Bytes, starts: Numbers, steps: Numbers) -> Numbers:
    """Return the starts, each moved back over up to so many bytes that fill up an escape."""
    for step in range(int(steps.max(initial=0))):
        is_filler = (plain.take(starts - 1, mode="clip") == filler) & (data.take(starts - 1, mode="clip") != filler)
        is_filler &= (starts > 0) & (steps > step)
        if not is_filler.any():
            break
        starts = starts - is_filler
    return starts


def _swallowed(view: Bytes, starts: Numbers, ends: Numbers, before: Numbers, after: Numbers) -> tuple[Numbers, Numbers]:
    """Widen ranges by a character at either side that holds some bits of the form."""
    if (before & 1).any():
        starts = starts - (_IS_SWALLOWED[view.take(starts - 1, mode="clip")] & (starts > 0) & (before & 1 == 1))
    if (after & 1).any():
        ends = ends + (_IS_SWALLOWED[view.take(ends, mode="clip")] & (ends < len(view)) & (after & 1 == 1))
    return starts, ends


def _joined(starts: Numbers, ends: Numbers, owners: Numbers) -> _Ranges:
    """Join ranges that overlap or touch, under the first owner, as `silo.sdk.finding.merged`."""
    if (starts[1:] < starts[:-1]).any():
        order = np.argsort(starts, kind="stable")
        starts, ends, owners = starts[order], ends[order], owners[order]
    reach = np.maximum.accumulate(ends)
    begins = np.ones(len(starts), np.bool_)
    begins[1:] = starts[1:] > reach[:-1]
    if begins.all():
        return starts, ends, owners
    first = np.flatnonzero(begins)
    return starts[first], reach[np.append(first[1:] - 1, len(reach) - 1)], owners[first]


# --- escapes ----------------------------------------------------------------------------------------------------------

_MARGIN: Final = 32  # longer than any escape, on both sides of a segment


def decoded(data: bytes, tick: Tick) -> bytes:
    """Return the text with its escapes decoded, as `silo.sdk.forms.decoded`."""
    if not any(sign in data for sign in (b"%", b"\\", b"&", b"0x")):
        return data
    pieces = []
    size = 4 * SEGMENT  # escapes are few, and the work for a segment is more than for its escapes
    for low in range(0, len(data), size):
        tick()
        begin = max(0, low - _MARGIN)
        piece = _decoded(data[begin : low + size + _MARGIN])
        pieces.append(piece[low - begin : low - begin + size])
    return b"".join(pieces)


def _table(characters: str, values: Sequence[int], otherwise: int) -> Bytes:
    table = np.full(256, otherwise, np.uint8)
    for character, value in zip(characters, values, strict=True):
        table[ord(character)] = value
    return table


_NO_DIGIT: Final = 0x80
_HEX: Final = _table("0123456789abcdefABCDEF", [*range(16), *range(10, 16)], _NO_DIGIT)
_DECIMAL: Final = _table("0123456789", range(10), _NO_DIGIT)
_BYTES: Final = np.arange(256)
_SHOWN: Final[Bytes] = np.where(np.isin(_BYTES, np.frombuffer(KEPT, np.uint8)), _BYTES, GONE).astype(np.uint8)
_SHOWN_ASCII: Final[Bytes] = np.where(_BYTES < 128, _SHOWN, GONE).astype(np.uint8)
_NO_PREFIX: Final[Bits] = np.isin(_BYTES, np.frombuffer(KEPT + b"\\%", np.uint8)) & (_BYTES < 128)


def _decoded(data: bytes) -> bytes:
    text = np.frombuffer(data + bytes(16), np.uint8)  # room to look beyond the end
    view = text.copy()
    _decode_percent(text, view, len(data))
    _decode_backslashes(text, view, len(data))
    _decode_entities(text, view, len(data))
    _decode_hex_prefixes(text, view, len(data))
    return view[: len(data)].tobytes()


def _decode_percent(text: Bytes, view: Bytes, size: int) -> None:
    sign = np.flatnonzero(text[:size] == ord("%"))
    high, low = _HEX[text[sign + 1]], _HEX[text[sign + 2]]
    is_escape = (high | low) < 16
    sign, value = sign[is_escape], (high * 16 + low)[is_escape]
    end = sign + 2
    for _ in range(4):  # `%25` followed by two digits is an escape that was escaped again
        nested = np.flatnonzero(value == ord("%"))
        high, low = _HEX[text[end[nested] + 1]], _HEX[text[end[nested] + 2]]
        is_escape = (high | low) < 16
        nested = nested[is_escape]
        if not len(nested):
            break
        end[nested] += 2
        value[nested] = (high * 16 + low)[is_escape]
    _write(view, sign, end, _SHOWN[value])


def _decode_backslashes(text: Bytes, view: Bytes, size: int) -> None:
    sign = np.flatnonzero(text[:size] == ord("\\"))
    if not len(sign):
        return
    kind = text[sign + 1]
    simple = sign[np.isin(kind, np.frombuffer(b"abtnvfr0", np.uint8))]
    _write(view, simple, simple + 1, np.full(len(simple), GONE, np.uint8))
    byte = sign[kind == ord("x")]
    high, low = _HEX[text[byte + 2]], _HEX[text[byte + 3]]
    is_escape = (high | low) < 16
    byte = byte[is_escape]
    _write(view, byte, byte + 3, _SHOWN[(high * 16 + low)[is_escape]])
    wide = sign[kind == ord("u")]
    digits = [_HEX[text[wide + offset]] for offset in range(2, 6)]
    is_escape = (digits[0] | digits[1] | digits[2] | digits[3]) < 16
    wide = wide[is_escape]
    code = np.zeros(len(wide), np.int64)
    for digit in digits:
        code = code * 16 + digit[is_escape]
    _write(view, wide, wide + 5, _shown_code(code))
    two, three = (code >= 0x80) & (code < 0x800), (code >= 0x800) & ((code < 0xD800) | (code >= 0xE000))
    view[wide[two] + 4] = 0xC0 | code[two] >> 6
    view[wide[two] + 5] = 0x80 | code[two] & 63
    view[wide[three] + 3] = 0xE0 | code[three] >> 12
    view[wide[three] + 4] = 0x80 | code[three] >> 6 & 63
    view[wide[three] + 5] = 0x80 | code[three] & 63


def _shown_code(code: Numbers) -> Bytes:
    """Return the byte for a code point below 128, `GONE` for a surrogate; for others, a byte that is overwritten."""
    is_surrogate = (code >= 0xD800) & (code < 0xE000)
    return np.where(code < 128, _SHOWN[code & 127], np.where(is_surrogate, GONE, PAD)).astype(np.uint8)


_NAMED: Final = (b"amp;", b"lt;", b"gt;", b"quot;", b"apos;", b"nbsp;")


def _decode_entities(text: Bytes, view: Bytes, size: int) -> None:
    sign = np.flatnonzero(text[:size] == ord("&"))
    sign = sign[np.isin(text[sign + 1], np.frombuffer(b"algqn#", np.uint8))]
    if not len(sign):
        return
    for name in _NAMED:
        is_named = np.ones(len(sign), np.bool_)
        for offset, byte in enumerate(name, 1):
            is_named &= text[sign + offset] == byte
        named = sign[is_named]
        _write(view, named, named + len(name), np.full(len(named), GONE, np.uint8))
    sign = sign[text[sign + 1] == ord("#")]
    if not len(sign):
        return
    is_hex = (text[sign + 2] | 0x20) == ord("x")
    for start, table, base, most in ((sign[~is_hex] + 2, _DECIMAL, 10, 3), (sign[is_hex] + 3, _HEX, 16, 2)):
        value, is_number = np.zeros(len(start), np.int64), np.ones(len(start), np.bool_)
        for count in range(1, most + 1):
            digit = table[text[start + count - 1]]
            is_number = is_number & (digit < 16)
            value = np.where(is_number, value * base + digit, value)
            is_escape = is_number & (text[start + count] == ord(";"))
            found = start[is_escape]
            shown = np.where(value[is_escape] < 256, _SHOWN_ASCII[value[is_escape] & 255], GONE).astype(np.uint8)
            _write(view, found - (2 if base == 10 else 3), found + count, shown)


def _decode_hex_prefixes(text: Bytes, view: Bytes, size: int) -> None:
    sign = np.flatnonzero(text[:size] == ord("x"))
    sign = sign[sign > 0] - 1
    is_prefix = (text[sign] == ord("0")) & ((_HEX[text[sign + 2]] | _HEX[text[sign + 3]]) < 16)
    is_prefix &= (sign == 0) | ~_NO_PREFIX[text[sign - 1]]
    sign = sign[is_prefix]
    _write(view, sign, sign + 1, np.full(len(sign), GONE, np.uint8))


def _write(view: Bytes, start: Numbers, end: Numbers, character: Bytes) -> None:
    """Write a character to the last place of each range, and fill up the places before it."""
    if not len(start):
        return
    filler = np.where(character == GONE, GONE, PAD).astype(np.uint8)
    size = end - start
    for offset in range(int(size.min())):
        view[start + offset] = filler
    for offset in range(int(size.min()), int(size.max())):
        is_inside = size > offset
        view[start[is_inside] + offset] = filler[is_inside]
    view[end] = character
