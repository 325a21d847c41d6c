"""Find the tools that a caller may know of, ranked by its words and by what it has called before. Blocks.

`silo.providers.skills` says what is installed and what the caller may know of, `indexes` ranks, `feedback` derives
lessons from calls.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from silo.approvals.questions import principal
from silo.discovery.feedback import Feedback, Lesson
from silo.discovery.indexes import Indexes
from silo.discovery.learned import LearnedFile
from silo.errors import SkillUnknown
from silo.model import Caller
from silo.names import split_id, suggestion
from silo.policy.visible import Visible
from silo.providers.skills import Skills
from silo.router.index import Match

MAX_SKILL_CHARS = 200
"""How much of an unknown skill's name the message shows."""


class Finder:
    """Search over the installed skills. Methods block, and may be called from any thread."""

    def __init__(
        self,
        skills: Skills,
        indexes: Indexes,
        *,
        learned: LearnedFile | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet.

        Args:
            skills: what is installed.
            indexes: rank it.
            learned: keeps lessons; None: nothing is learned.
            clock: monotonic seconds.
        """
        self._skills = skills
        self._indexes = indexes
        self._learned = learned
        self._clock = clock
        self._feedback = Feedback()
        self._lock = threading.Lock()

    def find(
        self,
        queries: Sequence[str],
        *,
        limit: int,
        skill: str | None = None,
        caller: Caller,
        among: Visible | None = None,
    ) -> tuple[tuple[Match, ...], ...]:
        """Return for each query at most `limit` tools that the caller may know of, best first.

        A tool that is removed or replaced meanwhile is left out.

        Args:
            queries: what tools should do.
            limit: how many for each.
            skill: look only among its tools.
            caller: whose view, and whose lessons.
            among: what the caller may know of, if the calling code has it already; None looks at the folder, once.

        Raises:
            SkillUnknown: the caller knows no skill of that name; the hint has the nearest names.
        """
        visible = self._skills.visible(caller) if among is None else among
        if skill is not None:
            _check_skill(skill, visible)
        who, session = principal(caller), caller.session
        with self._lock:
            lessons = self._feedback.end(who, session)
        self._learn(lessons)  # first, so that this search uses them already
        found = self._indexes.search(queries, visible, caller, limit=limit, skill=skill)
        found = self._without_removed(found, visible)
        if self._learned is not None:
            shown = [
                (query, [match.tool.id for match in matches]) for query, matches in zip(queries, found, strict=True)
            ]
            with self._lock:
                self._feedback.searched(who, session, shown, self._clock())
        return found

    def usage(self, caller: Caller) -> Mapping[str, int]:
        """Return how often the caller has called each tool, as far as silo remembers it."""
        return {} if self._learned is None else self._learned.usage(principal(caller))

    def called(self, caller: Caller, tool: str, arguments: Mapping[str, Any]) -> None:
        """Note a call that succeeded.

        Args:
            caller: who made it.
            tool: its id, in either form.
            arguments: are removed from the request that is learned, and kept nowhere.
        """
        if self._learned is None:
            return
        parts = split_id(tool)
        identity = tool if parts is None else ".".join(parts)
        with self._lock:
            self._feedback.called(principal(caller), caller.session, identity, arguments, self._clock())
        self._learned.count(principal(caller), identity)

    def close(self) -> None:
        """Learn from the last search."""
        with self._lock:
            lessons = self._feedback.close()
        self._learn(lessons)

    def _without_removed(self, found: Sequence[Sequence[Match]], visible: Visible) -> tuple[tuple[Match, ...], ...]:
        """Leave out tools that are no longer installed. Looks only at the skills that were found, not at the folder."""
        names = {match.tool.skill for matches in found for match in matches}
        gone = {one.namespace for one in visible.skills if one.namespace in names and not self._skills.is_current(one)}
        return tuple(tuple(match for match in matches if match.tool.skill not in gone) for matches in found)

    def _learn(self, lessons: Sequence[Lesson]) -> None:
        if lessons and self._learned is not None:
            self._learned.learn(lessons)


def _check_skill(name: str, visible: Visible) -> None:
    names = {skill.namespace for skill in visible.skills}
    if name not in names:
        raise SkillUnknown(
            f"no skill {name[:MAX_SKILL_CHARS]!r} is installed",
            hint=suggestion(name, names, otherwise="`silo list` shows what is; `silo install` adds one"),
        )
