"""Make untrusted text safe to show: spell out characters that are invisible, move the cursor or reorder text. Pure."""

from __future__ import annotations

import unicodedata

_SPELT_CATEGORIES = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Control, format (bidirectional marks, zero-width characters, tags), unassigned, private use, surrogate, separator."""

_BLANK = frozenset(
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}.union(
        range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0)
    )
)
"""Characters of other categories that show nothing: fillers, the empty Braille cell, variation selectors."""

_MAX_MARKS = 4
"""How many combining marks a letter may have. No script needs more, and a stack of them covers the lines around it."""


def visible(text: str) -> str:
    """Return the text as one line in which every character can be seen.

    Characters that can't be seen become `<U+XXXX>`, line breaks and tabs included.
    """
    shown: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) in {"Mn", "Me"} else 0
        # A mark at the very start would combine with whatever we wrote before the text.
        hidden = _is_hidden(character) or marks > _MAX_MARKS or (marks and not shown)
        shown.append(f"<U+{ord(character):04X}>" if hidden else character)
    return "".join(shown)


def visible_lines(text: str) -> list[str]:
    """Return the text as lines, broken at line feeds only, each as `visible` shows it."""
    return [visible(line) for line in text.split("\n")]


def wrap(line: str, width: int) -> list[str]:
    """Cut a visible line into one or more pieces of at most `width` columns each; no character is dropped or added."""
    pieces, columns = [""], 0
    for character in line:
        size = _columns(character)
        if columns + size > width and pieces[-1]:
            pieces.append("")
            columns = 0
        pieces[-1] += character
        columns += size
    return pieces


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    is_odd_space = category == "Zs" and character != " "
    return category in _SPELT_CATEGORIES or is_odd_space or ord(character) in _BLANK


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1
