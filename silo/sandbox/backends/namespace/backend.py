"""The namespace backend: bubblewrap on the host's kernel. Weaker than a microVM, and fast on any Linux.

A guest has its own mount, pid, network, ipc, uts and cgroup namespaces; its own user namespace, or a user of its own
where silo is root; no capability, no new privileges, a seccomp filter; read-only images, little of `/proc`, and nothing
else of the host; resource limits, and a control group if one can be made. There are no templates: each call imports the
skill again.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.to_thread

from silo.errors import SandboxBroken, SandboxUnavailable
from silo.model import Isolation
from silo.sandbox import seccomp
from silo.sandbox.backends.namespace import command
from silo.sandbox.backends.namespace.place import ControlGroup, Host, Place, find_place
from silo.sandbox.base import Ended, GuestSpec, Probe, Stream
from silo.sandbox.identity import find_identity, try_to_confine, why_not
from silo.sandbox.process import GuestProcess
from silo.sandbox.programs import find_program

NAME = "namespace"

_ENTER = 0o055

_NO_CORE = ("/bin/sh", "-c", 'ulimit -c 0; exec "$@"', "sh")


class NamespaceBackend:
    """Guests that share the host's kernel.

    Args:
        allow_unlimited: names of limits that guests may lack where this machine offers no way to enforce them:
            `memory`. Without it, there are no guests there.
        host: where the kernel tells of control groups.
    """

    def __init__(self, *, allow_unlimited: Collection[str] = (), host: Host | None = None) -> None:
        self._allow_unlimited = frozenset(allow_unlimited)
        self._host = host or Host()
        self._found: tuple[Probe, Place | None] | None = None

    @property
    def name(self) -> str:
        """The name in the configuration."""
        return NAME

    @property
    def isolation(self) -> Isolation:
        """A guest is a set of namespaces."""
        return Isolation.NAMESPACE

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing waits here."""

    async def probe(self, *, refresh: bool = False) -> Probe:
        """Start a process in all namespaces, under the filter, and one in a control group."""
        return (await self._look(refresh=refresh))[0]

    async def _look(self, *, refresh: bool = False) -> tuple[Probe, Place | None]:
        """Return what works here, and where control groups can be made; deletes those that killed silos left."""
        if self._found is None or refresh:
            self._found = await anyio.to_thread.run_sync(_find_out, self._allow_unlimited, self._host)
            if self._found[1] is not None:
                await anyio.to_thread.run_sync(self._found[1].sweep)
        return self._found

    @contextlib.asynccontextmanager
    async def start(self, spec: GuestSpec) -> AsyncIterator[NamespaceGuest]:
        """Start a guest, in a control group; without one only if the user allowed that."""
        probe, place = await self._look()
        bwrap = find_program("bwrap")
        if not probe.works or bwrap is None:
            raise SandboxUnavailable(f"no namespace sandbox works here: {'; '.join(probe.missing)}", hint=probe.hint)
        name = f"silo-{secrets.token_hex(6)}"
        try:
            group = place.make(spec.limits) if place else None
        except OSError as error:
            raise SandboxBroken(
                f"cannot make a control group for the guest: {error}",
                hint="`silo doctor` says what works here; "
                "without a control group the guest would not be bounded as promised",
            ) from error
        ours: dict[str, int] = {}
        theirs: dict[str, int] = {}
        given: list[int] = []
        try:
            identity = find_identity()
            user = identity.draw()
            for stream in spec.streams:
                ours[stream.name], theirs[stream.name] = _pair(stream, user)
            given.append(seccomp.sealed(seccomp.build()))
            argv = [str(bwrap), "--hostname", name, "--setenv", "LD_LIBRARY_PATH", "/skill/lib"]
            argv += ["--seccomp", str(given[0]), *command.files(spec)]
            if user is not None:
                _open_to_all(spec)
                given.append(seccomp.sealed(command.passwd(user)))
                argv += ["--perms", "0444", "--ro-bind-data", str(given[1]), "/etc/passwd"]
            argv += [*command.confinement(identity, user, spec.root.tree / "sys"), "--remount-ro", "/", "--"]
            argv += command.program(spec, list(theirs.values()), user)
            process = await GuestProcess.start(
                group.command(argv) if group else [*_NO_CORE, *argv], inherit=(*theirs.values(), *given)
            )
            means = place.text if place else "memory without a limit"
            guest = NamespaceGuest(spec, name, ours, process, group, means)
            try:
                while theirs:
                    os.close(theirs.popitem()[1])
                yield guest
            finally:
                await guest.end()
        finally:
            for descriptor in (*ours.values(), *theirs.values(), *given):
                os.close(descriptor)
            if group is not None:
                # In a thread: the kernel may need a while to notice that the group is empty.
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(group.remove)

    async def prune(self, keep: Iterable[GuestSpec]) -> list[Path]:
        """Nothing is prepared here."""
        del keep
        return []


class NamespaceGuest:
    """A guest that starts from the beginning."""

    isolation = Isolation.NAMESPACE
    kept: Mapping[str, Any] | None = None

    def __init__(
        self,
        spec: GuestSpec,
        name: str,
        streams: Mapping[str, int],
        process: GuestProcess,
        group: ControlGroup | None,
        means: str,
    ) -> None:
        self.spec = spec
        self.name = name
        self.streams = streams
        self.facts = {"backend": f"bubblewrap, {means}"}
        self._process = process
        self._group = group
        self._ended: Ended | None = None

    async def end(self) -> Ended:
        """Kill all of its processes."""
        if self._ended is None:
            is_out_of_memory = self._group is not None and bool(self._group.oom_kills(self._process.pid))
            self._ended = Ended(self._process.last_words(), is_out_of_memory, "run `silo doctor`")
            await self._process.end()
        return self._ended


def _pair(stream: Stream, user: int | None) -> tuple[int, int]:
    """Return the host's end of a stream and the guest's, which belongs to the user that was drawn for it."""
    if stream.is_two_way:
        ours, theirs = (end.detach() for end in socket.socketpair())
    else:
        ours, theirs = os.pipe()
    if user is not None:
        os.fchown(theirs, user, user)  # so that the guest can open it again, by /dev/stdout
    return ours, theirs


def _open_to_all(spec: GuestSpec) -> None:
    """Let other users into the top folders of images; what is in them is for all already, and what is above, for none.

    In a microVM this goes without saying: `mke2fs` makes the top folder.
    """
    for image in (spec.root, *spec.mounts.values()):
        mode = image.tree.stat().st_mode
        if mode & _ENTER != _ENTER:
            image.tree.chmod(mode | _ENTER)


_UNLIMITED_HINT = (
    "run silo where you have a systemd of your own (log in, or `sudo loginctl enable-linger $USER`); or accept that a "
    'guest can use up this machine\'s memory: write `allow_unlimited = ["memory"]` under `[sandbox]` in silo.toml'
)


def _works_not(missing: str, *, hint: str) -> tuple[Probe, None]:
    return Probe(NAME, Isolation.NAMESPACE, works=False, detail="", missing=(missing,), hint=hint), None


def _find_out(allow_unlimited: Collection[str], host: Host) -> tuple[Probe, Place | None]:
    """Try `true` in a sandbox like a guest's, then in a control group."""
    if platform.system() != "Linux":
        return _works_not(f"namespaces are a part of Linux, and this is {platform.system()}", hint="use silo on Linux")
    bwrap = find_program("bwrap")
    if bwrap is None:
        return _works_not("bwrap is not installed (it sets up the namespaces)", hint="run `silo setup`")
    version = subprocess.run([bwrap, "--version"], capture_output=True, text=True, check=False, env={}).stdout.split()[
        -1:
    ]
    try:
        rules = seccomp.build()
    except KeyError as error:
        return _works_not(f"there is no filter of system calls for {error.args[0]}", hint="use a microVM")
    try:
        identity = find_identity()
    except SandboxUnavailable as error:
        return _works_not(error.message, hint=error.hint)
    with tempfile.TemporaryDirectory() as empty:
        options = command.confinement(identity, identity.draw(), Path(empty))
        failure = try_to_confine(bwrap, options, rules)
    if failure:
        return _works_not(f"bwrap failed: {failure}", hint=why_not(failure))
    place, failed = find_place(host)
    detail = f"bubblewrap {' '.join(version)}, shared kernel, {identity.text}"
    if place is not None:
        detail += f"; memory and processes limited by a control group ({place.text})"
        return Probe(NAME, Isolation.NAMESPACE, works=True, detail=detail), place
    unlimited = f"no control group can be made here, so a guest's memory has no limit ({'; '.join(failed)})"
    if "memory" not in allow_unlimited:
        return _works_not(unlimited, hint=_UNLIMITED_HINT)
    notes = (
        f"{unlimited}; allowed by `sandbox.allow_unlimited`",
        "a guest's processes are limited by RLIMIT_NPROC, and the private memory of each by RLIMIT_DATA",
    )
    return Probe(NAME, Isolation.NAMESPACE, works=True, detail=detail, notes=notes), None
