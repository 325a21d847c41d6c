"""Remove leased secrets from everything that comes back from a call, in the forms in which they leak by accident. Pure.

This stops accidents, not attackers: a hostile skill can shift, zip or spell out its secrets. The defences against that
are that a call has no network, and not to hand the secret over at all. The covered forms are: the value itself; escaped
as in JSON, Python, HTML and URLs; base64, base64url and base32 at every alignment; hex; reversed; each line of a
multi-line value.
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
"""Shorter values are not redacted: three characters occur everywhere, and would make results useless."""

MIN_LINE_CHARS = 16
"""Lines of a value are also redacted one by one from this length on. Lines of a PEM file are longer, words shorter."""

E = TypeVar("E", bound=SiloError)


@dataclass(frozen=True)
class _Form:
    """One form in which a secret may appear.

    Attributes:
        swallow: characters of the encoding; one next to the form holds some bits of the secret, and is redacted too.
        canary: the name of the decoy that has this form; empty for a secret.
    """

    needle: bytes
    marker: bytes
    swallow: frozenset[int] = frozenset()
    canary: str = ""


class Redactor:
    """Replaces secrets by `[redacted:NAME]`. Immutable, and its `repr` shows nothing.

    Every method raises `CanaryTripped` if it finds a decoy: no call gets one, so somebody must have read the vault.
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
        """Like `raw`, for data that was cut at a limit: also removes the beginning of a form at the very end."""
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

        It also finds a secret that is split over consecutive texts of one list, as by chunking and wrapping.
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
        """Return a file without secrets. This may damage a binary format, which is better than leaking a secret."""
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
            if reach > index:  # a secret within one text was removed already
                for touched in range(index, reach + 1):
                    cleaned[touched] = marker.decode()
        return cleaned

    def _spans(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Return the ranges to replace, disjoint and in order; overlapping ones are joined under the first name."""
        found = []
        for form in self._forms:
            position = data.find(form.needle)
            if position >= 0 and form.canary:
                raise CanaryTripped(
                    f"the decoy {form.canary} turned up in a call, and no call gets it: somebody has read the vault",
                    hint="change the real secrets where they were issued; `silo audit show` has the call",
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
    """Return `key`, numbered if it is taken: two keys may become equal when secrets are removed from them."""
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
            continue  # too short, or the first or last line of a PEM file, which isn't secret
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
    """Yield the encoding of `raw` at each offset within a group, without characters that depend on its neighbours.

    A group is the least common multiple of 8 and `bits`: three bytes in base64, five in base32.
    """
    group = bits // 2 if bits == 6 else bits
    for offset in range(group):
        encoded = encode(bytes(offset) + raw)
        first = -(-offset * 8 // bits)
        last = (offset + len(raw)) * 8 // bits
        yield encoded[first:last]
