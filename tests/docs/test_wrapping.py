"""Prose in Markdown is at most 120 columns wide, as the project's code is.

Left out: tables and front matter (one line is one row), code blocks with a program's output, and links.
Decision records are never rewritten, so they keep the lines that they were written with.
"""

from __future__ import annotations

import re

import pytest

COLUMNS = 120

_OUTPUT = re.compile(r"^```(?:console|text|json)?\n.*?^```$", re.MULTILINE | re.DOTALL)
_FRONT_MATTER = re.compile(r"\A---\n.*?^---$", re.MULTILINE | re.DOTALL)
_TARGET = re.compile(r"\]\([^)\s]+\)|https?://\S+")


def _too_long(text: str) -> list[int]:
    """Return the numbers of the lines that are too long."""
    for left_out in (_FRONT_MATTER, _OUTPUT):
        text = left_out.sub(lambda found: "\n" * found[0].count("\n"), text)
    return [
        number
        for number, line in enumerate(text.split("\n"), start=1)
        if len(_TARGET.sub("]()", line)) > COLUMNS and not line.startswith("|")
    ]


def test_prose_is_no_wider_than_the_code(pages):
    found = [
        f"{name}:{number}"
        for name, text in pages.items()
        if not re.match(r"docs/adr/\d", name)
        for number in _too_long(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a" * 120, []),
        ("a" * 121, [1]),
        ("- " + "word " * 24, [1]),
        ("| " + "a" * 121 + " |", []),
        ("see [a page](" + "a" * 121 + ")", []),
        ("see [a page](there) " + "a" * 121, [1]),
        ("```text\n" + "a" * 121 + "\n```\n" + "b" * 121, [4]),
        ("```python\n" + "a" * 121 + "\n```", [2]),
        ("---\nname: " + "a" * 121 + "\n---\n" + "b" * 121, [4]),
    ],
)
def test_a_line_that_is_too_long_would_be_found(text, expected):
    assert _too_long(text) == expected
