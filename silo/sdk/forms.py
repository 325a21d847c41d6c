r"""The forms in which a secret is looked for, and the views of a text in which it is found. Pure; nothing is searched.

A *form* is a way of writing a value that programs use by themselves, without meaning to hide it: `forms_of` lists them.
Most differ only in punctuation, white space and case, so they are compared by their *skeleton*: ASCII letters and
digits in lower case, and all bytes of other characters. `AB:CD`, `ab cd` and `abcd` have one skeleton, and so have
base64 with and without line breaks, text with collapsed white space, and JSON inside of JSON. If a form is part of a
text, its skeleton is part of the text's skeleton, wherever it stands. A skeleton that is too short would be found
everywhere; such a form is looked for as it is.

The skeleton of a text is taken twice: of the text itself, and of the text with its escapes decoded (`%41`, `\u0041`,
`\x41`, `&#65;`, `&amp;`, `0x41`). The second finds a value of which an encoder escaped some characters and not others.

Guests use this module to redact what they cut, and `silo.secrets` uses it on the host.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import quote, quote_from_bytes, quote_plus

MIN_CHARS: Final = 4
"""Shorter values are not looked for: three characters occur everywhere, and would make results useless."""

MIN_LINE_CHARS: Final = 16
"""Lines of a value are also looked for one by one from this length on. Lines of a PEM file are longer, words shorter.
Inside the frame of a PEM file, each line of `MIN_CHARS` counts, because all of it is key material."""

MAX_RARE: Final = 64 * 1024
"""Of longer values, those forms are left out that take Python long to write: base32, and texts with escapes other than
JSON's. Decoding finds most of the latter."""

MIN_SKELETON: Final = 8
MIN_DIGITS: Final = 12
"""The shortest skeleton, and the shortest of digits only: columns of numbers have every short sequence of digits."""

PAD: Final = 1
GONE: Final = 2
"""What fills up a decoded escape in a view, so that positions stay those of the text: `PAD` before the character, or
`GONE` if a skeleton drops it. No skeleton has either."""

KEPT: Final = bytes(byte for byte in range(256) if byte >= 128 or chr(byte).isalnum())
"""The bytes that a skeleton keeps."""

_DELETED: Final = bytes(byte for byte in range(256) if byte not in KEPT)
_FOLD: Final = bytes(byte + 32 if 65 <= byte <= 90 else byte for byte in range(256))


@dataclass(frozen=True, slots=True, repr=False)
class Needle:
    """What is searched for.

    Attributes:
        text: a form, or the skeleton of one or more.
        owner: the index of the secret among those given to `Forms.of`.
        lead, trail: how many bytes before and after the skeleton belong to the form as well; the most of its forms.
        swallows: a character of base64 or base32 beside the form holds some bits of the secret, and goes too.
    """

    text: bytes
    owner: int
    lead: int = 0
    trail: int = 0
    swallows: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Forms:
    """All that is searched for. The number of needles is bounded by 60 for each value, and one more for each line.

    Attributes:
        exact: forms whose skeleton is too short; searched for in the text itself.
        loose: skeletons; searched for in the skeletons of the text's views. The order is that in which they count if
            several are found at one place.
        written: all forms as they are, to recognise the beginning of one at the end of a text that was cut off.
    """

    exact: tuple[Needle, ...]
    loose: tuple[Needle, ...]
    written: tuple[bytes, ...]

    @classmethod
    def of(cls, values: Sequence[str]) -> Forms:
        """Return the forms of some values; values of fewer than `MIN_CHARS` characters have none."""
        exact: dict[bytes, Needle] = {}
        loose: dict[bytes, Needle] = {}
        written: dict[bytes, None] = {}
        for owner, value in enumerate(values):
            for form, swallows in forms_of(value):
                if form in written or len(form) < MIN_CHARS:
                    continue
                written[form] = None
                bare = skeleton(form)
                if not _is_distinctive(bare):
                    exact[form] = Needle(form, owner, swallows=swallows)
                    continue
                lead = trail = 0
                if form[0] not in KEPT or form[-1] not in KEPT:  # the zero bytes of UTF-16 don't count
                    lead = len(form[: -len(form.lstrip(_DELETED))].replace(b"\0", b""))
                    trail = len(form[len(form.rstrip(_DELETED)) :].replace(b"\0", b""))
                old = loose.get(bare)
                loose[bare] = (
                    Needle(bare, owner, lead, trail, swallows)
                    if old is None
                    else Needle(bare, old.owner, max(lead, old.lead), max(trail, old.trail), swallows or old.swallows)
                )
        ordered = sorted(loose.values(), key=lambda needle: (-needle.lead, not needle.swallows))
        return cls(tuple(exact.values()), tuple(ordered), tuple(written))

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self.written)


def skeleton(view: bytes) -> bytes:
    """Return what remains of a text for the comparison."""
    return view.translate(_FOLD, _DELETED)


def decoded(data: bytes) -> bytes:
    """Return the text with its escapes decoded, in the same length (see `PAD`).

    Percent encoding is decoded to its end if it was applied up to five times. `silo.secrets.scan` has the same function
    for large texts.
    """
    if not any(sign in data for sign in (b"%", b"\\", b"&", b"0x")):
        return data
    return _ESCAPE.sub(_padded, data)


def without_escaped_backslashes(data: bytes) -> bytes:
    r"""Return the text with each pair of backslashes dropped, in the same length, so that `\\\\b` is no backspace.

    Which of the two a program meant can't be told from the text, so both readings are searched.
    """
    return data.replace(b"\\\\", bytes((GONE, GONE)))


_HEX = rb"[0-9A-Fa-f]"
_ESCAPE: Final = re.compile(
    rb"%(?:25){0,4}(?P<percent>HH)"
    rb"|\\(?:u(?P<utf16>HHHH)|x(?P<byte>HH)|[abtnvfr0])"
    rb"|&(?:#(?P<decimal>[0-9]{1,3})|#[xX](?P<hexadecimal>H{1,2})|amp|lt|gt|quot|apos|nbsp);"
    rb"|(?<![0-9A-Za-z\\%])0x(?=HH)".replace(b"H", _HEX)
)
_CUT_ESCAPE: Final = re.compile(
    rb"(?:%(?:25){0,4}H?"
    rb"|\\(?:uH{0,3}|xH?)?"
    rb"|&(?:#(?:[0-9]{0,3}|[xX]H{0,2})|am?p?|ap(?:os?)?|[lg]t?|q(?:uo?t?)?|n(?:bs?p?)?)?"
    rb"|0(?:xH?)?)\Z".replace(b"H", _HEX)  # at the end of a text
)


def without_cut_escape(data: bytes) -> bytes:
    """Return the text without the beginning of an escape at its end."""
    tail = data[-16:]
    cut = _CUT_ESCAPE.search(tail)
    return data if cut is None else data[: len(data) - len(tail) + cut.start()]


def _padded(escape: re.Match[bytes]) -> bytes:
    kind = escape.lastgroup
    if kind is None:
        character = b""
    elif kind == "utf16":
        code = int(escape[kind], 16)
        character = b"" if 0xD800 <= code < 0xE000 else chr(code).encode()
    else:
        code = int(escape[kind], 10 if kind == "decimal" else 16)
        is_byte = kind in ("percent", "byte")
        character = bytes((code,)) if code < 128 or (is_byte and code < 256) else b""
    if not character or (len(character) == 1 and character not in KEPT):
        return bytes((GONE,)) * len(escape[0])
    return character.rjust(len(escape[0]), bytes((PAD,)))


def forms_of(value: str) -> Iterator[tuple[bytes, bool]]:
    """Yield each form of a value, and whether characters beside it hold some of its bits. Some come more than once.

    A binary value has its bytes that are not UTF-8 as lone surrogates (PEP 383).
    """
    if len(value) < MIN_CHARS or not value.strip():
        return
    try:
        raw = value.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # lone surrogates that stand for no byte
        raw = value.encode("utf-8", "surrogatepass")
    if any("\udc80" <= character <= "\udcff" for character in value):
        yield from _of_bytes(raw)
        yield from _in_alphabets(raw)
        return
    for text in dict.fromkeys((value, value.strip())):
        if len(text) >= MIN_CHARS:
            for spelt in _spelt(text):
                yield spelt.encode("utf-8", "surrogatepass"), False
    yield repr(raw)[2:-1].encode(), False
    bare = skeleton(decoded(raw))
    if _is_distinctive(bare):
        yield bare, False  # a value with what looks like escapes, in a text whose escapes are decoded
    for codec in ("utf-16-le", "utf-16-be"):
        yield value.encode(codec, "surrogatepass").strip(b"\0"), False
    yield from _in_alphabets(raw)
    for line in _lines(value):
        yield line.encode("utf-8", "surrogatepass"), False


def _of_bytes(raw: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield how a binary value is written as it is, and in escapes."""
    yield raw, False
    yield raw.decode("latin-1").encode(), False
    yield repr(raw)[2:-1].encode(), False
    # Decoded as if it were text: with a U+FFFD for what is none, except at the ends, where a neighbour may complete it;
    # and without that, which also finds `?` or `\udcff` in its place, because no skeleton has those.
    shown = raw.decode(errors="replace").strip("\ufffd")
    if sum(character.isalnum() for character in shown) >= MIN_CHARS:
        yield shown.encode(), False
    bare = skeleton(raw.decode(errors="ignore").encode())
    if _is_distinctive(bare):
        yield bare, False
    if len(raw) <= MAX_RARE:
        yield "".join(f"\\x{byte:02x}" for byte in raw).encode(), False
        yield quote_from_bytes(raw).encode(), False


def _in_alphabets(raw: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield the value in hexadecimal digits, base64 and base32."""
    for digits in (raw.hex(), raw.hex().upper()):
        yield digits.encode(), False
        if len(digits) < 2 * MIN_DIGITS:  # the skeleton of more is found with any separators
            for separator in ":- ":
                yield separator.join(digits[i : i + 2] for i in range(0, len(digits), 2)).encode(), False
    for altchars in (b"+/", b"-_"):
        for form in _aligned(raw, partial(base64.b64encode, altchars=altchars), bits=6):
            yield form, True
    if len(raw) <= MAX_RARE:
        for form in _aligned(raw, base64.b32encode, bits=5):
            yield form, True
            yield form.lower(), True


def _spelt(text: str) -> Iterator[str]:
    yield text
    yield text[::-1]
    yield " ".join(text.split())
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield json.dumps(json.dumps(text)[1:-1])[1:-1]
    yield repr(text)[1:-1]
    if len(text) > MAX_RARE:
        return
    yield html.escape(text)
    yield text.encode("ascii", "xmlcharrefreplace").decode()
    yield html.escape(text).encode("ascii", "xmlcharrefreplace").decode()
    quoted = [quote(text, safe=safe, errors="surrogatepass") for safe in ("", "/")]
    for escaped in (*quoted, quote_plus(text, errors="surrogatepass")):
        yield escaped
        yield re.sub("%..", lambda escape: escape[0].lower(), escaped)


def _lines(value: str) -> Iterator[str]:
    """Yield the lines of a value that are worth looking for, and the body of a PEM file without its frame."""
    lines = [line.strip() for line in value.splitlines()]
    body = [line for line in lines if not line.startswith("-----")]
    is_framed = len(body) < len(lines)
    if len(lines) < 2:
        return
    least = MIN_CHARS if is_framed else MIN_LINE_CHARS
    if is_framed:
        yield "\n".join(body)
    yield from (line for line in body if len(line) >= least)


def _aligned(raw: bytes, encode: Callable[[bytes], bytes], *, bits: int) -> Iterator[bytes]:
    """Yield the encoding of `raw` at each offset within a group, without characters that depend on its neighbours.

    A group is the least common multiple of 8 and `bits`: three bytes in base64, five in base32.
    """
    group = bits // 2 if bits == 6 else bits
    for offset in range(group):
        encoded = encode(bytes(offset) + raw)
        first = -(-offset * 8 // bits)
        last = (offset + len(raw)) * 8 // bits
        if last - first >= MIN_CHARS:
            yield encoded[first:last]


def _is_distinctive(bare: bytes) -> bool:
    return len(bare) >= (MIN_DIGITS if bare.isdigit() else MIN_SKELETON)
