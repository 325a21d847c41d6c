"""The bounds of a parameter in `Annotated[...]`: `Range`, `Length`, `Pattern`. A plain text there is its description.

The attributes have the names of the `annotated-types` package, so that its classes, and pydantic's `Field`, work as
well. `silo.sdk.schema` writes them as JSON Schema; the host and `silo.sdk.coerce` check values against them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Bounds of a number: at least `ge`, more than `gt`, at most `le`, less than `lt`, a multiple of `multiple_of`."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    multiple_of: float | None = None


@dataclass(frozen=True)
class Length:
    """Bounds of a length, both inclusive: characters of a text, items of a list, entries of a mapping."""

    min_length: int | None = None
    max_length: int | None = None


@dataclass(frozen=True)
class Pattern:
    """A regular expression that must match somewhere in a text; write `^...$` for all of it.

    Stay with what JavaScript (ECMA-262) and Python agree on, as JSON Schema 2020-12 §6.4 advises.

    Raises:
        ValueError: it isn't a regular expression.
    """

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {self.pattern!r}: {error}") from error


@dataclass(frozen=True)
class Bounds:
    """All bounds of one value; `silo.sdk.annotations` collects them from `Annotated`."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None

    def breach(self, value: object) -> str | None:
        """Return which bound a JSON value breaks (`must be at least 1`), or None; bounds of other types don't apply."""
        if isinstance(value, bool):
            return None
        if isinstance(value, int | float):
            return self._number_breach(value)
        if isinstance(value, str | list | dict):
            return self._length_breach(value)
        return None

    def _number_breach(self, value: float) -> str | None:
        if self.ge is not None and not value >= self.ge:
            return f"must be at least {self.ge}"
        if self.gt is not None and not value > self.gt:
            return f"must be more than {self.gt}"
        if self.le is not None and not value <= self.le:
            return f"must be at most {self.le}"
        if self.lt is not None and not value < self.lt:
            return f"must be less than {self.lt}"
        if self.multiple_of is not None and not _is_multiple(value, self.multiple_of):
            return f"must be a multiple of {self.multiple_of}"
        return None

    def _length_breach(self, value: str | list[object] | dict[str, object]) -> str | None:
        unit = "characters" if isinstance(value, str) else "items" if isinstance(value, list) else "entries"
        if self.min_length is not None and len(value) < self.min_length:
            return f"must have at least {self.min_length} {unit}"
        if self.max_length is not None and len(value) > self.max_length:
            return f"must have at most {self.max_length} {unit}"
        if self.pattern is not None and isinstance(value, str) and not re.search(self.pattern, value):
            return f"must match {self.pattern!r}"
        return None


def _is_multiple(value: float, step: float) -> bool:
    """Compute it as the `jsonschema` package does, so that host and guest never disagree about 0.3 and 0.1."""
    if isinstance(step, int):
        return not value % step
    try:
        quotient = value / step
        return int(quotient) == quotient
    except OverflowError:
        return False
