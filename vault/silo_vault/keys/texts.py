"""Which texts may lock a vault: 32 bytes in hex or base64, or a passphrase that is not easy to guess. Pure.

A text that was meant as a key but isn't one must not become a passphrase in silence: a key that lost a digit, or that
stands in quotation marks, would lock the vault with something that nobody wrote down. Only new keys are checked, so a
vault that was locked with such a text still opens with it.

No message shows the text, or more of it than its length.
"""

from __future__ import annotations

import base64
import binascii
import re
from itertools import pairwise

from silo_vault.crypto import KEY_BYTES

MIN_PASSPHRASE_CHARS = 12
"""Argon2id makes each guess cost 0.3 s and 64 MiB, but a short passphrase needs few guesses."""
MIN_DIFFERENT_CHARS = 8
"""Of these, how many must be different, without those that are easy to foresee."""

HOW_TO_MAKE = "make a key with `openssl rand -hex 32`"

_HEX = re.compile(f"[0-9a-fA-F]{{{2 * KEY_BYTES}}}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=?|[A-Za-z0-9_-]{43}=?")
_ANY_HEX = re.compile(r"[0-9a-fA-F]+")
_ANY_BASE64 = re.compile(r"([A-Za-z0-9+/_-]+)(=*)")
_WORD = re.compile(r"[A-Z]?[a-z]*|[A-Z]+|[0-9]+")
_BASE64_DIGITS = 43
_LEAST_HEX, _LEAST_BASE64, _LEAST_PADDED = 16, 32, 20
"""From these lengths on, a text in that alphabet is a key that went wrong. A shorter one is judged as a passphrase."""

_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u201e": "\u201c", "\u00ab": "\u00bb"}
_STARTS = (
    (re.compile(r"(export\s+)?[A-Z][A-Z0-9_]{2,}\s*=\s*[^=\s]"), "has the name of a variable in front of the key"),
    (re.compile(r"\$[({]|\$[A-Z_]+$|`|%[A-Z_]+%$"), "is an expression of a shell, which no shell has evaluated"),
    (re.compile(r"<.*>$|\{\{.*\}\}$"), "is a placeholder"),
    (re.compile(r"(file:|~?/|\.\.?/)\S*$"), "is a path; set it to the content of that file"),
)
_COMMON = re.compile(
    "passphrase|password|passwort|passwd|secret|changeme|letmein|welcome|master|admin|default|example|test|silo|key"
    "|qwertyuiop|qwertzuiop|azertyuiop|asdfghjkl|zxcvbnm|yxcvbnm|qwerty|qwertz|azerty|asdf"
)


def raw_key(text: str) -> bytes | None:
    """Return the key if the text is 32 bytes in hex or base64. None means that it is a passphrase."""
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if not _BASE64.fullmatch(text):
        return None
    unpadded = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(unpadded + "=", validate=True)
    except binascii.Error:
        return None
    # The last of the 43 digits has two unused bits. They must be zero, or several texts would be the same key.
    return key if base64.b64encode(key).decode().rstrip("=") == unpadded else None


def stray(text: str) -> str | None:
    """Return what is wrong at the edges of a text, or invisible in it. Neither a key nor a passphrase has any of it.

    The sentence continues one that starts with what the text is, e.g. `SILO_MASTER_KEY`.
    """
    if not text.strip("\ufeff \t\r\n"):
        return "is empty"
    if text.startswith(("\ufeff", "\ufffe")):
        return "starts with a byte order mark (U+FEFF), which some editors put at the start of a file"
    if text.endswith(("\n", "\r")):
        return "ends with a line break"
    if text != text.strip():
        return "starts or ends with white space"
    if (odd := next((character for character in text if not character.isprintable()), None)) is not None:
        return f"has an invisible character (U+{ord(odd):04X})"
    return None


def refusal(text: str) -> str | None:
    """Return why a text must not lock a vault; None if it may.

    Args:
        text: without what `stray` finds.

    Returns:
        a sentence that continues one that starts with what the text is.
    """
    return None if raw_key(text) is not None else nearly_key(text) or weakness(text)


def nearly_key(text: str) -> str | None:
    """Return what is wrong with a text that was meant as a key of 32 bytes; None if it wasn't."""
    bare = text.strip("\"'`")
    if (len(text) > 1 and _QUOTES.get(text[0]) == text[-1]) or (bare != text and raw_key(bare) is not None):
        return "is in quotation marks"
    if text[:2] in ("0x", "0X", "\\x") and _ANY_HEX.fullmatch(text[2:].replace("\\x", "")):
        return f"starts with {text[:2]}, and a key has hex digits only"
    if _ANY_HEX.fullmatch(text) and len(text) >= _LEAST_HEX:
        return f"has {len(text)} hex digits, and a key has {2 * KEY_BYTES}"
    digits = re.sub(r"[\s:,._-]", "", text)
    if digits != text and len(digits) >= 2 * _LEAST_HEX and _ANY_HEX.fullmatch(digits):
        return f"has other characters between its {len(digits)} hex digits, and a key has {2 * KEY_BYTES} without them"
    return _nearly_base64(text) or next((reason for start, reason in _STARTS if start.match(text)), None)


def weakness(passphrase: str) -> str | None:
    """Return why a passphrase is easy to guess; None if it isn't."""
    if len(passphrase) < MIN_PASSPHRASE_CHARS:
        count = f"{len(passphrase)} character{'' if len(passphrase) == 1 else 's'}"
        return f"has {count}, and a passphrase has at least {MIN_PASSPHRASE_CHARS}"
    # Common words don't count, nor what continues a row: `aaa`, `abc`, `321`.
    left = _COMMON.sub("\0", passphrase.casefold())
    counted = {character for before, character in pairwise("\0" + left) if abs(ord(character) - ord(before)) > 1}
    if len(counted - {"\0"}) < MIN_DIFFERENT_CHARS:
        return (
            f"has fewer than {MIN_DIFFERENT_CHARS} different characters, not counting common words, repetitions and "
            "rows like abc"
        )
    return None


def _nearly_base64(text: str) -> str | None:
    found = _ANY_BASE64.fullmatch(text)
    if found is None:
        return None
    digits, padding = found.groups()
    if not (_looks_random(digits) if not padding else len(text) >= _LEAST_PADDED):
        return None
    if len(digits) == _BASE64_DIGITS:
        return "is not 32 bytes in base64: its last digit is wrong, or it mixes two alphabets"
    return f"has {len(digits)} base64 digits, and a key has {_BASE64_DIGITS} (or {2 * KEY_BYTES} hex digits)"


def _looks_random(text: str) -> bool:
    """Whether a text without spaces is more like base64 than like words that are joined with `-`, `_` or `/`."""
    kinds = [1 if one.islower() else 2 if one.isupper() else 3 if one.isdecimal() else 4 for one in text]
    if len(text) < _LEAST_BASE64 or not {1, 2, 3} <= set(kinds):
        return False
    parts = re.split(r"[-_+/]", text)
    if len(parts) > 2 and all(_WORD.fullmatch(part) for part in parts):
        return False
    # In random base64, two digits in three are of another kind than the one before; in words, one letter in four is.
    return sum(one != other for one, other in pairwise(kinds)) >= 0.4 * len(kinds)
