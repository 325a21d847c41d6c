"""The search index of the installed skills, and one for each caller from whom the router has learned. Blocks.

`silo.router` ranks. An index is built at first use, because a server must answer before that and most commands never
search. The index without lessons is also kept in a file.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from silo.approvals.questions import principal
from silo.discovery.learned import LearnedFile
from silo.model import Caller, Skill
from silo.policy.visible import Visible
from silo.router.documents import SkillAbout
from silo.router.index import Index, Match
from silo.router.settings import RouterSettings

MAX_INDEXES = 4
"""How many indexes with a principal's lessons are kept at once; one process serves one principal, or a few."""

MAX_DESCRIBED_CHARS = 200
"""How much of a wrong name is read as a description; an agent that writes more means something else."""


class Indexes:
    """One index for each caller, over all that is installed. Methods may be called from any thread."""

    def __init__(self, settings: RouterSettings, *, cache: Path | None, learned: LearnedFile | None) -> None:
        """Build nothing yet.

        Args:
            settings: of the ranking.
            cache: a file to keep the index in.
            learned: what was learned from calls; None: use no lessons.
        """
        self._settings = settings
        self._cache = cache
        self._learned = learned
        self._base: tuple[tuple[Skill, ...], Index] | None = None
        self._own: dict[str, tuple[Index, Mapping[str, tuple[str, ...]], Index]] = {}
        self._lock = threading.Lock()

    def search(
        self, queries: Sequence[str], visible: Visible, caller: Caller, *, limit: int, skill: str | None = None
    ) -> tuple[tuple[Match, ...], ...]:
        """Return for each query at most `limit` of the visible tools, best first; with `skill`, only its tools."""
        index = self._index(visible, caller)
        shown = frozenset(tool.id for tool in visible.tools if skill in (None, tool.skill))
        mask = None if len(shown) == len(visible.tools) + len(visible.hidden) else shown
        usage = {} if self._learned is None else self._learned.usage(principal(caller))
        return tuple(index.search(query, limit=limit, visible=mask, usage=usage) for query in queries)

    def described(self, name: str, visible: Visible, caller: Caller) -> tuple[str, ...]:
        """Return the ids of visible tools that clearly fit a wrong name, read as a description.

        It is what silo uses as `silo.providers.skills.Guess`.
        """
        if len(name.replace("_", " ").replace(".", " ").split()) < _DESCRIPTION_WORDS:
            return ()
        (found,) = self.search([name[:MAX_DESCRIBED_CHARS].replace("_", " ")], visible, caller, limit=_NEAREST)
        return tuple(match.tool.id for match in found if not match.low_confidence)

    def _index(self, visible: Visible, caller: Caller) -> Index:
        """Return the index of the installed skills, with this caller's lessons and nobody else's."""
        who = principal(caller)
        with self._lock:
            base = self._base_index(visible.installed)
            taught = {} if self._learned is None else self._learned.examples(who)
            if not taught:
                return base
            kept = self._own.pop(who, None)
            if kept is None or kept[0] is not base or kept[1] != taught:
                given = _examples(visible.installed)
                # The user's lessons come before the authors' examples, because only the first few are read.
                examples = {tool: (*own, *given.get(tool, ())) for tool, own in taught.items()}
                kept = base, taught, base.changed(examples=examples)
            self._own[who] = kept
            while len(self._own) > MAX_INDEXES:
                del self._own[next(iter(self._own))]
            return kept[2]

    def _base_index(self, installed: tuple[Skill, ...]) -> Index:
        """Return the index without lessons. Compared by identity: the same object until what is installed changes."""
        if self._base is None or self._base[0] is not installed:
            if self._cache is not None:
                with suppress(OSError):  # one of the index's notes reports it
                    self._cache.parent.mkdir(mode=0o700, exist_ok=True)
            index = Index(
                (tool for skill in installed for tool in skill.tools),
                skills={skill.namespace: SkillAbout(skill.header.description) for skill in installed},
                examples=_examples(installed),
                settings=self._settings,
                cache=self._cache,
            )
            for note in index.notes:  # builds the index now, because derived indexes share its parts
                _log.warning("%s", note)
            self._base = installed, index
        return self._base[1]


def _examples(installed: Sequence[Skill]) -> Mapping[str, tuple[str, ...]]:
    """Return by tool id the example requests that authors give."""
    return {f"{skill.namespace}.{name}": given for skill in installed for name, given in skill.header.examples.items()}


_DESCRIPTION_WORDS = 2
_NEAREST = 3
_log = logging.getLogger(__name__)
