"""The values that silo and a skill in a guest exchange: unit, request, reply, description. No behaviour.

A *unit* is a skill that can be run: its images and limits. `silo.sandbox.skill.call` runs one request in a guest,
`silo.sandbox.skill.describe` asks a skill what it is; both speak through `silo.sandbox.skill.link`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from silo.model import File, Isolation
from silo.sandbox.base import GuestSpec, Image, Limits, Stream
from silo.wire.messages import Finished, Json, Progress

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
        layer: the image at `/skill` in the guest: `skill.py`, `env/` (the locked environment), `lib/` (shared libraries
            that the base does not have).
        runtime: the image at `/runtime` in the guest: the guest's side of this version of silo.
        limits: the bounds of each guest.
    """

    name: str
    base: Image
    layer: Image
    runtime: Image
    limits: Limits = field(default_factory=Limits)

    @property
    def spec(self) -> GuestSpec:
        """The spec of the guests that run it."""
        return GuestSpec(self.name, self.base, {"/skill": self.layer, "/runtime": self.runtime}, STREAMS, self.limits)


@dataclass(frozen=True)
class GuestRequest:
    """What one guest executes once.

    Attributes:
        arguments: JSON values, with a `File` in the place of each file: what was decided on, and what a person saw.
    """

    tool: str
    arguments: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def document(self) -> tuple[dict[str, Any], tuple[File, ...]]:
        """Return the document that the guest reads, as JSON values, and the files in the order of its `files`."""
        places: list[list[str | int]] = []
        files: list[File] = []

        def emptied(value: Json, path: list[str | int]) -> Json:
            if isinstance(value, File):
                places.append(path)
                files.append(value)
                return None
            if isinstance(value, Mapping):
                return {key: emptied(item, [*path, key]) for key, item in value.items()}
            if isinstance(value, list | tuple):
                return [emptied(item, [*path, index]) for index, item in enumerate(value)]
            return value

        arguments = emptied(self.arguments, [])
        return {"arguments": arguments, "secrets": dict(self.secrets), "files": places}, tuple(files)


@dataclass(frozen=True)
class Captured:
    """What a guest printed: the first `Limits.log_bytes` bytes, and how many there were."""

    data: bytes = b""
    total: int = 0

    @property
    def is_truncated(self) -> bool:
        """Whether some bytes were dropped."""
        return self.total > len(self.data)


@dataclass(frozen=True)
class GuestReply:
    """The reply of a guest whose tool returned, parsed and bounded but not redacted.

    Attributes:
        outcome: what the tool returned; the tool may report a failure in it.
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
    """A skill's description of itself, from importing it in a guest. Untrusted; `silo.catalog.metadata` checks it."""

    skill: Mapping[str, Any]
    isolation: Isolation
    timing: Mapping[str, float]


OnProgress = Callable[[Progress], None]
"""Called for each message of progress from a guest, on the event loop; must not block."""
