"""What crosses between silo and a skill in a guest: what is run, what is asked of it, what comes back. No behaviour.

A *unit* is a skill that can be run: its images and limits. `silo.sandbox.skill.call` runs one request in a guest,
`silo.sandbox.skill.describe` asks a skill what it is; both speak through `silo.sandbox.skill.link`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from silo.model import File, Isolation
from silo.sandbox.base import GuestSpec, Image, Limits, Stream
from silo.wire.messages import Finished, Progress

STREAMS = (
    Stream("control", is_two_way=True),
    Stream("call", is_two_way=True),
    Stream("out", is_two_way=False),
    Stream("err", is_two_way=False),
)
"""Host and init (`control`), host and skill (`call`), what the skill prints: in the order of `silo.guest.init`."""


@dataclass(frozen=True)
class Unit:
    """One skill, ready to be run in guests.

    Attributes:
        name: the skill's namespace, for messages and host names.
        base: the interpreter and what it needs (`silo.sandbox.image`), the root of the guest.
        layer: what the guest sees at `/skill`: `skill.py`, `env/` (the locked environment), `lib/` (shared libraries
            that it needs beyond the base's).
        runtime: what the guest sees at `/runtime`: the guest's side of the very silo that calls it.
        limits: the bounds of each guest.
    """

    name: str
    base: Image
    layer: Image
    runtime: Image
    limits: Limits = field(default_factory=Limits)

    @property
    def spec(self) -> GuestSpec:
        """The guests that run it."""
        return GuestSpec(self.name, self.base, {"/skill": self.layer, "/runtime": self.runtime}, STREAMS, self.limits)


@dataclass(frozen=True)
class GuestRequest:
    """What one guest executes once. Arguments are JSON; a file among them is `{"$file": index}` into `files`."""

    tool: str
    arguments: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class Captured:
    """Bytes that a guest printed: the first `Limits.log_bytes` of them, and how many there were."""

    data: bytes = b""
    total: int = 0

    @property
    def is_truncated(self) -> bool:
        """Whether some were dropped."""
        return self.total > len(self.data)


@dataclass(frozen=True)
class GuestReply:
    """What came back from a guest whose tool returned, parsed and bounded but not redacted.

    Attributes:
        outcome: what the tool returned; it may say itself that it failed.
        files: the files that `Finished.files` announced.
        timing: seconds by phase, in the order in which they passed.
        facts: `kernel`, `python`, `backend` (e.g. `QEMU 7.2.22, TCG, clone`).
    """

    outcome: Finished
    files: tuple[File, ...] = ()
    stdout: Captured = Captured()
    stderr: Captured = Captured()
    timing: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """What a skill said of itself when it was imported in a guest; hostile, checked by `silo.catalog.metadata`."""

    skill: Mapping[str, Any]
    isolation: Isolation
    timing: Mapping[str, float]


OnProgress = Callable[[Progress], None]
"""Called for each message of progress from a guest, on the event loop; must not block."""
