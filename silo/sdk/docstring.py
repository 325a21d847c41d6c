"""Split a docstring into the description of a tool and the texts of its parameters. Pure; no tools or schemas here.

It reads the styles of Google (`Args:`), NumPy (`Parameters` underlined with dashes) and Sphinx (`:param name:`).
Everything else is description.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_GOOGLE_HEADER: Final = re.compile(r"(Args|Arguments|Parameters|Params|Keyword Args|Keyword Arguments|Attributes):\s*")
_NUMPY_HEADER: Final = re.compile(r"(Parameters|Other Parameters|Attributes)\s*")
_UNDERLINE: Final = re.compile(r"-{3,}\s*")
_GOOGLE_ENTRY: Final = re.compile(r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:(?:\s+|$)(.*)")
_GOOGLE_NAMES: Final = re.compile(r"\*{0,2}(\w+(?:\s*,\s*\w+)+)\s*:(?:\s+|$)(.*)")
_NUMPY_ENTRY: Final = re.compile(r"\*{0,2}(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?")
_SPHINX_FIELD: Final = re.compile(
    r":(param|parameter|arg|argument|key|keyword|type)\s+(?:[^:]*\s)?\*{0,2}(\w+)\s*:\s*(.*)"
)


@dataclass(frozen=True)
class Docstring:
    """A docstring in parts.

    Attributes:
        description: all of it but the parameters, without indentation.
        parameters: texts by name, each on one line.
    """

    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_docstring(text: str | None) -> Docstring:
    """Split a docstring; never fails, and drops nothing but the parameter section."""
    if not text:
        return Docstring()
    lines = inspect.cleandoc(text).splitlines()
    kept: list[str] = []
    found: dict[str, list[str]] = {}
    at = 0
    while at < len(lines):
        end = _section(lines, at, found)
        if end == at:
            kept.append(lines[at])
            end += 1
        at = end
    description = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in kept)).strip()
    return Docstring(description, {name: " ".join(" ".join(parts).split()) for name, parts in found.items()})


def _section(lines: Sequence[str], at: int, found: dict[str, list[str]]) -> int:
    """Read the parameters that start at a line into `found`; return the line after them, or `at` if none start here."""
    if _NUMPY_HEADER.fullmatch(lines[at]) and at + 1 < len(lines) and _UNDERLINE.fullmatch(lines[at + 1]):
        return _numpy(lines, at + 2, found)
    if _GOOGLE_HEADER.fullmatch(lines[at]) and at + 1 < len(lines) and _indent(lines[at + 1]) > 0:
        return _google(lines, at + 1, found)
    if match := _SPHINX_FIELD.fullmatch(lines[at]):
        kind, name, text = match.groups()
        end = at + 1
        while end < len(lines) and lines[end].strip() and _indent(lines[end]) > 0:
            text += " " + lines[end].strip()
            end += 1
        if kind != "type":
            found[name] = [text]
        return end
    return at


def _google(lines: Sequence[str], at: int, found: dict[str, list[str]]) -> int:
    """Entries are indented by one step, their continuation lines by more; the first unindented line ends them."""
    step = _indent(lines[at])
    names: tuple[str, ...] = ()
    while at < len(lines) and (not lines[at].strip() or _indent(lines[at]) > 0):
        line = lines[at].strip()
        match = _GOOGLE_NAMES.fullmatch(line) or _GOOGLE_ENTRY.fullmatch(line)
        if _indent(lines[at]) <= step and line and match:
            names = tuple(part.strip() for part in match[1].split(","))
            for name in names:
                found[name] = [match[2]]
        elif line:
            for name in names:
                found[name].append(line)
        at += 1
    return at


def _numpy(lines: Sequence[str], at: int, found: dict[str, list[str]]) -> int:
    """Entries are not indented, their texts are; a header with its underline ends them."""
    names: tuple[str, ...] = ()
    while at < len(lines):
        line = lines[at]
        if at + 1 < len(lines) and _UNDERLINE.fullmatch(lines[at + 1]):
            break
        if line.strip() and _indent(line) == 0:
            match = _NUMPY_ENTRY.fullmatch(line)
            if match is None:
                break
            names = tuple(part.strip() for part in match[1].split(","))
            for name in names:
                found[name] = []
        else:
            for name in names:
                found[name].append(line.strip())
        at += 1
    return at


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
