"""Reads `.env` files. Pure: nothing is expanded, run, or taken from the environment.

There is no standard for these files, and programs parse them differently. This reader accepts what they agree on. It
skips a value that could be read in two ways and gives a reason, because a wrong secret is worse than a missing one.
Reasons give the line and never a name: after a mistake in a multi-line value, what looks like a name may be part of a
key.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from silo_vault.errors import SourceUnreadable
from silo_vault.transfer.entry import (
    MAX_SOURCE_BYTES,
    Candidate,
    Found,
    Skipped,
    check_count,
    to_found,
)

_NOTHING = re.compile(r"[ \t]*(?:#[^\n]*)?(?=\n|\Z)")
_ASSIGNMENT = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=")
_BLANKS = re.compile(r"[ \t]*")
_COMMENT = re.compile(r"[ \t]#")
_BEHIND_QUOTE = re.compile(r"(?:[ \t]+#[^\n]*|[ \t]*)(?=\n|\Z)")
_REFERENCE = re.compile(r"\$[A-Za-z_{(]")
# After exactly one backslash it is escaped; programs disagree about two. These are lookbehinds because the time that
# `\\*` takes grows with the square of the number of backslashes.
_UNESCAPED_REFERENCE = re.compile(r"(?:(?<!\\)|(?<=\\\\))\$[A-Za-z_{(]")
_SPECIAL = re.compile(r'["\\$]')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}

_EXPANDS = (
    "it refers to another variable or command, and those are not expanded here; write the value itself, or use single "
    "quotes if the '$' is part of it"
)


class _Read(NamedTuple):
    """What follows a `=`: a value, or why it is skipped in `flaw`, and the position where its last line ends."""

    value: str
    flaw: str | None
    end: int


class _Unclosed(Exception):
    """A quote is not closed."""


def read_dotenv(text: str) -> Found:
    r"""Return the assignments of a `.env` file as entries without a namespace.

    - An assignment is `KEY=value`, with or without `export` before it and blanks around `=`. A comment is a line that
      starts with `#`.
    - An unquoted value ends with its line, or at a blank followed by `#`. In it `\$` is a `$`; any other backslash is
      literal.
    - In single quotes everything is literal. In double quotes `\n`, `\r`, `\t`, `\"`, `\\` and `\$` are escapes; any
      other backslash is literal. Both may span several lines.
    - A value with `$NAME`, `${…}` or `$(…)` and an empty value are skipped. The last value of a key counts.
    - Any other line is skipped. After a quote that is never closed nothing is read, because the rest may be the secret.

    Raises:
        SourceUnreadable: the text is longer than 64 MiB, or has more than 100,000 entries.
    """
    if len(text) > MAX_SOURCE_BYTES:
        raise SourceUnreadable(
            f"the text is longer than {MAX_SOURCE_BYTES} characters", hint="check that it is the right file"
        )
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    assignments: list[tuple[int, str, _Read]] = []
    skipped: list[Skipped] = []
    position, line = 0, 1
    while position < len(text):
        check_count(len(assignments) + len(skipped))
        begin = position
        if nothing := _NOTHING.match(text, position):
            position = nothing.end()
        elif assignment := _ASSIGNMENT.match(text, position):
            try:
                read = _read_value(text, assignment.end())
            except _Unclosed:
                skipped.append(Skipped(f"line {line}", "its quote is never closed; nothing from here on was read"))
                break
            assignments.append((line, assignment[1], read))
            position = read.end
        else:
            skipped.append(Skipped(f"line {line}", "it is not an assignment like KEY=value"))
            position = _end_of_line(text, position)
        position += 1
        line += text.count("\n", begin, position)
    return _to_found(assignments, skipped)


def _to_found(assignments: list[tuple[int, str, _Read]], skipped: list[Skipped]) -> Found:
    last = {key: line for line, key, _ in assignments}
    candidates = []
    for line, key, read in assignments:
        where = f"line {line}"
        if last[key] != line:
            skipped.append(Skipped(where, f"line {last[key]} sets it again, and the last one counts"))
        elif read.flaw is not None:
            skipped.append(Skipped(where, read.flaw))
        else:
            candidates.append(Candidate(where, "", key, read.value))
    found = to_found(candidates, skipped)
    return Found(found.entries, tuple(sorted(found.skipped, key=lambda each: int(each.where.removeprefix("line ")))))


def _read_value(text: str, after_equals: int) -> _Read:
    blanks = _BLANKS.match(text, after_equals)
    assert blanks is not None  # it also matches an empty text
    start = blanks.end()
    quote = text[start : start + 1]
    if quote == "'":
        close = text.find("'", start + 1)
        if close < 0:
            raise _Unclosed
        return _after_quote(text, _Read(text[start + 1 : close], None, close + 1))
    if quote == '"':
        return _after_quote(text, _read_double_quoted(text, start + 1))
    # From the `=`, not from the first character: a `#` right after it belongs to the value, one after a blank doesn't.
    return _read_unquoted(text, after_equals)


def _read_unquoted(text: str, start: int) -> _Read:
    end = _end_of_line(text, start)
    value = text[start:end]
    if comment := _COMMENT.search(value):
        value = value[: comment.start()]
    value = value.strip(" \t")
    if "\r" in value:
        return _Read("", "it holds a carriage return; put it in double quotes, as \\r", end)
    if value.startswith(("=", "`")):
        # Base64 ends like `abc==`: this is probably the last line of a value that needs quotes.
        return _Read("", "an unquoted value that starts with '=' or '`' may be something else; put it in quotes", end)
    if _UNESCAPED_REFERENCE.search(value):
        return _Read("", _EXPANDS, end)
    return _Read(value.replace("\\$", "$"), None, end)


def _read_double_quoted(text: str, start: int) -> _Read:
    pieces: list[str] = []
    flaw = None
    position = start
    while special := _SPECIAL.search(text, position):
        pieces.append(text[position : special.start()])
        position = special.end()
        if special[0] == '"':
            return _Read("".join(pieces), flaw, position)
        if special[0] == "$":
            pieces.append("$")
            if _REFERENCE.match(text, position - 1):
                flaw = _EXPANDS
        else:
            escaped = text[position : position + 1]
            pieces.append(_ESCAPES.get(escaped, "\\" + escaped))
            position += 1
    raise _Unclosed


def _after_quote(text: str, read: _Read) -> _Read:
    if rest := _BEHIND_QUOTE.match(text, read.end):
        return read._replace(end=rest.end())
    flaw = read.flaw or "there is more text after its closing quote; check its quotes"
    return _Read("", flaw, _end_of_line(text, read.end))


def _end_of_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end
