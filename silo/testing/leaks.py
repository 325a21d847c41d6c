"""The forms of a value that redaction finds, written without its code; for tests and benchmarks."""

from __future__ import annotations

import base64
import html
import json
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote, quote_plus

Write = Callable[[str], str | bytes]


def _percent(value: str) -> str:
    return "".join(f"%{byte:02X}" for byte in value.encode())


def _partly(value: str) -> str:
    """Percent encoding of every second character."""
    return "".join(_percent(letter) if i % 2 else quote(letter, safe="") for i, letter in enumerate(value))


def _mime(width: int) -> Write:
    def write(value: str) -> str:
        text = base64.b64encode(value.encode()).decode().rstrip("=")
        return "\r\n".join(textwrap.wrap(text, width))

    return write


def _aligned(encode: Callable[[bytes], bytes], before: bytes) -> Write:
    """Base64 of the value after other bytes, without the characters that hold bits of those."""

    def write(value: str) -> str:
        text = encode(before + value.encode()).decode().rstrip("=")
        return text[-(-len(before) * 8 // 6) : (len(before) + len(value.encode())) * 8 // 6]

    return write


FORMS: Final[Mapping[str, Write]] = {
    "raw": lambda value: value,
    "reversed": lambda value: value[::-1],
    "white space collapsed": lambda value: " ".join(value.split()),
    "wrapped": lambda value: "\n    ".join(value[i : i + 7] for i in range(0, len(value), 7)),
    "json": lambda value: json.dumps(value)[1:-1],
    "json, not ASCII": lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    "json in json": lambda value: json.dumps(json.dumps(value))[3:-3],
    "json of Go": lambda value: json.dumps(value)[1:-1].replace("&", r"\u0026").replace("<", r"\u003c"),
    "json of PHP": lambda value: json.dumps(value)[1:-1].replace("/", r"\/"),
    "repr": lambda value: repr(value)[1:-1],
    "repr of bytes": lambda value: repr(value.encode())[2:-1],
    r"all \x": lambda value: "".join(rf"\x{byte:02x}" for byte in value.encode()),
    r"all \u": lambda value: "".join(rf"\u{ord(letter):04x}" for letter in value),
    "html": html.escape,
    "html, numbers": lambda value: "".join(f"&#{ord(c)};" if ord(c) < 128 else c for c in value),
    "html, hex numbers": lambda value: "".join(f"&#x{ord(c):x};" if ord(c) < 128 else c for c in value),
    "xml, ASCII": lambda value: html.escape(value).encode("ascii", "xmlcharrefreplace").decode(),
    "url": lambda value: quote(value, safe=""),
    "url path": quote,
    "url form": quote_plus,
    "url, small letters": lambda value: re.sub("%..", lambda escape: escape[0].lower(), quote(value, safe="")),
    "url, all": _percent,
    "url, partly": _partly,
    "url, twice": lambda value: quote(quote(value, safe=""), safe=""),
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
    "hex:": lambda value: value.encode().hex(":"),
    "hex-": lambda value: value.encode().hex("-"),
    "hex ": lambda value: value.encode().hex(" "),
    "0x": lambda value: ", ".join(f"0x{byte:02x}" for byte in value.encode()),
    "base64, 0": _aligned(base64.b64encode, b""),
    "base64, 1": _aligned(base64.b64encode, b"u"),
    "base64, 2": _aligned(base64.b64encode, b"us"),
    "base64url, 0": _aligned(base64.urlsafe_b64encode, b""),
    "base64url, 1": _aligned(base64.urlsafe_b64encode, b"u"),
    "base64url, 2": _aligned(base64.urlsafe_b64encode, b"us"),
    "base64, url": lambda value: quote(base64.b64encode(value.encode()).decode().rstrip("="), safe=""),
    "base64, 76": _mime(76),
    "base64, 64": _mime(64),
    "base64, 20": _mime(20),
    "base64, encodebytes": lambda value: base64.encodebytes(value.encode()).decode().rstrip("=\n"),
    "base32": lambda value: base64.b32encode(value.encode()).decode().rstrip("="),
    "base32, small letters": lambda value: base64.b32encode(value.encode()).decode().rstrip("=").lower(),
    "utf-16-le": lambda value: value.encode("utf-16-le").rstrip(b"\0"),
    "utf-16-be": lambda value: value.encode("utf-16-be").lstrip(b"\0"),
}
"""Each writes a value as text or bytes, without characters that hold bits of anything else."""


def written(form: str, value: str) -> bytes:
    """Return the value in a form, as bytes."""
    text = FORMS[form](value)
    return text if isinstance(text, bytes) else text.encode()


def runs_left(shown: bytes, cleaned: bytes, marker: bytes, length: int = 4) -> list[bytes]:
    """Return the runs of a form that are still there, markers aside."""
    rest = cleaned.replace(marker, b"\0\0")
    return [shown[i : i + length] for i in range(len(shown) - length + 1) if shown[i : i + length] in rest]
