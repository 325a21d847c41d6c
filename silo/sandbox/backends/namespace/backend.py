"""The namespace backend: the host's kernel, seen through bubblewrap. Weaker than a microVM, and quick on any Linux.

User, mount, pid, network, ipc, uts and cgroup namespaces of its own; no capability, no new privileges, a seccomp filter; the images
read-only and nothing else of the host; a control group where one can be had, resource limits always. It keeps no template: each
call imports the skill anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Self

import anyio
import anyio.to_thread

from silo.errors import SandboxBroken, SandboxLost, SandboxUnavailable, SkillCrashed, SkillFailed, SkillOutOfMemory
from silo.model import Isolation
from silo.sandbox.backends.namespace import cgroup, seccomp
from silo.sandbox.backends.namespace.cgroup import ControlGroup
from silo.sandbox.base import MIB, Description, GuestReply, GuestRequest, OnProgress, OnStep, Probe, Unit
from silo.sandbox.process import GuestProcess
from silo.sandbox.programs import find_program
from silo.sandbox.skill.link import Descriptors, GuestLink

NAME = "namespace"

_START = """\
import sys
sys.path[:0] = ["/runtime"]
sys.path.append("/skill/env")
from silo.guest.init import main_namespace
main_namespace({control}, {call}, {out}, {err}, processes={processes}, data_bytes={data}, file_bytes={file})
"""

# Joins the control group before bubblewrap starts, so that nothing of the guest ever runs outside of it.
_JOIN = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1" || exit 71; shift; n=$((n-1)); done; ulimit -c 0; exec "$@"'
)


class NamespaceBackend:
    """Guests that share the host's kernel."""

    def __init__(self) -> None:
        self._probe: Probe | None = None

    @property
    def name(self) -> str:
        """As the configuration names it."""
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
        """Start a process in all the namespaces, under the filter."""
        if self._probe is None or refresh:
            self._probe = await anyio.to_thread.run_sync(_find_out)
        return self._probe

    async def describe(self, unit: Unit, *, deadline: float, on_step: OnStep) -> Description:
        """Import the skill in a guest of its own, which is then ended."""
        on_step(f"importing '{unit.name}' in a namespace sandbox")
        started = time.monotonic()
        async with self._guest(unit) as (link, _, _):
            described = await link.describe(deadline=deadline)
            timing = {"import": described.import_s, "warmup": described.warmup_s, "total": time.monotonic() - started}
        return Description(described.skill, self.isolation, timing)

    @contextlib.asynccontextmanager
    async def open(self, unit: Unit, *, on_step: OnStep) -> AsyncIterator[_Namespace]:
        """Start a guest."""
        del on_step  # nothing here takes long enough to speak of
        async with self._guest(unit) as (link, process, group):
            yield _Namespace(link, process, group)

    def prune(self, keep: Iterable[Unit]) -> list[Path]:
        """Nothing is prepared here."""
        del keep
        return []

    @contextlib.asynccontextmanager
    async def _guest(self, unit: Unit) -> AsyncIterator[tuple[GuestLink, GuestProcess, ControlGroup | None]]:
        probe = await self.probe()
        bwrap = find_program("bwrap")
        if not probe.works or bwrap is None:
            raise SandboxUnavailable(f"no namespace sandbox works here: {'; '.join(probe.missing)}", hint=probe.hint)
        name = f"silo-{os.getpid()}-{secrets.token_hex(4)}"
        under = cgroup.parents()
        try:
            group = cgroup.make(under, name, unit.limits) if under else None
        except OSError as error:
            raise SandboxBroken(
                f"cannot make a control group for the guest: {error}",
                hint="`silo doctor` says what works here; without a control group the guest would not be bounded as promised",
            ) from error
        control, call = socket.socketpair(), socket.socketpair()
        out, err = os.pipe(), os.pipe()
        rules = _sealed(seccomp.build())
        guest_ends = [control[1].fileno(), call[1].fileno(), out[1], err[1]]
        try:
            argv = _command(bwrap, unit, name, rules, guest_ends)
            entries = [str(entry) for entry in group.entries] if group else []
            process = await GuestProcess.start(
                ["/bin/sh", "-c", _JOIN, "sh", str(len(entries)), *entries, *argv], inherit=(*guest_ends, rules)
            )
            link = GuestLink(
                Descriptors(control[0].detach(), call[0].detach(), os.dup(out[0]), os.dup(err[0])),
                unit.limits,
                name=unit.name,
            )
            try:
                control[1].close()
                call[1].close()
                for descriptor in (out[1], err[1]):
                    os.close(descriptor)
                out, err = (out[0], -1), (err[0], -1)
                yield link, process, group
            finally:
                await process.end()
                link.close()
        finally:
            for pair in (control, call):
                for end in pair:
                    end.close()
            for descriptor in (*out, *err, rules):
                if descriptor >= 0:
                    os.close(descriptor)
            if group is not None:
                # In a thread: the kernel may take its time to notice that the group is empty.
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(group.remove)


class _Namespace:
    """A guest that is importing its skill, for one call."""

    isolation = Isolation.NAMESPACE

    def __init__(self, link: GuestLink, process: GuestProcess, group: ControlGroup | None) -> None:
        self._link = link
        self._process = process
        self._group = group

    async def run(self, request: GuestRequest, *, deadline: float, on_progress: OnProgress) -> GuestReply:
        started = time.monotonic()
        try:
            await self._link.describe(deadline=deadline)
            imported = time.monotonic()
            await self._link.resume(request.tool)
            reply = await self._link.run(request, deadline=deadline, on_progress=on_progress)
        except SkillCrashed as error:
            raise self._out_of_memory(error) or error from None
        except SandboxLost as error:
            raise self._out_of_memory(error) or SandboxBroken(
                f"{error} ({self._process.last_words()})", hint="run `silo doctor`"
            ) from error
        timing = {"import": imported - started}
        facts = {**reply.facts, "backend": "bubblewrap" + (", cgroup" if self._group else "")}
        return GuestReply(reply.outcome, reply.files, reply.stdout, reply.stderr, timing, facts)

    def _out_of_memory(self, error: SkillFailed) -> SkillFailed | None:
        if self._group is None or not self._group.oom_kills():
            return None
        return SkillOutOfMemory(
            "the skill needed more memory than its guest has",
            hint="raise `memory_mib` in the skill's header, or give it less to do",
            stdout=error.stdout,
            stderr=error.stderr,
        )


def _command(bwrap: Path, unit: Unit, name: str, rules: int, ends: list[int]) -> list[str]:
    """Bubblewrap's command line (`man 1 bwrap`); paths inside are those of the microVM."""
    base, scratch = unit.base.tree, str(unit.limits.scratch_mib * MIB)
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
        argv += ["--ro-bind", str(base / folder), f"/{folder}"]
    argv += ["--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib", "/lib64"]
    argv += ["--ro-bind", str(unit.layer.tree), "/skill", "--ro-bind", str(unit.runtime.tree), "/runtime"]
    argv += ["--proc", "/proc", "--dev", "/dev", "--size", scratch, "--tmpfs", "/dev/shm"]
    argv += ["--size", scratch, "--tmpfs", "/tmp", "--remount-ro", "/dev", "--remount-ro", "/"]
    # Where silo runs as root, the guest's user is root to the host's kernel, which lets it write to /proc/sys (`core_pattern`
    # is a way out); bubblewrap covers that folder only where it believes it to be writable, and it asks about the folder itself.
    argv += ["--remount-ro", "/proc"]
    start = _START.format(
        control=ends[0],
        call=ends[1],
        out=ends[2],
        err=ends[3],
        processes=unit.limits.processes,
        data=unit.limits.memory_mib * MIB,
        file=unit.limits.scratch_mib * MIB,
    )
    return [*argv, "--", "/usr/bin/python3", "-I", "-S", "-B", "-c", start]


def _sealed(data: bytes) -> int:
    """Put `data` into an anonymous file that nobody can change, and return its descriptor, at its start."""
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(descriptor, data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(
        descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    )
    return descriptor


def _find_out() -> Probe:
    """Try `true` in a sandbox like a guest's."""
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
