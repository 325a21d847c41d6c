"""Find hidden characters in untrusted text, and make them visible to the person or model that reads it. Pure.

`silo.secrets.redaction` redacts secrets; the command line and the pages render text.
"""

from __future__ import annotations

import unicodedata

_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5")
# Invisible, although Unicode calls them letters or marks: Hangul fillers, the empty Braille pattern, joiners of marks.

_JOINERS = "\u200c\u200d"
_EMOJI_STYLE = "\ufe0f"


def has_hidden(text: str) -> bool:
    """Whether a text has characters that a reader would not see."""
    return any(_is_hidden(text, index) for index in range(len(text)) if not " " <= text[index] <= "~")


def show_hidden(text: str) -> str:
    """Replace hidden characters (zero-width and control characters, direction marks, tags) by `<U+200B>`.

    Line feeds and tabs stay. So do joiners between letters of scripts that need them, and the selector that makes a
    symbol an emoji. Other hidden characters have been used to hide instructions to a model.
    """
    if not has_hidden(text):
        return text
    return "".join(f"<U+{ord(one):04X}>" if _is_hidden(text, index) else one for index, one in enumerate(text))


def _is_hidden(text: str, index: int) -> bool:
    character = text[index]
    if character in "\n\t":
        return False
    if character in _JOINERS:
        return not (_is_letter_beyond_ascii(text, index - 1) and _is_letter_beyond_ascii(text, index + 1))
    if character == _EMOJI_STYLE:
        return index == 0 or unicodedata.category(text[index - 1]) not in ("So", "Sm", "Po")
    if "\ufe00" <= character <= "\ufe0e" or "\U000e0100" <= character <= "\U000e01ef" or character in _BLANK:
        return True
    return unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp")


def _is_letter_beyond_ascii(text: str, index: int) -> bool:
    if not 0 <= index < len(text):
        return False
    return not text[index].isascii() and unicodedata.category(text[index])[0] in "LM"
