"""The installed tools under the names that clients see, which of them are listed, and pages of a list. Pure.

Turning them into MCP's types is `silo.server.protocol.tools`'s; noticing that they changed is `silo.server.protocol.changes`'s.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from silo.model import Skill, Tool
from silo.policy.visible import Outlook
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
class Listing:
    """What was installed at one moment, as one caller may see it; tools and skills are sorted by name.

    Attributes:
        skills: those of which the caller may use something, with the tools that it may use.
        tools: all of these.
        outlooks: what to expect of a call, by tool.
        hidden: tools that are refused whatever their arguments; a call by name finds them, so that it hears why.
    """

    skills: tuple[Skill, ...]
    tools: tuple[Tool, ...]
    outlooks: Mapping[str, Outlook] = field(default_factory=dict)
    hidden: tuple[Tool, ...] = ()

    @classmethod
    def of(cls, skills: Sequence[Skill], outlooks: Mapping[str, Outlook]) -> Listing:
        """Return a listing of them, in the order of their names; a tool without an outlook is hidden until there is one."""

        def is_visible(tool: Tool) -> bool:
            return outlooks.get(tool.id, "denied") != "denied"

        tools = sorted((tool for skill in skills for tool in skill.tools), key=lambda tool: tool.id)
        seen = (replace(skill, tools=tuple(filter(is_visible, skill.tools))) for skill in skills)
        return cls(
            tuple(sorted((skill for skill in seen if skill.tools), key=lambda skill: skill.namespace)),
            tuple(filter(is_visible, tools)),
            outlooks,
            tuple(tool for tool in tools if not is_visible(tool)),
        )

    @cached_property
    def _by_name(self) -> Mapping[str, Tool]:
        every = (*self.hidden, *self.tools)
        return {wire_name(tool.id): tool for tool in every} | {tool.id: tool for tool in every}

    @cached_property
    def _visible(self) -> frozenset[str]:
        return frozenset(tool.id for tool in self.tools)

    def find(self, name: str) -> Tool | None:
        """Return the tool of that id or wire name, if there is one, hidden or not."""
        return self._by_name.get(name)

    def show(self, name: str) -> Tool | None:
        """Return the tool of that id or wire name, if the caller may know of it."""
        found = self.find(name)
        return found if found is not None and found.id in self._visible else None

    def listed(
        self, expose: Expose, budget: int, *, cost: Callable[[Tool], int], usage: Mapping[str, int]
    ) -> tuple[Tool, ...]:
        """Return the tools that `tools/list` shows by their own names.

        Args:
            expose: `auto` lists all of them if they fit into the budget, else those that were used most and fit.
            budget: in tokens.
            cost: of a tool, in tokens.
            usage: how often each tool was called.
        """
        if expose == "router":
            return ()
        if expose == "direct" or _fits(self.tools, budget, cost):
            return self.tools
        used = sorted(
            (tool for tool in self.tools if usage.get(tool.id, 0) >= MIN_USES),
            key=lambda tool: (-usage[tool.id], tool.id),
        )
        chosen = []
        for tool in used[:MAX_USED]:
            spent = cost(tool)
            if spent <= budget:
                chosen.append(tool)
                budget -= spent
        return tuple(sorted(chosen, key=lambda tool: tool.id))


MIN_USES = 3
"""Calls after which a tool is one that is used; it is listed in each conversation from then on, and paid for."""

MAX_USED = 50
"""Tools that are looked at for being listed by their own names; more is what the budget is there to avoid."""


def _fits(tools: Sequence[Tool], budget: int, cost: Callable[[Tool], int]) -> bool:
    for tool in tools:
        budget -= cost(tool)
        if budget < 0:  # of thousands of tools, only the first few are looked at
            return False
    return True


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
