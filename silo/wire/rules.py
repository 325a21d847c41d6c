"""What a field of a message may contain: each rule decides on a value, and says itself in words.

`silo.wire.messages.MESSAGES` gives each field its rule.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from silo.wire.strict_json import Json

MAX_NAME_CHARS: Final = 255
"""The longest name of a file, in characters and in bytes."""


class Rule(Protocol):
    """Says which values a field may have."""

    def allows(self, value: Json) -> bool:
        """Whether a field may have the value, which the parser made: JSON in Python's types."""
        ...

    def __str__(self) -> str:
        """The rule in words, after "must be"."""
        ...


@dataclass(frozen=True)
class Text:
    """A string.

    Attributes:
        most: how many characters it may have.
        least: how many it must have.
        is_printable: whether it may hold no control characters and no line breaks.
        pattern: a regular expression for all of it, and the same in words.
    """

    most: int
    least: int = 0
    is_printable: bool = False
    pattern: tuple[str, str] | None = None

    def allows(self, value: Json) -> bool:
        """As `Rule.allows`."""
        return (
            type(value) is str
            and self.least <= len(value) <= self.most
            and not (self.is_printable and not value.isprintable())
            and not (self.pattern and not re.fullmatch(self.pattern[0], value))
        )

    def __str__(self) -> str:
        """As `Rule.__str__`."""
        size = f"{self.least:,} to {self.most:,}" if self.least else f"at most {self.most:,}"
        size = f"{self.most:,}" if self.least == self.most else size
        kind = self.pattern[1] if self.pattern else "printable characters" if self.is_printable else "characters"
        return f"a string of {size} {kind}"


@dataclass(frozen=True)
class OneOf:
    """One of some strings."""

    values: frozenset[str]

    def allows(self, value: Json) -> bool:
        """As `Rule.allows`."""
        return type(value) is str and value in self.values

    def __str__(self) -> str:
        """As `Rule.__str__`."""
        return "one of " + ", ".join(sorted(self.values))


@dataclass(frozen=True)
class Whole:
    """An integer in a range; 1.0 and true are none."""

    least: int
    most: int

    def allows(self, value: Json) -> bool:
        """As `Rule.allows`."""
        return type(value) is int and self.least <= value <= self.most

    def __str__(self) -> str:
        """As `Rule.__str__`."""
        return f"an integer from {self.least:,} to {self.most:,}"


@dataclass(frozen=True)
class Number:
    """An integer or a fraction in a range, by default that of a float; JSON's integers have no bounds."""

    least: float = -sys.float_info.max
    most: float = sys.float_info.max

    def allows(self, value: Json) -> bool:
        """As `Rule.allows`."""
        return type(value) in (int, float) and self.least <= value <= self.most

    def __str__(self) -> str:
        """As `Rule.__str__`."""
        if self == Number():
            return "a number in the range of a float"
        return f"a number from {self.least:,.0f} to {self.most:,.0f}"


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def allows(self, value: Json) -> bool:
        """As `Rule.allows`."""
        return type(value) is bool

    def __str__(self) -> str:
        """As `Rule.__str__`."""
        return "true or false"


@dataclass(frozen=True)
class AnyObject:
    """A JSON object; the parser bounds its depth and its number of values."""

    def allows(self, value: Json) -> bool:
        """As `Rule.allows`."""
        return type(value) is dict

    def __str__(self) -> str:
        """As `Rule.__str__`."""
        return "an object"


@dataclass(frozen=True)
class AnyValue:
    """Any JSON value; the parser bounds its depth and its number of values."""

    def allows(self, value: Json) -> bool:
        """As `Rule.allows`."""
        return True

    def __str__(self) -> str:
        """As `Rule.__str__`."""
        return "any value"


@dataclass(frozen=True)
class Maybe:
    """Null, or what another rule allows."""

    rule: Rule

    def allows(self, value: Json) -> bool:
        """As `Rule.allows`."""
        return value is None or self.rule.allows(value)

    def __str__(self) -> str:
        """As `Rule.__str__`."""
        return f"{self.rule}, or null"


class _FileName:
    def allows(self, value: Json) -> bool:
        return type(value) is str and is_safe_name(value)

    def __str__(self) -> str:
        return f"a bare, visible file name of at most {MAX_NAME_CHARS} bytes"


class _MediaType:
    def allows(self, value: Json) -> bool:
        return type(value) is str and is_media_type(value)

    def __str__(self) -> str:
        return "a media type without parameters (RFC 6838)"


_FILE: Final[Mapping[str, Rule]] = MappingProxyType(
    {"name": _FileName(), "media_type": _MediaType(), "size": Whole(0, 2**63 - 1)}
)


@dataclass(frozen=True)
class Files:
    """The heads of files: a list of objects, each with a name, a media type and a size."""

    most: int

    def allows(self, value: Json) -> bool:
        """As `Rule.allows`."""
        return (
            type(value) is list
            and len(value) <= self.most
            and all(
                type(head) is dict
                and head.keys() == _FILE.keys()
                and all(rule.allows(head[name]) for name, rule in _FILE.items())
                for head in value
            )
        )

    def __str__(self) -> str:
        """As `Rule.__str__`."""
        parts = ", ".join(f"{name} ({rule})" for name, rule in _FILE.items())
        return f"a list of at most {self.most} files, each an object with {parts}"


def is_safe_name(name: str) -> bool:
    """Whether `name` is a bare, printable, visible file name without special characters of a shell or file system."""
    return (
        0 < len(name) <= MAX_NAME_CHARS
        and len(name.encode(errors="replace")) <= MAX_NAME_CHARS
        and name.isprintable()
        and not any(c in name for c in '/\\:*?"<>|')
        and not any(
            0x200B <= ord(c) <= 0x200F or 0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 for c in name
        )
        and name[0] not in ".-~ "
        and name[-1] not in ". "
    )


def is_media_type(value: str) -> bool:
    """Whether `value` is `type/subtype` by RFC 6838 §4.2, without parameters."""
    kind, slash, subtype = value.partition("/")
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&-^_.+")
    return bool(slash) and all(0 < len(part) <= 127 and set(part) <= allowed for part in (kind, subtype))
