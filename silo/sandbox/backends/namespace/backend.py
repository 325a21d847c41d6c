"""The namespace backend: bubblewrap on the host's kernel. Weaker than a microVM, and fast on any Linux.

A guest has its own mount, pid, network, ipc, uts and cgroup namespaces; its own user namespace, or a user of its own
where silo is root; no capability, no new privileges, a seccomp filter; read-only images, little of `/proc`, and nothing
else of the host; resource limits, and a control group if one can be made. There are no templates: each call imports the
skill again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.to_thread

from silo.errors import SandboxBroken, SandboxUnavailable
from silo.model import Isolation
from silo.sandbox import seccomp
from silo.sandbox.backends.namespace import cgroup, command
from silo.sandbox.backends.namespace.cgroup import ControlGroup
from silo.sandbox.base import Ended, GuestSpec, Probe, Stream
from silo.sandbox.identity import find_identity, try_to_confine, why_not
from silo.sandbox.process import GuestProcess
from silo.sandbox.programs import find_program

NAME = "namespace"

_ENTER = 0o055

# Joins the control group before bubblewrap starts, so that no part of the guest ever runs outside it.
_JOIN = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1" || exit 71; shift; n=$((n-1)); done; ulimit -c 0; exec "$@"'
)


class NamespaceBackend:
    """Guests that share the host's kernel."""

    def __init__(self) -> None:
        self._probe: Probe | None = None

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
        """Start a process in all namespaces, under the filter."""
        if self._probe is None or refresh:
            self._probe = await anyio.to_thread.run_sync(_find_out)
        return self._probe

    @contextlib.asynccontextmanager
    async def start(self, spec: GuestSpec) -> AsyncIterator[NamespaceGuest]:
        """Start a guest, in a control group if one can be made here."""
        probe = await self.probe()
        bwrap = find_program("bwrap")
        if not probe.works or bwrap is None:
            raise SandboxUnavailable(f"no namespace sandbox works here: {'; '.join(probe.missing)}", hint=probe.hint)
        name = f"silo-{os.getpid()}-{secrets.token_hex(4)}"
        under = cgroup.parents()
        try:
            group = cgroup.make(under, name, spec.limits) if under else None
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
            entries = [str(entry) for entry in group.entries] if group else []
            process = await GuestProcess.start(
                ["/bin/sh", "-c", _JOIN, "sh", str(len(entries)), *entries, *argv], inherit=(*theirs.values(), *given)
            )
            guest = NamespaceGuest(spec, name, ours, process, group)
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
    ) -> None:
        self.spec = spec
        self.name = name
        self.streams = streams
        self.facts = {"backend": "bubblewrap" + (", cgroup" if group else "")}
        self._process = process
        self._group = group
        self._ended: Ended | None = None

    async def end(self) -> Ended:
        """Kill all of its processes."""
        if self._ended is None:
            is_out_of_memory = self._group is not None and bool(self._group.oom_kills())
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


def _works_not(missing: str, *, hint: str) -> Probe:
    return Probe(NAME, Isolation.NAMESPACE, works=False, detail="", missing=(missing,), hint=hint)


def _find_out() -> Probe:
    """Try `true` in a sandbox like a guest's."""
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
    notes = (
        () if cgroup.parents() else ("no control group can be made here: memory and processes are limited one by one",)
    )
    return Probe(
        NAME,
        Isolation.NAMESPACE,
        works=True,
        detail=f"bubblewrap {' '.join(version)}, shared kernel, {identity.text}",
        notes=notes,
    )
