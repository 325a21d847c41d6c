"""The contracts of the sandbox: what a backend gets, what it gives back, and what it promises. No behaviour.

A *unit* is what can be run (an image and its limits); a *backend* turns a unit into fresh guests; a *sandbox* is one guest for
one call. `silo.testing.conformance` checks that a backend keeps what is promised here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, Self

from silo.model import File, Isolation
from silo.model import Interpreter as Interpreter
from silo.wire.messages import Finished, Progress

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Limits:
    """The bounds of one guest, the same for every backend.

    Attributes:
        memory_mib: all that the guest may use, kernel included where it has one.
        processes: processes and threads at once.
        scratch_mib: size of the guest's `/tmp`, which is in its memory.
        log_bytes: how much of stdout, and as much of stderr, is kept; the rest is dropped.
        flood_bytes: how much it may print on either before the guest is ended.
        result_bytes: the text of a result, and as much of its data.
        files_bytes: all files of a result together.
    """

    memory_mib: int = 256
    processes: int = 128
    scratch_mib: int = 64
    log_bytes: int = 64 * KIB
    flood_bytes: int = 16 * MIB
    result_bytes: int = 4 * MIB
    files_bytes: int = 32 * MIB


@dataclass(frozen=True)
class Image:
    """A content-addressed tree of files, as a folder and, once a backend needed it, as a file system image beside it.

    Attributes:
        digest: SHA-256 in hex of what it was made from.
        tree: the folder with the files.
    """

    digest: str
    tree: Path

    @property
    def disk(self) -> Path:
        """The same files as a read-only ext4 image (made by `silo.sandbox.image.Images.disk`)."""
        return self.tree.parent / "disk.ext4"


@dataclass(frozen=True)
class Unit:
    """What a backend runs: one skill, ready to be mounted.

    Attributes:
        name: the skill's namespace, for messages and host names.
        base: a folder with the tree of the base image (`silo.sandbox.image`), which holds the interpreter.
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
    limits: Limits = Limits()

    @property
    def digest(self) -> str:
        """What identifies the unit: two units with one digest run the same."""
        parts = (self.base.digest, self.layer.digest, self.runtime.digest, repr(self.limits))
        return sha256("\0".join(parts).encode()).hexdigest()


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
        facts: `kernel`, `python`, `backend` (e.g. `QEMU 7.2.22, TCG`).
    """

    outcome: Finished
    files: tuple[File, ...] = ()
    stdout: Captured = Captured()
    stderr: Captured = Captured()
    timing: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """What a skill said of itself when it was imported inside a sandbox; hostile, checked by `silo.catalog.metadata`."""

    skill: Mapping[str, Any]
    isolation: Isolation
    timing: Mapping[str, float]


@dataclass(frozen=True)
class Probe:
    """Whether a backend works on this machine, found out by trying.

    Attributes:
        name: the backend's.
        isolation: the boundary that its guests have.
        works: a guest really ran.
        detail: what was found, for a person: versions, accelerator.
        missing: what keeps it from working, one sentence each.
        hint: how to get it; empty if it works.
        notes: what works less well than it could, and why.
    """

    name: str
    isolation: Isolation
    works: bool
    detail: str
    missing: tuple[str, ...] = ()
    hint: str = ""
    notes: tuple[str, ...] = ()


OnProgress = Callable[[Progress], None]
"""Called for each message of progress from a guest, on the event loop; must not block."""

OnStep = Callable[[str], None]
"""Called with a short sentence at the start of each longer step on the host (`booting the guest`)."""


class Sandbox(Protocol):
    """A fresh guest for one call. Not reusable, and holding no state once `run` returns."""

    @property
    def isolation(self) -> Isolation:
        """The boundary that this guest really has."""
        ...

    async def run(self, request: GuestRequest, *, deadline: float, on_progress: OnProgress) -> GuestReply:
        """Run the skill once; when the surrounding `open` ends, no process of the guest is alive.

        Args:
            request: what the guest executes.
            deadline: a reading of `time.monotonic()` in seconds, not a duration.
            on_progress: receives the skill's progress.

        Raises:
            SandboxTimeout: the deadline passed.
            SkillExited, SkillCrashed, SkillOutOfMemory, SkillFlooded: how the skill's process ended instead of answering.
            ResultTooLarge, ResultInvalid: its answer breaks the limits.
            SandboxLost: the guest died, or broke the wire protocol.
        """
        ...


class Backend(Protocol):
    """One way to isolate. Stateless but for caches of what it prepared; safe to use from many tasks at once."""

    @property
    def name(self) -> str:
        """What it is called: no other backend of this silo has the name. Another one may have the same isolation."""
        ...

    @property
    def isolation(self) -> Isolation:
        """The boundary that its guests have."""
        ...

    async def probe(self, *, refresh: bool = False) -> Probe:
        """Say whether this backend works here, by running a guest; remembered for the boot of the host.

        Never raises: what goes wrong is in the answer.
        """
        ...

    async def describe(self, unit: Unit, *, deadline: float, on_step: OnStep) -> Description:
        """Import the unit's skill in a guest and return what it says of itself, preparing what later calls need.

        Raises:
            SkillSyntaxError, SkillImportError, SkillMetadataInvalid: the script cannot be used.
            SandboxTimeout, SandboxBroken, SkillCrashed, SkillExited, SkillOutOfMemory: as they say.
        """
        ...

    def open(self, unit: Unit, *, on_step: OnStep) -> AbstractAsyncContextManager[Sandbox]:
        """Start a fresh guest; leaving the context ends it, whatever happened, and waits until it is gone.

        Raises:
            SandboxBroken: it did not start.
        """
        ...

    def prune(self, keep: Iterable[Unit]) -> list[Path]:
        """Delete what was prepared for other units than those; return what was deleted."""
        ...

    async def __aenter__(self) -> Self:
        """Get ready to serve; a backend works without it, but keeps nothing warm then."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """End guests that wait for a call."""
        ...
