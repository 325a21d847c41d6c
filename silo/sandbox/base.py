"""The contract of the sandbox: what a guest is made of, what it offers, and what a backend promises. No behaviour.

A *backend* starts *guests* from a *spec*. What is said to a guest over its streams lives above (`silo.sandbox.skill`
for a skill's call). `silo.testing.conformance` checks that a backend keeps what is promised here.
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
class Stream:
    """A connection between the host and a guest.

    Attributes:
        name: unique among the streams of a guest.
        is_two_way: whether the host writes to it as well; where not, it may be a pipe.
    """

    name: str
    is_two_way: bool


@dataclass(frozen=True)
class GuestSpec:
    """What a guest is made of. It runs silo's own init (`silo.guest.init`), which starts the skill runner.

    Attributes:
        name: for messages and host names.
        root: the image at `/`; it holds the interpreter.
        mounts: further images, by the path at which the guest sees them. All are read-only, as the root is; what a
            guest can write to is its scratch space, `/tmp` and `/dev/shm`, each of `Limits.scratch_mib`.
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
        """What identifies the spec: the guests of two specs with one digest run the same. Names are left out."""
        parts = [self.root.digest, repr(self.limits), repr(self.streams)]
        parts += [f"{path}={image.digest}" for path, image in sorted(self.mounts.items())]
        return sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Ended:
    """How a guest ended, as the host saw it.

    Attributes:
        last_words: the last line that its process on the host printed.
        is_out_of_memory: the host's kernel ended processes of it for their memory.
        hint: what to do if it should not have ended.
    """

    last_words: str
    is_out_of_memory: bool
    hint: str


class Guest(Protocol):
    """A running guest, for whoever started it; it has no state that outlives it."""

    @property
    def spec(self) -> GuestSpec:
        """What it was started from."""
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
        """What there is to tell a person: `backend`, e.g. `QEMU 7.2.22, TCG, clone`."""
        ...

    @property
    def streams(self) -> Mapping[str, int]:
        """The host's ends of the spec's streams, as descriptors; end of file says that the guest is gone.

        They are closed when the context that started the guest ends.
        """
        ...

    @property
    def kept(self) -> Mapping[str, Any] | None:
        """`Ready.kept` of the guest that this one is a copy of, woken already; None if it starts from the beginning."""
        ...

    async def end(self) -> Ended:
        """End it and wait until none of its processes is left; a second time only says how it ended.

        Raises:
            SandboxBroken: something of it survived for seconds.
        """
        ...


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


OnStep = Callable[[str], None]
"""Called with a short sentence at the start of each longer step on the host (`booting the guest`)."""


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
        """Say whether this backend works here, by running a guest; remembered for the boot of the host. Builds nothing.

        Never raises: what goes wrong is in the answer.
        """
        ...

    def start(self, spec: GuestSpec) -> AbstractAsyncContextManager[Guest]:
        """Start a fresh guest; leaving the context ends it, whatever happened, and waits until it is gone.

        Raises:
            SandboxUnavailable: the backend does not work here.
            SandboxBroken: the guest did not start, or did not end.
        """
        ...

    async def prune(self, keep: Iterable[GuestSpec]) -> list[Path]:
        """Delete what was prepared for other specs than those; return what was deleted."""
        ...

    async def __aenter__(self) -> Self:
        """Get ready to serve; a backend works without it, but keeps nothing warm then."""
        ...

    async def __aexit__(self, *exc: object) -> None:
        """End guests that wait for a call."""
        ...


# --- what makes a backend fast ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ready:
    """A guest whose program has started up and waits.

    Attributes:
        kept: what copies of the guest need to know of it, as JSON.
        timing: seconds by phase, the program's own part of starting up.
    """

    kept: Mapping[str, Any]
    timing: Mapping[str, float]


class Program(Protocol):
    """The host's side of what a guest runs, as far as copying a guest needs it (`silo.sandbox.skill.describe`)."""

    async def start_up(self, guest: Guest, *, deadline: float) -> Ready:
        """Wait until the guest's program waits for work, so that the guest may be copied.

        Raises:
            SkillFailed: it does not come that far.
        """
        ...

    async def wake(self, guest: Guest) -> None:
        """Tell a copy what makes it unlike the others, before anything else of the program runs in it.

        Raises:
            SandboxLost: it is gone.
        """
        ...

    async def rehearse(self, guest: Guest, *, deadline: float) -> None:
        """Let a copy go through its work once without any of a caller's data, so that the real work finds it warm.

        Raises:
            SandboxTimeout, SandboxLost, SkillFailed: it can't.
        """
        ...


class Prepared(Protocol):
    """A guest that was started up once, and of which copies can be started."""

    @property
    def ready(self) -> Ready:
        """What its program kept; its timing has the backend's own phases as well."""
        ...

    def start(self) -> AbstractAsyncContextManager[Guest]:
        """As `Backend.start`, for a copy; it may have waited, rehearsed, until now. Its program has been woken."""
        ...


@runtime_checkable
class Preparing(Protocol):
    """A backend that copies a guest faster than it starts one. One that can't has nothing of this."""

    async def prepare(self, spec: GuestSpec, program: Program, *, deadline: float, on_step: OnStep) -> Prepared:
        """Return what copies are made of, making it if it is not there yet.

        Args:
            spec: of the guests.
            program: what they run.
            deadline: a reading of `time.monotonic()` in seconds, for the program to have started up.
            on_step: told each longer step.

        Raises:
            SandboxUnavailable: the backend does not work here.
            SandboxBroken: no guest could be started, or it could not be kept.
            SkillFailed: as `Program.start_up` raises it.
        """
        ...
