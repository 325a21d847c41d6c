"""The contract of the sandbox: what a guest is made of, what it offers, and what a backend promises. No behaviour.

A *backend* starts *guests* from a *spec*. Other packages define the protocol over a guest's streams (for a skill's
call, `silo.sandbox.skill`). `silo.testing.conformance` checks that a backend keeps these promises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from silo.model import Interpreter as Interpreter
from silo.model import Isolation
from silo.sizes import KIB, MIB


@dataclass(frozen=True)
class Limits:
    """The bounds of one guest, the same for every backend.

    Attributes:
        memory_mib: memory of the guest, including its kernel if it has one.
        processes: processes and threads at once.
        scratch_mib: size of the guest's `/tmp`, which is in its memory.
        log_bytes: how much of stdout is kept, and of stderr; the rest is dropped.
        flood_bytes: how much the guest may print on either before it is ended.
        result_bytes: the limit for the text of a result, and for its data.
        files_bytes: the limit for all files of a result together.
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
    """A content-addressed tree of files: a folder, and a file system image beside it once a backend needed one.

    Attributes:
        digest: SHA-256 in hex of its sources.
        tree: the folder with the files.
    """

    digest: str
    tree: Path

    @property
    def disk(self) -> Path:
        """The same files as a read-only ext4 image (made by `silo.sandbox.image.Images.disk`)."""
        return self.tree.parent / "disk.ext4"


@dataclass(frozen=True)
class Stream:
    """A connection between the host and a guest.

    Attributes:
        name: unique among the streams of a guest.
        is_two_way: whether the host writes to it as well; if not, it may be a pipe.
    """

    name: str
    is_two_way: bool


@dataclass(frozen=True)
class GuestSpec:
    """What a guest is made of. It runs silo's own init (`silo.guest.init`), which starts the skill runner.

    Attributes:
        name: for messages and host names.
        root: the image at `/`; it holds the interpreter.
        mounts: further images, by their path in the guest. All are read-only, like the root. A guest can write only to
            its scratch space, `/tmp` and `/dev/shm`, each of `Limits.scratch_mib`.
        streams: its connections to the host.
        limits: its bounds.
    """

    name: str
    root: Image
    mounts: Mapping[str, Image]
    streams: tuple[Stream, ...]
    limits: Limits

    @property
    def digest(self) -> str:
        """Identifies the spec: specs with the same digest give the same guests. Names are left out."""
        parts = [self.root.digest, repr(self.limits), repr(self.streams)]
        parts += [f"{path}={image.digest}" for path, image in sorted(self.mounts.items())]
        return sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Ended:
    """How a guest ended, as the host saw it.

    Attributes:
        last_words: the last line that its process on the host printed.
        is_out_of_memory: the host's kernel killed processes of the guest because they ran out of memory.
        hint: what to do if it should not have ended.
    """

    last_words: str
    is_out_of_memory: bool
    hint: str


class Guest(Protocol):
    """A running guest, as its starter uses it. No state outlives it."""

    @property
    def spec(self) -> GuestSpec:
        """The spec that it was started from."""
        ...

    @property
    def name(self) -> str:
        """A host name that no other guest has."""
        ...

    @property
    def isolation(self) -> Isolation:
        """The boundary that this guest really has."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """Facts for a person: `backend`, e.g. `QEMU 7.2.22, TCG, clone`."""
        ...

    @property
    def streams(self) -> Mapping[str, int]:
        """The host's ends of the spec's streams, as descriptors; end of file says that the guest is gone.

        They are closed when the context that started the guest ends.
        """
        ...

    @property
    def kept(self) -> Mapping[str, Any] | None:
        """For a copy, which has been woken: `Ready.kept` of the original; None if it starts from the beginning."""
        ...

    async def end(self) -> Ended:
        """End it and wait until none of its processes is left. A second call only says how it ended.

        Raises:
            SandboxBroken: a process of it survived for seconds.
        """
        ...


@dataclass(frozen=True)
class Probe:
    """Whether a backend works on this machine, by trying it.

    Attributes:
        name: the name of the backend.
        isolation: the boundary that its guests have.
        works: a guest really ran.
        detail: what was found, for a person: versions, accelerator.
        missing: what keeps it from working, one sentence each.
        hint: how to make it work; empty if it works.
        notes: what works worse than it could, and why.
    """

    name: str
    isolation: Isolation
    works: bool
    detail: str
    missing: tuple[str, ...] = ()
    hint: str = ""
    notes: tuple[str, ...] = ()


OnStep = Callable[[str], None]
"""Called with a short sentence at the start of each longer step on the host (`booting the guest`)."""


class Backend(Protocol):
    """One way to isolate. Has no state except caches; safe to use from many tasks at once."""

    @property
    def name(self) -> str:
        """Its name, which is unique in this silo. Another backend may have the same isolation."""
        ...

    @property
    def isolation(self) -> Isolation:
        """The boundary that its guests have."""
        ...

    async def probe(self, *, refresh: bool = False) -> Probe:
        """Run a guest to find out whether this backend works here. Builds nothing.

        A backend may remember that it works until the host reboots, and that it doesn't for less time.

        Never raises an error: the probe says what is wrong.
        """
        ...

    def start(self, spec: GuestSpec) -> AbstractAsyncContextManager[Guest]:
        """Start a fresh guest; leaving the context always ends it, and waits until it is gone.

        Raises:
            SandboxUnavailable: the backend does not work here.
            SandboxBroken: the guest did not start, or did not end.
        """
        ...

    async def prune(self, keep: Iterable[GuestSpec]) -> list[Path]:
        """Delete what was prepared for specs that aren't in `keep`; return what was deleted."""
        ...

    async def __aenter__(self) -> Self:
        """Get ready to serve. A backend works without it, but then keeps nothing warm."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """End the guests that wait for a call."""
        ...


# --- what makes a backend fast ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """A guest whose program has started up and waits.

    Attributes:
        kept: what copies of the guest need to know about it, as JSON.
        timing: seconds by phase of the program's own part of starting up.
    """

    kept: Mapping[str, Any]
    timing: Mapping[str, float]


class Program(Protocol):
    """The host's side of a guest's program, as copying a guest needs it (see `silo.sandbox.skill.describe`)."""

    async def start_up(self, guest: Guest, *, deadline: float) -> Ready:
        """Wait until the guest's program waits for work, so that the guest can be copied.

        Raises:
            SkillFailed: the program does not get that far.
        """
        ...

    async def hold(self, guest: Guest, *, deadline: float) -> float:
        """Let nothing of the program run until `wake`; return the guest's clock, in seconds since the epoch.

        Raises:
            SandboxTimeout, SandboxLost, SkillFailed: the program could not be held.
        """
        ...

    async def wake(self, guest: Guest) -> None:
        """Tell a held copy the time and what makes it different from the others, before any of the program runs in it.

        Raises:
            SandboxLost: the copy is gone.
        """
        ...

    async def rehearse(self, guest: Guest, *, deadline: float) -> None:
        """Let a copy do its work once without a caller's data, so that the real work runs faster.

        Raises:
            SandboxTimeout, SandboxLost, SkillFailed: the rehearsal failed.
        """
        ...


class Prepared(Protocol):
    """A guest that was started once, and can be copied."""

    @property
    def ready(self) -> Ready:
        """What its program kept; the timing also has the backend's own phases."""
        ...

    def start(self) -> AbstractAsyncContextManager[Guest]:
        """As `Backend.start`, for a copy, which may be one that was rehearsed. Its program has been woken."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A backend that copies a guest faster than it starts one. Other backends don't implement this."""

    async def prepare(self, spec: GuestSpec, program: Program, *, deadline: float, on_step: OnStep) -> Prepared:
        """Return the guest that copies are made of; make it if it does not exist yet.

        Args:
            spec: the spec of the guests.
            program: what they run.
            deadline: a reading of `time.monotonic()` in seconds, by which the program must have started up.
            on_step: called with each longer step.

        Raises:
            SandboxUnavailable: the backend does not work here.
            SandboxBroken: the guest could not be started or saved.
            SkillFailed: as for `Program.start_up`.
        """
        ...
