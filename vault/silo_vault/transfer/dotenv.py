"""Read `.env` files. Pure: text to entries; nothing is expanded, run, or taken from the environment.

There is no standard for these files, and programs differ in what they make of one. Taken is what they agree on; where a value
could be read in two ways it is skipped with a reason, because a wrong secret is worse than a missing one. Reasons name lines,
never a name or a piece of one: after a slip in a multi-line value, what looks like a name may be part of a key.
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
# Behind exactly one backslash it is escaped; what two mean, programs disagree on. Lookbehinds, as `\\*` would cost the square of a run.
_UNESCAPED_REFERENCE = re.compile(r"(?:(?<!\\)|(?<=\\\\))\$[A-Za-z_{(]")
_SPECIAL = re.compile(r'["\\$]')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}

_EXPANDS = (
    "it refers to another variable or command, and those are not expanded here; put in what it stands for, or use single "
    "quotes if the '$' is meant as it is"
)


class _Read(NamedTuple):
    """What follows a `=`: a value or the reason why there is none, and where its last line ends."""

    value: str
    flaw: str | None
    end: int


class _Unclosed(Exception):
    """A quote has no end."""


def read_dotenv(text: str) -> Found:
    r"""Return the assignments of a `.env` file, each as an entry of no namespace.

    - `KEY=value`, with `export` before it or not, and blanks around `=`; comments are lines that start with `#`.
    - Unquoted, a value ends with its line, or at a blank followed by `#`; a `\$` is a `$`, any other backslash itself.
    - In single quotes everything is itself; in double quotes `\n`, `\r`, `\t`, `\"`, `\\` and `\$` are escapes, and a backslash
      before anything else is itself. Both may go over several lines.
    - A value with `$NAME`, `${…}` or `$(…)` is skipped, and so are empty ones; a key that is set twice has its last value.
    - A line that is none of these is skipped. After a quote that is never closed nothing is read: what follows may be the secret.

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
            skipped.append(Skipped(f"line {line}", "it is no assignment like KEY=value"))
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
    assert blanks is not None  # it matches nothing, too
    start = blanks.end()
    quote = text[start : start + 1]
    if quote == "'":
        close = text.find("'", start + 1)
        if close < 0:
            raise _Unclosed
        return _after_quote(text, _Read(text[start + 1 : close], None, close + 1))
    if quote == '"':
        return _after_quote(text, _read_double_quoted(text, start + 1))
    # From the `=`, not from the first character: a `#` right behind it belongs to the value, one behind a blank does not.
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
        # `abc==` is how base64 ends: most likely the last line of a value that lacks its quotes.
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
    flaw = read.flaw or "there is more text behind its closing quote; check its quotes"
    return _Read("", flaw, _end_of_line(text, read.end))


def _end_of_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end
