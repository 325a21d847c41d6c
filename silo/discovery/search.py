"""Find tools for a caller: those that it may know of, ranked by what it asked for, and by what it has called before. Blocks.

What may be known is `silo.policy.visible`'s, ranking `silo.router`'s, what a call teaches `followed`'s. The index is built when somebody
first searches, and kept in a file, because a server has to answer before that and most commands never search.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from silo.approvals.questions import principal
from silo.catalog.store import Fingerprint, SkillStore, fingerprint
from silo.discovery.feedback import Followed, Lesson
from silo.discovery.learned import LearnedFile
from silo.errors import SkillUnknown
from silo.model import Caller, Skill, Tool
from silo.names import split_id, suggestion
from silo.policy.rules import Rule
from silo.policy.visible import Outlook, outlooks
from silo.router.documents import SkillAbout
from silo.router.index import Index, Match
from silo.router.settings import RouterSettings

MAX_INDEXES = 4
"""Indexes with what a principal has taught that are kept at once; one process serves one principal, or a few."""

MAX_DESCRIBED_CHARS = 200
"""Of a wrong name that is read as a description; an agent that writes more means something else."""


@dataclass(frozen=True)
class Installed:
    """What was installed at one moment."""

    seen: Fingerprint
    skills: tuple[Skill, ...]
    known: dict[str, Mapping[str, Outlook]] = field(default_factory=dict)

    @cached_property
    def tools(self) -> tuple[Tool, ...]:
        """The tools of all skills, sorted by id."""
        return tuple(sorted((tool for skill in self.skills for tool in skill.tools), key=lambda tool: tool.id))

    @cached_property
    def examples(self) -> Mapping[str, tuple[str, ...]]:
        """What authors give as requests that a tool answers, by its id."""
        return {
            f"{skill.namespace}.{name}": given for skill in self.skills for name, given in skill.header.examples.items()
        }


class Finder:
    """The router over one store of skills. Methods block, and may be called from any thread."""

    def __init__(
        self,
        store: SkillStore,
        rules: Sequence[Rule],
        settings: RouterSettings,
        *,
        cache: Path | None,
        learned: LearnedFile | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet.

        Args:
            store: the installed skills.
            rules: the user's.
            settings: of the ranking.
            cache: a file to keep the index in.
            learned: where is kept what calls have taught; None: nothing is learnt, and nothing that was is used.
            clock: monotonic seconds.
        """
        self._store = store
        self._rules = rules
        self._settings = settings
        self._cache = cache
        self._learned = learned
        self._clock = clock
        self._followed = Followed()
        self._installed: Installed | None = None
        self._base: tuple[Installed, Index] | None = None
        self._own: dict[str, tuple[Index, Mapping[str, tuple[str, ...]], Index]] = {}
        self._lock = threading.RLock()

    def skills(self) -> tuple[Skill, ...]:
        """Return the installed skills, sorted by namespace."""
        return self._now().skills

    def outlooks(self, caller: Caller) -> Mapping[str, Outlook]:
        """Return what a caller has to expect of a call, by tool; one that is `denied` is not to be shown."""
        return self._outlooks(self._now(), caller)

    def usage(self, caller: Caller) -> Mapping[str, int]:
        """Return how often the caller has called each tool, as far as that is remembered."""
        return {} if self._learned is None else self._learned.usage(principal(caller))

    def find(
        self, queries: Sequence[str], *, limit: int, skill: str | None = None, caller: Caller
    ) -> tuple[tuple[Match, ...], ...]:
        """Return for each query at most `limit` tools that the caller may know of, best first.

        Raises:
            SkillUnknown: there is no such skill that the caller may know of; the hint has the nearest names.
        """
        now = self._now()
        visible = self._visible(now, caller, skill)
        who, session = principal(caller), caller.session
        with self._lock:
            lessons = self._followed.end(who, session)
        self._learn(lessons)  # first, so that this search is better for it already
        index, usage = self._index(now, caller), self.usage(caller)
        mask = None if len(visible) == len(now.tools) else visible
        found = tuple(index.search(query, limit=limit, visible=mask, usage=usage) for query in queries)
        if self._learned is not None:
            shown = [
                (query, [match.tool.id for match in matches]) for query, matches in zip(queries, found, strict=True)
            ]
            with self._lock:
                self._followed.searched(who, session, shown, self._clock())
        return found

    def called(self, caller: Caller, tool: str, arguments: Mapping[str, Any]) -> None:
        """Note a call that succeeded.

        Args:
            caller: who made it.
            tool: its id, in either form.
            arguments: are compared with what was searched for, and kept nowhere.
        """
        if self._learned is None:
            return
        parts = split_id(tool)
        identity = tool if parts is None else ".".join(parts)
        with self._lock:
            self._followed.called(principal(caller), caller.session, identity, arguments, self._clock())
        self._learned.count(principal(caller), identity)

    def nearest(self, name: str, caller: Caller) -> str:
        """Return a hint with the tools that were probably meant by a wrong name, or nothing: near in spelling, or described by it."""
        now = self._now()
        visible = self._visible(now, caller, None)
        near = suggestion(name, visible, otherwise="")
        if near or len(name.replace("_", " ").replace(".", " ").split()) < _DESCRIPTION_WORDS:
            return near
        described = name[:MAX_DESCRIBED_CHARS].replace("_", " ")
        found = self._index(now, caller).search(described, limit=_NEAREST, visible=visible, usage=self.usage(caller))
        sure = [repr(match.tool.id) for match in found if not match.low_confidence]
        return f"did you mean {' or '.join(sure)}?" if sure else ""

    def close(self) -> None:
        """Learn from the last search."""
        with self._lock:
            lessons = self._followed.close()
        self._learn(lessons)

    def _outlooks(self, now: Installed, caller: Caller) -> Mapping[str, Outlook]:
        if caller.kind not in now.known:
            now.known[caller.kind] = outlooks(now.skills, caller, self._rules)
        return now.known[caller.kind]

    def _visible(self, now: Installed, caller: Caller, skill: str | None) -> frozenset[str]:
        shown = {name for name, outlook in self._outlooks(now, caller).items() if outlook != "denied"}
        if skill is None:
            return frozenset(shown)
        names = {name.partition(".")[0] for name in shown}
        if skill not in names:
            raise SkillUnknown(
                f"no skill {skill[:MAX_DESCRIBED_CHARS]!r} is installed",
                hint=suggestion(skill, names, otherwise="`silo list` shows what is; `silo install` adds one"),
            )
        return frozenset(name for name in shown if name.partition(".")[0] == skill)

    def _now(self) -> Installed:
        with self._lock:
            # Looked at first: what changes in between shows at the next look.
            seen = fingerprint(self._store.root)
            if self._installed is None or self._installed.seen != seen:
                self._installed = Installed(seen, self._store.list())
            return self._installed

    def _index(self, now: Installed, caller: Caller) -> Index:
        """Return the index of what is installed, with what the caller has taught; what one has taught is in no other's."""
        who = principal(caller)
        with self._lock:
            base = self._base_index(now)
            taught = {} if self._learned is None else self._learned.examples(who)
            if not taught:
                return base
            kept = self._own.pop(who, None)
            if kept is None or kept[0] is not base or kept[1] != taught:
                # What the user has called comes before what authors say of their own: only so many are read.
                examples = {tool: (*given, *now.examples.get(tool, ())) for tool, given in taught.items()}
                kept = base, taught, base.changed(examples=examples)
            self._own[who] = kept
            while len(self._own) > MAX_INDEXES:
                del self._own[next(iter(self._own))]
            return kept[2]

    def _base_index(self, now: Installed) -> Index:
        if self._base is None or self._base[0] is not now:
            abouts = {skill.namespace: SkillAbout(skill.header.description) for skill in now.skills}
            if self._cache is not None:
                with suppress(OSError):  # a note of the index says it
                    self._cache.parent.mkdir(mode=0o700, exist_ok=True)
            index = Index(now.tools, skills=abouts, examples=now.examples, settings=self._settings, cache=self._cache)
            for note in index.notes:  # builds it: what is derived from it is built of its parts
                _log.warning("%s", note)
            self._base = now, index
        return self._base[1]

    def _learn(self, lessons: Sequence[Lesson]) -> None:
        if lessons and self._learned is not None:
            self._learned.learn(lessons)


_DESCRIPTION_WORDS = 2
_NEAREST = 3
_log = logging.getLogger(__name__)
