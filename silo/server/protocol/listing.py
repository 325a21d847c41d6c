"""The installed tools under the names that clients see, which of them are listed, and pages of a list. Pure.

`silo.server.protocol.tools` turns them into MCP's types; `silo.server.protocol.changes` notices when they change.
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
from silo.policy.visible import ExpectedVerdict, Visible
from silo.server.engine import Expose

T = TypeVar("T")

MAX_NAME_CHARS = 64
"""Several clients pass tool names to a model API that accepts only `[a-zA-Z0-9_-]{1,64}` and otherwise refuses all."""

_CURSOR_VERSION = b"1:"
_MAX_CURSOR_CHARS = 1024


class CursorInvalid(ValueError):
    """A cursor that this server did not make."""


def wire_name(tool_id: str) -> str:
    """Return the name under which a tool is listed: `jwt.sign` is `jwt__sign`.

    A skill's name has no `__`, so the two parts can be told apart. A name that would be too long is cut and ends in a
    part of the id's hash, which keeps it unique and the same in every session.
    """
    name = tool_id.replace(".", "__", 1)
    if len(name) <= MAX_NAME_CHARS:
        return name
    digest = hashlib.sha256(tool_id.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME_CHARS - len(digest) - 1]}_{digest}"


@dataclass(frozen=True)
class Listing:
    """What a client may see of what was installed at one moment, under the names that it uses."""

    visible: Visible

    @property
    def skills(self) -> tuple[Skill, ...]:
        """The skills of which the client may use something, with the tools that it may use."""
        return self.visible.skills

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All tools of these."""
        return self.visible.tools

    @property
    def expected(self) -> Mapping[str, ExpectedVerdict]:
        """What to expect of a call, by tool."""
        return self.visible.expected

    @cached_property
    def _by_name(self) -> Mapping[str, Tool]:
        every = (*self.visible.hidden, *self.tools)
        return {wire_name(tool.id): tool for tool in every} | {tool.id: tool for tool in every}

    @cached_property
    def _shown(self) -> frozenset[str]:
        return frozenset(tool.id for tool in self.tools)

    def find(self, name: str) -> Tool | None:
        """Return the tool with that id or wire name, hidden or not, or None."""
        return self._by_name.get(name)

    def show(self, name: str) -> Tool | None:
        """Return the tool with that id or wire name, or None if the caller may not see it."""
        found = self.find(name)
        return found if found is not None and found.id in self._shown else None

    def listed(
        self, expose: Expose, budget: int, *, cost: Callable[[Tool], int], usage: Mapping[str, int]
    ) -> tuple[Tool, ...]:
        """Return the tools that `tools/list` shows by their own names.

        Args:
            expose: `auto` lists all tools if they fit into the budget, else those that were used most and fit.
            budget: in tokens.
            cost: returns what a tool costs, in tokens.
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
"""How many calls make a tool worth listing. From then on, each conversation pays for it."""

MAX_USED = 50
"""How many of the used tools are considered for the list."""


def _fits(tools: Sequence[Tool], budget: int, cost: Callable[[Tool], int]) -> bool:
    for tool in tools:
        budget -= cost(tool)
        if budget < 0:  # stop early: there may be thousands of tools
            return False
    return True


def page(items: Sequence[T], key: Callable[[T], str], cursor: str | None, size: int) -> tuple[list[T], str | None]:
    """Return one page of `items` and the cursor of the next one, or None at the end.

    A cursor names the last key of its page, not a position, so an installation between two pages shifts nothing.

    Args:
        items: sorted by `key`; keys are unique.
        key: returns the key of an item.
        cursor: what this function returned with the page before, or None for the first page.
        size: entries on a page.

    Raises:
        CursorInvalid: this function did not return that cursor.
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
