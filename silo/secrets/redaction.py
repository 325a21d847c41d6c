"""Take leased secrets out of all that comes back from a call, in the forms in which accidents show them. Pure.

This stops accidents, not attackers: who runs as a skill can shift, zip or spell out what it was given. Against that stand the
network, which a call does not have, and not handing the secret over at all. What is covered: the value itself; escaped as in JSON,
Python, HTML and URLs; base64 and base64url and base32 at every alignment; hex; reversed; each line of a value of several lines.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

from silo.errors import CanaryTripped, SiloError, SkillFailed
from silo.model import File
from silo.wire.messages import Json

MIN_CHARS = 4
"""Shorter values are not redacted: three characters occur everywhere, and a result full of holes helps nobody."""

MIN_LINE_CHARS = 16
"""A line of a value is redacted by itself from this length on: short of a line of a PEM file, longer than its words."""

E = TypeVar("E", bound=SiloError)


@dataclass(frozen=True)
class _Form:
    """One way in which a secret may show.

    Attributes:
        swallow: characters of the encoding that belong to the secret in part, when they stand beside the form.
        canary: the name of the decoy that this is a form of; empty for a secret.
    """

    needle: bytes
    marker: bytes
    swallow: frozenset[int] = frozenset()
    canary: str = ""


class Redactor:
    """Replaces secrets by `[redacted:NAME]`. Immutable, and its `repr` shows nothing.

    Every method raises `CanaryTripped` when it meets a decoy: those are granted to no call, so there is nothing to save by a marker.
    """

    def __init__(self, secrets: Mapping[str, str], canaries: Mapping[str, str] | None = None) -> None:
        decoys = (
            replace(form, canary=name) for name, value in (canaries or {}).items() for form in _forms({name: value})
        )
        self._forms = (*decoys, *_forms(secrets))

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._forms)

    @property
    def has_canaries(self) -> bool:
        """Whether it looks for decoys as well."""
        return any(form.canary for form in self._forms)

    def text(self, text: str) -> str:
        """Return the text without secrets; lone surrogates survive."""
        if not self._forms:
            return text
        return self.raw(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def raw(self, data: bytes) -> bytes:
        """Return bytes without secrets, in UTF-8 or ASCII forms."""
        spans = self._spans(data)
        if not spans:
            return data
        pieces = []
        position = 0
        for start, end, marker in spans:
            pieces += [data[position:start], marker]
            position = end
        pieces.append(data[position:])
        return b"".join(pieces)

    def cut_off(self, data: bytes) -> bytes:
        """As `raw`, for data that was cut at a limit: the beginning of a form at the very end goes as well."""
        longest = max(
            (
                length
                for form in self._forms
                for length in range(MIN_CHARS, len(form.needle))
                if data.endswith(form.needle[:length])
            ),
            default=0,
        )
        return self.raw(data[: len(data) - longest])

    def data(self, value: Json) -> Json:
        """Return a JSON value without secrets in its texts, keys and numbers.

        Also found is a secret that was cut up over consecutive texts of one list, as chunking and wrapping do it.
        """
        if not self._forms:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            cleaned: dict[str, Any] = {}
            for key, item in value.items():
                cleaned[_free(self.text(key), cleaned)] = self.data(item)
            return cleaned
        if isinstance(value, list | tuple):
            return self._list(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            shown = json.dumps(value)
            cleaned_number = self.text(shown)
            return value if cleaned_number == shown else cleaned_number
        return value

    def file(self, file: File) -> File:
        """Return a file without secrets. A binary format may be damaged by it; better that than a secret in it."""
        if not self._forms:
            return file
        return replace(file, data=self.raw(file.data), name=self.text(file.name), media_type=self.text(file.media_type))

    def error(self, error: E) -> E:
        """Return an error of the same class whose texts hold no secret, without the original's cause and traceback."""
        message, worded = self.text(error.message), self.text(error.hint)
        hint = error.remedy if worded == error.hint else worded
        if isinstance(error, SkillFailed):
            return type(error)(
                message,
                hint=hint,
                stdout=self.text(error.stdout),
                stderr=self.text(error.stderr),
                traceback=self.text(error.traceback),
            )
        return type(error)(message, hint=hint)

    def _list(self, items: Sequence[Any]) -> list[Any]:
        cleaned = [self.data(item) for item in items]
        if len(items) < 2 or not all(isinstance(item, str) for item in items):
            return cleaned
        encoded = [item.encode("utf-8", "surrogatepass") for item in items]
        ends = []
        total = 0
        for piece in encoded:
            total += len(piece)
            ends.append(total)
        index = 0
        for start, end, marker in self._spans(b"".join(encoded)):
            while ends[index] <= start:
                index += 1
            reach = index
            while ends[reach] < end:
                reach += 1
            if reach > index:  # within one text it is gone already
                for touched in range(index, reach + 1):
                    cleaned[touched] = marker.decode()
        return cleaned

    def _spans(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Return what to replace: disjoint, in order; where forms overlap, the union goes under the first one's name."""
        found = []
        for form in self._forms:
            position = data.find(form.needle)
            if position >= 0 and form.canary:
                raise CanaryTripped(
                    f"the decoy {form.canary} turned up in a call, so somebody has read what nobody was given",
                    hint="treat the vault as read: change the real secrets where they were issued; `silo audit show` has the call",
                )
            while position >= 0:
                start, end = position, position + len(form.needle)
                if start and form.swallow and data[start - 1] in form.swallow:
                    start -= 1
                if end < len(data) and form.swallow and data[end] in form.swallow:
                    end += 1
                found.append((start, end, form.marker))
                position = data.find(form.needle, position + 1)
        spans: list[tuple[int, int, bytes]] = []
        for start, end, marker in sorted(found):
            if spans and start < spans[-1][1]:
                first, last, name = spans[-1]
                spans[-1] = (first, max(last, end), name)
            else:
                spans.append((start, end, marker))
        return spans


def _free(key: str, taken: Mapping[str, Any]) -> str:
    """Return `key`, numbered if it is taken: two keys may become one when what told them apart is gone."""
    candidate, number = key, 1
    while candidate in taken:
        number += 1
        candidate = f"{key} ({number})"
    return candidate


def _forms(secrets: Mapping[str, str]) -> Iterator[_Form]:
    seen = set()
    for name, value in secrets.items():
        marker = f"[redacted:{name}]".encode()
        for form in _forms_of(value, marker):
            if len(form.needle) >= MIN_CHARS and form.needle not in seen:
                seen.add(form.needle)
                yield form


def _forms_of(value: str, marker: bytes) -> Iterator[_Form]:
    if len(value) < MIN_CHARS:
        return
    lines = [line.strip() for line in value.splitlines()]
    for text in dict.fromkeys((value, value.strip(), *lines)):
        if text in lines and text != value.strip() and (len(text) < MIN_LINE_CHARS or text.startswith("-----")):
            continue  # too short to tell, or the frame of a PEM file, which is no secret
        if len(text) >= MIN_CHARS:
            for form in dict.fromkeys(_spelt(text)):
                yield _Form(form.encode("utf-8", "surrogatepass"), marker)
    raw = value.encode("utf-8", "surrogatepass")
    yield _Form(raw.hex().encode(), marker)
    yield _Form(raw.hex().upper().encode(), marker)
    for altchars in (b"+/", b"-_"):
        alphabet = frozenset(_BASE64 + altchars)
        for needle in _aligned(raw, partial(base64.b64encode, altchars=altchars), bits=6):
            yield _Form(needle, marker, alphabet)
    for needle in _aligned(raw, base64.b32encode, bits=5):
        yield _Form(needle, marker, _BASE32)
        yield _Form(needle.lower(), marker, frozenset(bytes(_BASE32).lower()))


def _spelt(text: str) -> Iterator[str]:
    yield text
    yield text[::-1]
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield json.dumps(json.dumps(text)[1:-1])[1:-1]
    yield repr(text)[1:-1]
    yield html.escape(text)
    for safe in ("", "/"):
        quoted = quote(text, safe=safe, errors="surrogatepass")
        yield quoted
        yield _lower_escapes(quoted)
    plus = quote_plus(text, errors="surrogatepass")
    yield plus
    yield _lower_escapes(plus)


def _lower_escapes(quoted: str) -> str:
    head, *rest = quoted.split("%")
    return head + "".join(f"%{part[:2].lower()}{part[2:]}" for part in rest)


_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_BASE32 = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def _aligned(raw: bytes, encode: Callable[[bytes], bytes], *, bits: int) -> Iterator[bytes]:
    """Yield what an encoding makes of `raw` wherever it starts within a group: the characters that depend on nothing else.

    A group is the least common multiple of 8 and `bits`: three bytes in base64, five in base32.
    """
    group = bits // 2 if bits == 6 else bits
    for offset in range(group):
        encoded = encode(bytes(offset) + raw)
        first = -(-offset * 8 // bits)
        last = (offset + len(raw)) * 8 // bits
        yield encoded[first:last]
