"""The installed tools under the names that clients see, which of them are listed, and pages of a list. Pure.

Turning them into MCP's types is `silo.server.tools`'s; noticing that they changed is `silo.server.changes`'s.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from silo.model import Skill, Tool
from silo.server.engine import Expose

T = TypeVar("T")

MAX_NAME_CHARS = 64
"""Several clients hand tool names to a model API that takes `[a-zA-Z0-9_-]{1,64}` only, and refuse the whole list otherwise."""

_CURSOR_VERSION = b"1:"
_MAX_CURSOR_CHARS = 1024


class CursorInvalid(ValueError):
    """A cursor that this server did not make."""


def wire_name(tool_id: str) -> str:
    """Return the name under which a tool is listed: `jwt.sign` is `jwt__sign`.

    A skill's name holds no `__`, so the two parts stay apart. A name that would be too long is cut and ends in a part of the
    id's hash, which keeps it unique and the same in every session.
    """
    name = tool_id.replace(".", "__", 1)
    if len(name) <= MAX_NAME_CHARS:
        return name
    digest = hashlib.sha256(tool_id.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME_CHARS - len(digest) - 1]}_{digest}"


@dataclass(frozen=True)
class Catalogue:
    """What was installed at one moment; tools and skills are sorted by name."""

    skills: tuple[Skill, ...]
    tools: tuple[Tool, ...]

    @classmethod
    def of(cls, skills: Sequence[Skill], tools: Sequence[Tool]) -> Catalogue:
        """Return a catalogue of them, in the order of their names."""
        return cls(
            tuple(sorted(skills, key=lambda skill: skill.namespace)), tuple(sorted(tools, key=lambda tool: tool.id))
        )

    @cached_property
    def _by_name(self) -> Mapping[str, Tool]:
        return {wire_name(tool.id): tool for tool in self.tools} | {tool.id: tool for tool in self.tools}

    def find(self, name: str) -> Tool | None:
        """Return the tool of that id or wire name, if there is one."""
        return self._by_name.get(name)

    def listed(self, expose: Expose, budget: int) -> tuple[Tool, ...]:
        """Return the tools that `tools/list` shows by their own names."""
        if expose == "router" or (expose == "auto" and len(self.tools) > budget):
            return ()
        return self.tools


def page(items: Sequence[T], key: Callable[[T], str], cursor: str | None, size: int) -> tuple[list[T], str | None]:
    """Return one page of `items` and the cursor of the next one, or None at the end.

    A cursor names the last key of its page, not a position: what is installed between two pages shifts nothing.

    Args:
        items: sorted by `key`, each key once.
        cursor: as this function returned it, or None for the first page.

    Raises:
        CursorInvalid: it is not such a cursor.
    """
    if cursor is not None:
        after = _decode_cursor(cursor)
        items = [item for item in items if key(item) > after]
    found = list(items[:size])
    return found, _encode_cursor(key(found[-1])) if len(items) > size else None


def _encode_cursor(key: str) -> str:
    return base64.urlsafe_b64encode(_CURSOR_VERSION + key.encode()).decode()


def _decode_cursor(cursor: str) -> str:
    if len(cursor) > _MAX_CURSOR_CHARS:
        raise CursorInvalid("too long")
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        text = raw.decode()
    except (ValueError, binascii.Error) as error:
        raise CursorInvalid("not a cursor") from error
    prefix = _CURSOR_VERSION.decode()
    if not text.startswith(prefix):
        raise CursorInvalid("not a cursor of this version")
    return text[len(prefix) :]
