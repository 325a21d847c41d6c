"""The namespace backend: bubblewrap on the host's kernel. Weaker than a microVM, and fast on any Linux.

A guest has its own user, mount, pid, network, ipc, uts and cgroup namespaces; no capability, no new privileges, a
seccomp filter; read-only images and nothing else of the host; resource limits, and a control group if one can be made.
There are no templates: each call imports the skill again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import secrets
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.to_thread

from silo.errors import SandboxBroken, SandboxUnavailable
from silo.model import Isolation
from silo.sandbox.backends.namespace import cgroup, seccomp
from silo.sandbox.backends.namespace.cgroup import ControlGroup
from silo.sandbox.base import Ended, GuestSpec, Probe, Stream
from silo.sandbox.process import GuestProcess
from silo.sandbox.programs import find_program
from silo.sizes import MIB

NAME = "namespace"

_START = """\
import sys
sys.path[:0] = ["/runtime"]
sys.path.append("/skill/env")
from silo.guest.init import main_namespace
main_namespace({streams}, processes={processes}, data_bytes={data}, file_bytes={file})
"""

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
        rules = -1
        try:
            for stream in spec.streams:
                ours[stream.name], theirs[stream.name] = _pair(stream)
            rules = _sealed(seccomp.build())
            argv = _command(bwrap, spec, name, rules, list(theirs.values()))
            entries = [str(entry) for entry in group.entries] if group else []
            process = await GuestProcess.start(
                ["/bin/sh", "-c", _JOIN, "sh", str(len(entries)), *entries, *argv], inherit=(*theirs.values(), rules)
            )
            guest = NamespaceGuest(spec, name, ours, process, group)
            try:
                while theirs:
                    os.close(theirs.popitem()[1])
                yield guest
            finally:
                await guest.end()
        finally:
            for descriptor in (*ours.values(), *theirs.values(), rules):
                if descriptor >= 0:
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


def _pair(stream: Stream) -> tuple[int, int]:
    """Return the host's end of a stream and the guest's."""
    if not stream.is_two_way:
        return os.pipe()
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def _command(bwrap: Path, spec: GuestSpec, name: str, rules: int, ends: list[int]) -> list[str]:
    """Bubblewrap's command line (`man 1 bwrap`); paths inside are those of the microVM."""
    root, scratch = spec.root.tree, str(spec.limits.scratch_mib * MIB)
    argv = [
        str(bwrap),
        "--unshare-user",
        "--unshare-all",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
        "--as-pid-1",
    ]
    argv += ["--clearenv", "--setenv", "LD_LIBRARY_PATH", "/skill/lib", "--cap-drop", "ALL"]
    argv += ["--uid", "1000", "--gid", "1000", "--hostname", name, "--seccomp", str(rules)]
    for folder in ("usr", "opt", "etc"):
        argv += ["--ro-bind", str(root / folder), f"/{folder}"]
    argv += ["--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib", "/lib64"]
    for path, image in spec.mounts.items():
        argv += ["--ro-bind", str(image.tree), path]
    argv += ["--proc", "/proc", "--dev", "/dev", "--size", scratch, "--tmpfs", "/dev/shm"]
    argv += ["--size", scratch, "--tmpfs", "/tmp", "--remount-ro", "/dev", "--remount-ro", "/"]
    # If silo runs as root, the guest's user is root for the host's kernel and can write to /proc/sys (`core_pattern` is
    # a way out). Bubblewrap covers that folder only if it finds the folder itself writable.
    argv += ["--remount-ro", "/proc"]
    start = _START.format(
        streams=", ".join(map(str, ends)),
        processes=spec.limits.processes,
        data=spec.limits.memory_mib * MIB,
        file=spec.limits.scratch_mib * MIB,
    )
    return [*argv, "--", "/usr/bin/python3", "-I", "-S", "-B", "-c", start]


def _sealed(data: bytes) -> int:
    """Put `data` into a sealed anonymous file, and return its descriptor, at its start."""
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(
        descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    )
    return descriptor


def _find_out() -> Probe:
    """Try `true` in a sandbox like a guest's."""
    if platform.system() != "Linux":
        missing = f"namespaces are a part of Linux, and this is {platform.system()}"
        return Probe(NAME, Isolation.NAMESPACE, works=False, detail="", missing=(missing,), hint="use silo on Linux")
    bwrap = find_program("bwrap")
    if bwrap is None:
        missing = "bwrap is not installed (it sets up the namespaces)"
        return Probe(NAME, Isolation.NAMESPACE, works=False, detail="", missing=(missing,), hint="run `silo setup`")
    version = subprocess.run([bwrap, "--version"], capture_output=True, text=True, check=False, env={}).stdout.split()[
        -1:
    ]
    try:
        rules = _sealed(seccomp.build())
    except KeyError as error:
        missing = f"there is no seccomp filter for {error.args[0]}"
        return Probe(NAME, Isolation.NAMESPACE, works=False, detail="", missing=(missing,), hint="use a microVM")
    true = shutil.which("true", path="/usr/bin:/bin") or "/bin/true"
    argv = [
        str(bwrap),
        "--unshare-user",
        "--unshare-all",
        "--disable-userns",
        "--die-with-parent",
        "--as-pid-1",
        "--clearenv",
    ]
    argv += ["--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--proc", "/proc"]
    argv += ["--seccomp", str(rules), "--", true]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env={}, pass_fds=(rules,), timeout=10)
        failure = (
            "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        )
    except subprocess.TimeoutExpired:
        failure = "it did not end within 10 s"
    finally:
        os.close(rules)
    if failure:
        hint = (
            "user namespaces may be switched off: see `sysctl kernel.unprivileged_userns_clone` and AppArmor's settings"
        )
        return Probe(
            NAME, Isolation.NAMESPACE, works=False, detail="", missing=(f"bwrap failed: {failure}",), hint=hint
        )
    notes = (
        () if cgroup.parents() else ("no control group can be made here: memory and processes are limited one by one",)
    )
    return Probe(
        NAME, Isolation.NAMESPACE, works=True, detail=f"bubblewrap {' '.join(version)}, shared kernel", notes=notes
    )
