"""Remove leased secrets from everything that comes back from a call, in the forms in which they leak by accident.

`silo.sdk.forms` has the forms, and `silo.sdk.finding` finds them. This stops accidents, not attackers: a hostile skill
can shift, zip or spell out its secrets. The defences against that are that a call has no network, and not to hand the
secret over at all.

Each text is redacted whole, before anything is cut from it. Where a limit has cut it already, the beginning of a form
at its end is removed as well (`cut_off`).

Most results are small, so slow modules are imported where they are used: `silo.secrets.scan` (numpy), for large texts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from silo.errors import CanaryTripped, SandboxTimeout, SiloError, SkillFailed
from silo.model import File
from silo.sdk.finding import MAX_GROWTH, Finder, Markers, Span, merged, replaced
from silo.sdk.forms import Forms
from silo.sizes import KIB, MIB
from silo.wire.messages import Json

if TYPE_CHECKING:
    from silo.secrets.scan import Scanner

SMALL: Final = 64 * KIB
"""Larger texts are worth loading numpy for: from here on, it is faster even the first time."""

LARGE: Final = MIB
"""Larger texts don't grow, unless a method's caller allows more."""

E = TypeVar("E", bound=SiloError)


@dataclass(frozen=True, repr=False)
class _Engine:
    """The forms of a call's secrets and of the decoys, prepared once, and shared by copies of a `Redactor`."""

    names: tuple[str, ...]
    canaries: int
    finder: Finder

    @cached_property
    def scanner(self) -> Scanner:
        from silo.secrets.scan import Scanner

        return Scanner(self.finder.forms)


class Redactor:
    """Replaces secrets by `[redacted:NAME]`. Immutable, and its `repr` shows nothing.

    A text grows by at most `MAX_GROWTH` bytes, and not beyond the `limit` of a method, also in bytes: a marker that is
    longer than what it replaces becomes `***` where the text would grow more. Texts take linear time, and several times
    their size in memory.

    Making one takes milliseconds for usual secrets, and seconds for those of several MiB; do it in a worker thread.

    Every method raises `CanaryTripped` if it finds a decoy: no call gets one, so somebody must have read the vault.

    Args:
        secrets: the values by name.
        canaries: decoys by name.
        deadline: a reading of the monotonic clock; methods raise `SandboxTimeout` when it has passed.
    """

    def __init__(
        self,
        secrets: Mapping[str, str],
        canaries: Mapping[str, str] | None = None,
        *,
        deadline: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        decoys = canaries or {}
        forms = Forms.of([*decoys.values(), *secrets.values()])
        self._engine = _Engine((*decoys, *secrets), len(decoys), Finder(forms))
        self._deadline = deadline
        self._clock = clock

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._engine.finder.forms)

    @property
    def has_canaries(self) -> bool:
        """Whether it looks for decoys as well."""
        return self._engine.canaries > 0

    def until(self, deadline: float) -> Redactor:
        """Return the same redactor with another deadline."""
        other = object.__new__(Redactor)
        other._engine, other._deadline, other._clock = self._engine, deadline, self._clock
        return other

    def text(self, text: str, *, limit: int = LARGE) -> str:
        """Return the text without secrets; lone surrogates survive."""
        if not self:
            return text
        return self.raw(text.encode("utf-8", "surrogatepass"), limit=limit).decode("utf-8", "surrogatepass")

    def raw(self, data: bytes, *, limit: int = LARGE) -> bytes:
        """Return bytes without secrets, in UTF-8 or ASCII forms."""
        markers = self._markers(len(data), limit)
        if len(data) <= SMALL:
            spans = self._spans(data)
            return replaced(data, spans, markers) if spans else data
        from silo.secrets.scan import replaced_all

        found = self._engine.scanner.spans(data, self._tick)
        self._refuse_decoys(found.seen)
        return replaced_all(data, found, markers) if len(found) else data

    def cut_off(self, data: bytes, *, limit: int = LARGE) -> bytes:
        """Like `raw`, for data that was cut at a limit: also removes the beginning of a form at the very end."""
        left = self._engine.finder.left_by_cut(data)
        if not left:
            return self.raw(data, limit=limit)
        # A whole form may overlap the beginning of another one, so both are looked for before either is removed.
        return replaced(data, merged([*self._spans(data), *left]), self._markers(len(data), limit))

    def printed(self, text: str) -> str:
        """Like `text`, for what a process printed until it was ended, perhaps in the middle of a line."""
        return self.cut_off(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass") if self else text

    def data(self, value: Json, *, limit: int = LARGE) -> Json:
        """Return a JSON value without secrets in its texts, keys and numbers; `limit` is for its compact JSON text.

        It also finds a secret that is split over consecutive values, as by chunking and wrapping.
        """
        if not self:
            return value
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        if not self._spans(_unquoted(text)):
            return value
        leaves = list(_leaves(value))
        encoded = [leaf.encode("utf-8", "surrogatepass") for leaf in leaves]
        # No form has the separator, so an exact one is found within one leaf only. A skeleton does not have it, either.
        spans = self._spans(_SEPARATOR.join(encoded))
        markers = self._markers(len(text), limit)
        return _rebuilt(value, iter(_cleaned(leaves, encoded, spans, markers)))

    def file(self, file: File, *, limit: int = LARGE) -> File:
        """Return a file without secrets. This may damage a binary format, which is better than leaking a secret."""
        if not self:
            return file
        return replace(
            file,
            data=self.raw(file.data, limit=limit),
            name=self.text(file.name),
            media_type=self.text(file.media_type),
        )

    def error(self, error: E) -> E:
        """Return an error of the same class whose texts hold no secret, without the original's cause and traceback."""
        message, worded = self.text(error.message), self.text(error.hint)
        hint = error.remedy if worded == error.hint else worded
        if isinstance(error, SkillFailed):
            return type(error)(
                message,
                hint=hint,
                stdout=self.printed(error.stdout),
                stderr=self.printed(error.stderr),
                traceback=self.text(error.traceback),
            )
        return type(error)(message, hint=hint)

    def _spans(self, data: bytes) -> list[Span]:
        if len(data) <= SMALL:
            spans, seen = self._engine.finder.spans(data)
        else:
            found = self._engine.scanner.spans(data, self._tick)
            spans, seen = found.listed(), found.seen
        self._refuse_decoys(seen)
        return spans

    def _markers(self, size: int, limit: int) -> Markers:
        return Markers(self._engine.names, max(0, min(MAX_GROWTH, limit - size)))

    def _refuse_decoys(self, owners: frozenset[int]) -> None:
        tripped = min(owners, default=self._engine.canaries)
        if tripped < self._engine.canaries:
            raise CanaryTripped(
                f"the decoy {self._engine.names[tripped]} turned up in a call, and no call gets it: somebody has read "
                "the vault",
                hint="change the real secrets where they were issued; `silo audit show` has the call",
            )

    def _tick(self) -> None:
        if self._clock() > self._deadline:
            raise SandboxTimeout(
                "removing secrets from the result did not end in time, so nothing of it is shown",
                hint="return less, or raise `timeout_s` in the skill's header",
            )


# --- JSON values ------------------------------------------------------------------------------------------------------

_SEPARATOR: Final = b"\x1f"


def _unquoted(text: bytes) -> bytes:
    """Return the texts, keys and numbers of a JSON text one after the other, with only punctuation between them.

    Much faster than walking through the value, which is only necessary if something is found.
    """
    if b"\\" not in text:
        return text
    # The pairs go first: after that, each backslash that remains starts another escape.
    text = text.replace(b"\\\\", _PAIR)
    for escape, character in _ESCAPES:
        text = text.replace(escape, character)
    return text.replace(_PAIR, b"\\")


_PAIR: Final = b"\xff"  # no byte of UTF-8
_ESCAPES: Final = (
    *((rf"\{name}".encode(), character.encode()) for name, character in zip('"nrtbf', '"\n\r\t\b\f', strict=True)),
    *((rf"\u{code:04x}".encode(), bytes((code,))) for code in range(32)),
)


def _leaves(value: Json) -> Iterator[str]:
    """Yield the texts, keys and scalars of a JSON value in the order of its JSON text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield json.dumps(value)


def _cleaned(
    leaves: Sequence[str], encoded: Sequence[bytes], spans: Sequence[Span], markers: Markers
) -> Iterator[str | None]:
    """Yield each leaf without the spans, which lie in all leaves joined; None for one without any."""
    number = 0
    start = 0
    for leaf in encoded:
        end = start + len(leaf)
        while number < len(spans) and spans[number].end <= start:
            number += 1
        touching = []
        while number < len(spans) and spans[number].start < end:
            span = spans[number]
            touching.append(Span(max(start, span.start) - start, min(end, span.end) - start, span.owner))
            if span.end > end:
                break
            number += 1
        yield replaced(leaf, touching, markers).decode("utf-8", "surrogatepass") if touching else None
        start = end + len(_SEPARATOR)


def _rebuilt(value: Json, cleaned: Iterator[str | None]) -> Json:
    """Return the value with those leaves that were cleaned."""
    if isinstance(value, Mapping):
        entries: dict[str, Any] = {}
        numbers: dict[str, int] = {}
        for key, item in value.items():
            clean = next(cleaned)
            entries[_free(key if clean is None else clean, entries, numbers)] = _rebuilt(item, cleaned)
        return entries
    if isinstance(value, list | tuple):
        return [_rebuilt(item, cleaned) for item in value]
    clean = next(cleaned)
    return value if clean is None or value is None or isinstance(value, bool) else clean


def _free(key: str, taken: Mapping[str, Any], numbers: dict[str, int]) -> str:
    """Return `key`, numbered if it is taken: two keys may become equal when secrets are removed from them."""
    candidate = key
    while candidate in taken:
        numbers[key] = numbers.get(key, 1) + 1
        candidate = f"{key} ({numbers[key]})"
    return candidate
