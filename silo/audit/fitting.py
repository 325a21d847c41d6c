"""Make the facts of a record fit into one line, whatever they hold. Pure; `silo.audit.log` writes the line.

Names come from agents, and a record that is refused for its length would be a call without a record. So what is too
long is cut, and the record says that it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from silo.schema.canonical import canonical
from silo.wire.messages import Json

MARK = "…"
"""Stands at the end of a text that was cut, and as the last item of a list that was."""

_STEPS = ((200, 64), (100, 32), (40, 16), (16, 8), (8, 2))
"""Characters of a text, and items of a list or object, that are left; the first that fits is taken."""


def fitted(body: Mapping[str, Any], max_bytes: int) -> dict[str, Any]:
    """Return facts as JSON of at most `max_bytes` in its canonical spelling; `shortened` is true if some were cut.

    Values that JSON does not have become their type's name in angle brackets. The first 64 facts are kept by name.
    """
    plain = {str(name): _plain(value, 0) for name, value in body.items()}
    if len(canonical(plain)) <= max_bytes:
        return plain
    for chars, items in _STEPS:
        short = {_cut(name, chars): _shortened(value, chars, items) for name, value in list(plain.items())[:64]}
        short["shortened"] = True
        if len(canonical(short)) <= max_bytes:
            return short
    return {"shortened": True}


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[:chars] + MARK


def _shortened(value: Json, chars: int, items: int) -> Json:
    if isinstance(value, str):
        return _cut(value, chars)
    if isinstance(value, dict):
        kept = {_cut(name, chars): _shortened(item, chars, items) for name, item in list(value.items())[:items]}
        return kept if len(value) <= items else {**kept, MARK: len(value) - items}
    if isinstance(value, list):
        kept_items = [_shortened(item, chars, items) for item in value[:items]]
        return kept_items if len(value) <= items else [*kept_items, MARK]
    return value


_MAX_DEPTH = 8


def _plain(value: object, depth: int) -> Json:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return value if -(2**63) < value < 2**64 else f"<{type(value).__name__}>"  # false for NaN, too
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        return {name if isinstance(name, str) else _kind(name): _plain(item, depth + 1) for name, item in value.items()}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return _kind(value)


def _kind(value: object) -> str:
    return f"<{type(value).__name__}>"
