"""How else a text may be read: in another Unicode form, decoded, as a path or as a URL. Pure.

`silo.policy.patterns` compares patterns with texts. The tool behind a rule may normalise a text, decode it, resolve its
`..`, or hand it to something that does. silo can't know, so a rule that restricts looks at every reading
(`readings`), and a rule that allows takes only texts for which all readings are known (`sure_readings`).
"""

from __future__ import annotations

import re
import socket
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

MAX_READINGS_CHARS = 16 * 1024 * 1024
"""How much text all readings of one text may have together. Beyond that, the text counts as one that matches."""

MAX_READINGS = 64
"""How many readings a text may have; each is short work, and honest texts have one to four."""


@dataclass(frozen=True)
class Unclear:
    """A piece of a value that no rule can allow."""

    why: str


@dataclass(frozen=True)
class Url:
    """The parts of a URL with an authority: `scheme://authority` and what follows, which may be empty."""

    scheme: str
    authority: str
    rest: str


def split_url(text: str) -> Url | None:
    """Return the parts of a text that is a URL with an authority (RFC 3986 §3), else None."""
    found = _URL.fullmatch(text)
    return Url(*found.groups()) if found is not None else None


_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://([^/?#]*)(.*)", re.DOTALL)

_SPECIAL = re.compile(r"(https?|wss?|ftp|file):", re.IGNORECASE)
"""Schemes in which readers take a missing or doubled slash for `//` (URL Standard §4.4)."""

_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}|%[uU][0-9A-Fa-f]{4}")

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


# --- for rules that deny or ask ---------------------------------------------------------------------------------------


def readings(text: str) -> Iterator[str | None]:
    """Yield each way in which a text may be read, itself first; None if it has too many, or can't be normalised."""
    yield text
    known, todo, left = {text}, [text], MAX_READINGS_CHARS
    while todo:
        current = todo.pop()
        for read in _READERS:
            for reading in read(current):
                if reading is None:
                    yield None
                    return
                if reading in known:
                    continue
                left -= len(reading) + 1
                if left < 0 or len(known) == MAX_READINGS:
                    yield None
                    return
                known.add(reading)
                todo.append(reading)
                yield reading


def _in_unicode(text: str) -> Iterator[str | None]:
    if text.isascii():
        return
    if not is_quick_to_normalize(text):
        yield None
        return
    yield unicodedata.normalize("NFC", text)
    yield unicodedata.normalize("NFKC", text)


def _without_unseen(text: str) -> Iterator[str]:
    """Without control and format characters, without the space around it, and up to a NUL, where C ends a text."""
    if not text.isprintable():
        yield "".join(character for character in text if unicodedata.category(character) not in _UNSEEN)
        yield text.partition("\0")[0]
    yield text.strip()


def _decoded(text: str) -> Iterator[str]:
    if _ENCODED.search(text) is None:
        return
    data = unquote_to_bytes(_WIDE.sub(lambda found: _encoded(chr(int(found[1], 16))), text))
    yield data.decode(errors="replace")
    yield _OVERLONG.sub(lambda found: bytes([_overlong(found[0])]), data).decode(errors="replace")


_WIDE = re.compile(r"%[uU]([0-9A-Fa-f]{4})")

_OVERLONG = re.compile(rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x81][\x80-\xbf]|\xf0\x80[\x80-\x81][\x80-\xbf]")
"""ASCII in more bytes than UTF-8 allows (RFC 3629 §10); some decoders take them."""


def _encoded(character: str) -> str:
    return "".join(f"%{byte:02x}" for byte in character.encode(errors="replace"))


def _overlong(data: bytes) -> int:
    return (data[-2] & 0x01) << 6 | (data[-1] & 0x3F)


def _as_path(text: str) -> Iterator[str]:
    """With slashes for backslashes, and with `.`, `..` and empty segments resolved."""
    if "\\" in text:
        yield text.replace("\\", "/")
    if ("/" in text or text.startswith(".")) and split_url(text) is None:
        yield from _resolved(text)


def _resolved(path: str) -> Iterator[str]:
    """Resolve a path as POSIX does, and as those do who drop dots and spaces after a name, or what follows a `;`."""
    segments = path.split("/")
    heads = [segment.partition(";")[0].strip() for segment in segments]
    loose = [head if head in {".", ".."} else head.rstrip(" .") for head in heads]
    for names in (segments, loose) if loose != segments else (segments,):
        parts: list[str] = []
        above = 0
        for name in names:
            if name == "..":
                above += not parts
                del parts[-1:]
            elif name not in {"", "."}:
                parts.append(name)
        rest = "/".join(parts)
        if path.endswith("/") and rest:
            rest += "/"
        if path.startswith("/"):
            yield f"/{rest}"
        else:
            yield f"{'../' * above}{rest}"
            if above:  # from a folder that is not deep, it leads to the root
                yield f"/{rest}"


def _as_url(text: str) -> Iterator[str]:
    """With scheme and host as every reader takes them; the path of a `file:` URL alone as well."""
    if _SPECIAL.match(text):
        scheme, _, rest = text.partition(":")
        kept = "///" if scheme.lower() == "file" and rest.startswith("///") else "//"
        text = f"{scheme}:{kept}{rest.lstrip('/')}"
        yield text
    url = split_url(text)
    if url is None:
        return
    scheme = url.scheme.lower()
    host = url.authority.rpartition("@")[2].lower().removesuffix(_PORTS.get(scheme, ":"))
    path, mark, more = _cut_query(url.rest)
    for name in _hosts(host):
        yield f"{scheme}://{name}{url.rest}"
        for resolved in _resolved(path) if path else ():
            yield f"{scheme}://{name}{resolved}{mark}{more}"
            if scheme == "file":
                yield resolved
    if scheme == "file":
        yield path


_PORTS = {"http": ":80", "ws": ":80", "https": ":443", "wss": ":443", "ftp": ":21"}


def _cut_query(rest: str) -> tuple[str, str, str]:
    found = re.search(r"[?#]", rest)
    return (rest, "", "") if found is None else (rest[: found.start()], found[0], rest[found.end() :])


def _hosts(host: str) -> Iterator[str]:
    """Yield the spellings of a host: as it is, without a dot at its end, in the other form of IDNA, as four numbers."""
    name, colon, port = host.partition(":") if not host.startswith("[") else (host, "", "")
    name = name.rstrip(".") or name
    yield f"{name}{colon}{port}"
    if len(name) > _MAX_HOST_CHARS:
        return
    with suppress(UnicodeError):
        yield f"{name.encode().decode('idna')}{colon}{port}"
    with suppress(UnicodeError):
        yield f"{name.encode('idna').decode()}{colon}{port}"
    if re.fullmatch(r"[0-9a-fx.]+", name):
        with suppress(OSError):
            yield f"{socket.inet_ntoa(socket.inet_aton(name))}{colon}{port}"


_MAX_HOST_CHARS = 253
"""The longest name that DNS has (RFC 1035 §3.1)."""


_READERS: tuple[Callable[[str], Iterator[str | None]], ...] = (
    _in_unicode,
    _without_unseen,
    _decoded,
    _as_path,
    _as_url,
)


# --- for rules that allow ---------------------------------------------------------------------------------------------


def sure_readings(text: str) -> tuple[str, ...] | Unclear:
    """Return the readings of a text, which must all match; or why it may be read in ways that silo does not know.

    It must be in NFC, without control and format characters, backslashes, doubled slashes, segments of dots, and
    encoded characters that mean something in a path or URL. A URL must name its host plainly.
    """
    known: dict[str, None] = {}
    todo = [text]
    while todo:
        current = todo.pop()
        if (why := _why_unclear(current)) is not None:
            return Unclear(why)
        known[current] = None
        further = {unicodedata.normalize("NFKC", current), unquote_to_bytes(current).decode()}
        todo += further - known.keys()
    return tuple(known)


def _why_unclear(text: str) -> str | None:
    if any(unicodedata.category(character) in _UNSEEN for character in set(text)):
        return "holds control or format characters (a line end is one)"
    if not text.isascii() and not (is_quick_to_normalize(text) and unicodedata.is_normalized("NFC", text)):
        return "is not in Unicode's form NFC"
    if "\\" in text:
        return "holds a backslash"
    for encoded in _ENCODED.findall(text):
        if encoded[1] in "uU" or chr(int(encoded[1:], 16)) in _MEANINGFUL or int(encoded[1:], 16) < 0x20:
            return f"holds the encoded character {encoded}"
    try:
        unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return "holds encoded characters that aren't UTF-8"
    rest = text
    if (url := split_url(text)) is not None:
        if _HOST.fullmatch(url.authority) is None or not (url.authority or url.scheme.lower() == "file"):
            return f"is a URL whose host can't be told for sure ({url.authority[:40]!r})"
        rest = url.rest
    elif _SPECIAL.match(text):
        return "is a URL without '//' and a host"
    if "//" in rest:
        return "holds '//' where a path goes on"
    for segment in re.split(r"[/?#]", rest):
        name = segment.partition(";")[0]
        if "." in name and not name.strip(" ."):
            return f"holds the segment {segment[:20]!r}"
    return None


_MEANINGFUL = frozenset("/\\.%@:?#;\x7f")

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])?(:[0-9]+)?")


# --- Unicode ----------------------------------------------------------------------------------------------------------


def is_quick_to_normalize(text: str) -> bool:
    """Whether at most 30 marks follow each other, as in text of any language (UAX #15 §13, Stream-Safe Text Format).

    Normalising sorts the marks of one run by insertion: half a megabyte of them would take minutes.
    """
    # Decomposed, because three Tibetan vowels (e.g. U+0F73) are not marks themselves, but decompose into marks.
    marks = [one for one in set(text) if all(map(unicodedata.combining, unicodedata.normalize("NFKD", one)))]
    return not marks or re.search(f"[{''.join(marks)}]{{{_MAX_MARKS + 1}}}", text) is None


_MAX_MARKS = 30
