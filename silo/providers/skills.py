"""The installed skills: which there are, which a caller may know of, and which tool a name means. Blocks.

The folder is read again only if it has changed. Searches, lists, the server that tells clients of changes, and hints on
a wrong name all use the same result. `silo.catalog.store` reads and writes the folder, `silo.policy.visible` decides
what a caller may know of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from silo.catalog.store import Damaged, Fingerprint, SkillStore
from silo.errors import SkillUnknown, ToolUnknown
from silo.model import Caller, Skill, Tool
from silo.names import nearest, split_id
from silo.policy.rules import Rule
from silo.policy.visible import Visible, visible_to
from silo.remedies import LIST_SKILLS, LIST_TOOLS, NearestNames, Remedy

Guess = Callable[[str, Visible, Caller], Sequence[str]]
"""Returns the ids of tools that a wrong name describes, e.g. `sign a token`, among the visible ones."""


@dataclass(frozen=True)
class Inventory:
    """What was installed at one moment.

    Attributes:
        seen: the folder's fingerprint, taken before it was read, so the next look notices a change in between.
        damaged: skills whose record can't be read; `skills` leaves them out.
    """

    seen: Fingerprint
    skills: tuple[Skill, ...]
    damaged: tuple[Damaged, ...] = ()
    views: dict[str, Visible] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def tools(self) -> tuple[Tool, ...]:
        """The tools of all skills, sorted by id."""
        return tuple(sorted((tool for skill in self.skills for tool in skill.tools), key=lambda tool: tool.id))


class Skills:
    """The skills of one store, under the user's rules. Methods may be called from any thread."""

    def __init__(
        self, store: SkillStore, rules: Sequence[Rule] = (), *, guess: Guess = lambda name, visible, caller: ()
    ) -> None:
        """Read nothing yet.

        Args:
            store: keeps them.
            rules: decide what a caller may know of.
            guess: finds tools for a wrong name that is not close to any visible one.
        """
        self._store = store
        self._rules = rules
        self._guess = guess
        self._held: Inventory | None = None
        self._lock = threading.Lock()

    def now(self) -> Inventory:
        """Return what is installed; the same object until the folder changes. One look at the folder."""
        with self._lock:
            seen = self._store.look()
            if self._held is None or self._held.seen != seen:
                self._held = Inventory(seen, *self._store.read(seen))
            return self._held

    def visible(self, caller: Caller) -> Visible:
        """Return what a caller may know of; the same object until the folder changes. One look at the folder."""
        inventory = self.now()
        # The rules only look at a caller's kind.
        view = inventory.views.get(caller.kind)
        if view is None:
            view = inventory.views[caller.kind] = visible_to(caller, inventory.skills, self._rules)
        return view

    def get(self, namespace: str) -> Skill:
        """Return a skill whose script and lock are what was agreed to.

        Raises:
            SkillUnknown: no skill has that name; the hint has the nearest names.
            SkillChanged: its files differ from what was installed.
        """
        return self._store.get(namespace)

    def is_current(self, skill: Skill) -> bool:
        """Whether this version of a skill is still the installed one. Does not read the rest of the folder."""
        return self._store.is_current(skill)

    def resolve(self, name: str, caller: Caller) -> tuple[Skill, Tool]:
        """Return the tool that a call by `name` means, hidden or not, and its skill, whose files were checked.

        Args:
            name: `skill.tool` or `skill__tool`.
            caller: hints name only what it may know of.

        Raises:
            SkillUnknown, ToolUnknown: no tool has that name; the hint has the nearest names.
            SkillChanged: as for `get`.
        """
        parts = split_id(name)
        if parts is None:
            raise self._tool_unknown(name, caller)
        try:
            skill = self.get(parts[0])
        except SkillUnknown as error:
            raise SkillUnknown(error.message, hint=self._remedy(name, caller, LIST_SKILLS)) from error
        for tool in skill.tools:
            if tool.name == parts[1]:
                return skill, tool
        raise self._tool_unknown(name, caller)

    def nearest(self, name: str, caller: Caller) -> tuple[str, ...]:
        """Return the visible tools that a wrong name probably means: those of similar spelling, else by description."""
        visible = self.visible(caller)
        near = nearest(name, (tool.id for tool in visible.tools))
        return near or tuple(self._guess(name, visible, caller))

    def _tool_unknown(self, name: str, caller: Caller) -> ToolUnknown:
        return ToolUnknown(f"there is no tool {name[:120]!r}", hint=self._remedy(name, caller, LIST_TOOLS))

    def _remedy(self, name: str, caller: Caller, otherwise: Remedy) -> Remedy:
        names = self.nearest(name, caller)
        return NearestNames(names) if names else otherwise
