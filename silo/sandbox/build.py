"""Runs the build of a package, which is foreign code, in a sandbox or, if the user allows that by name, without one.

In the sandbox (`man 1 bwrap`), it has namespaces of its own: no network, no process of the host, no capability, the
seccomp filter of the namespace backend. It sees programs and libraries of the system, the interpreter, the packages
that it needs, and its archive, all read-only. Everything else is empty and in memory, and bounded: its home, `/tmp`,
where it works. It has no environment of silo's, so no secret, and it can't reach uv's cache or SILO_HOME. Its wheel
comes back through a pipe.

A filter of system calls does not hide the host's kernel, and memory and processes are limited one by one. So this is
the boundary of the `namespace` backend, not that of a microVM.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import anyio
from anyio import to_thread

from silo.errors import DependencyUnavailable
from silo.model import Interpreter
from silo.sandbox import build_hook, seccomp
from silo.sandbox.programs import find_program, system_binds
from silo.sizes import KIB, MIB

MAX_WHEEL_BYTES: Final = 512 * MIB
BUILD_TIMEOUT_S: Final = 1800.0
"""PyTorch takes hours; a package of a skill takes minutes at most."""

_WORK_MIB: Final = 2048
_TEMPORARY_MIB: Final = 512
_SHARED_MIB: Final = 64
_MAX_LINE_BYTES: Final = 64 * KIB
_KEPT_OF_STDERR: Final = 64 * KIB
_PROBE_TIMEOUT_S: Final = 20.0

Phase = Literal["requires", "wheel"]


@dataclass(frozen=True)
class BuildTask:
    """One run of a build's backend.

    Attributes:
        archive: the source distribution.
        packages: a folder with what the build needs, for `sys.path`, or None.
    """

    interpreter: Interpreter
    archive: Path
    packages: Path | None


@dataclass(frozen=True)
class BuildSandbox:
    """Where builds run.

    Attributes:
        hidden: folders that no build may see even if they are inside of what it sees: SILO_HOME, the user's home.
        is_confined: false runs the build as an ordinary process of the user.
        max_wheel_bytes: the limit for what a build makes.
        timeout_s: a build is killed after this time.
    """

    hidden: tuple[Path, ...] = ()
    is_confined: bool = True
    max_wheel_bytes: int = MAX_WHEEL_BYTES
    timeout_s: float = BUILD_TIMEOUT_S

    async def missing(self, interpreter: Interpreter) -> str:
        """Return why no build can be confined here; empty if it can."""
        return await to_thread.run_sync(self._probe, interpreter)

    async def requires(self, task: BuildTask) -> object:
        """Return what the backend says that a build needs, as JSON of a stranger.

        Raises:
            DependencyUnavailable: the build failed, or said nothing that can be read.
        """
        with tempfile.TemporaryFile() as rest:
            return (await self._run("requires", task, rest.fileno())).get("requires")

    async def wheel(self, task: BuildTask, target: Path) -> str:
        """Build a wheel into a new file, and return the file name that the backend gave it, which nobody has checked.

        Raises:
            DependencyUnavailable: the build failed, took too long, or made a wheel of more than `max_wheel_bytes`.
        """
        with target.open("xb") as file:
            return str((await self._run("wheel", task, file.fileno())).get("wheel"))

    async def _run(self, phase: Phase, task: BuildTask, out: int) -> Mapping[str, Any]:
        stderr = bytearray()
        # In a sandbox it stays empty.
        folder = await to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="silo-build-"))
        try:
            with anyio.fail_after(self.timeout_s):
                status, line = await self._start(phase, task, Path(folder), out, stderr)
        except TimeoutError as error:
            raise _failed(task, f"it took more than {self.timeout_s:g} s", stderr) from error
        except OSError as error:
            raise _failed(task, f"it can't be started: {error.strerror}", stderr) from error
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
        if status != 0:
            raise _failed(task, f"it ended with status {status}", stderr)
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise _failed(task, "it gave no answer that can be read", stderr)
        return answer

    async def _start(
        self, phase: Phase, task: BuildTask, folder: Path, out: int, stderr: bytearray
    ) -> tuple[int, bytes]:
        rules = seccomp.sealed(seccomp.build())
        try:
            process = await anyio.open_process(
                self._command(phase, task, folder, rules),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env={} if self.is_confined else _environ(folder, task),
                pass_fds=(rules,) if self.is_confined else (),
                start_new_session=True,
            )
        finally:
            os.close(rules)
        assert process.stdout is not None
        assert process.stderr is not None
        answer = _Answer(out, self.max_wheel_bytes)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_keep_tail, process.stderr, stderr)
                async for chunk in process.stdout:
                    await to_thread.run_sync(answer.take, chunk)
                await process.wait()
                # Outside of a sandbox, a child that left the session may hold the pipe for ever.
                tasks.cancel_scope.deadline = anyio.current_time() + 1
        finally:
            # All of the session, and with bubblewrap all of its namespace.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.wait()
                await process.aclose()
        if answer.is_too_long:
            raise _failed(task, f"its wheel has more than {self.max_wheel_bytes} bytes", stderr)
        assert process.returncode is not None
        return process.returncode, bytes(answer.line)

    def _command(self, phase: Phase, task: BuildTask, folder: Path, rules: int) -> list[str]:
        python = [str(task.interpreter.executable), "-P", "-s", "-S", "-B"]
        if not self.is_confined:
            return [*python, build_hook.__file__, phase, str(task.archive), str(folder)]
        binds = ["--size", str(_WORK_MIB * MIB), "--tmpfs", "/build", "--dir", "/build/work", "--dir", "/build/home"]
        binds += ["--ro-bind", build_hook.__file__, "/build/hook.py"]
        binds += ["--ro-bind", str(task.archive), "/build/archive.tar.gz"]
        if task.packages is not None:
            binds += ["--ro-bind", str(task.packages), "/build/packages"]
        environ = [part for item in _environ(Path("/build"), task).items() for part in ("--setenv", *item)]
        hook = ["/build/hook.py", phase, "/build/archive.tar.gz", "/build/work"]
        return [*self._sandbox(task.interpreter, rules), *environ, *binds, "--remount-ro", "/", "--", *python, *hook]

    def _sandbox(self, interpreter: Interpreter, rules: int) -> list[str]:
        bwrap = find_program("bwrap")
        argv = [str(bwrap or "bwrap"), "--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent"]
        argv += ["--new-session", "--uid", "1000", "--gid", "1000", "--hostname", "build", "--cap-drop", "ALL"]
        argv += ["--clearenv", "--seccomp", str(rules), *_system(interpreter), "--proc", "/proc", "--dev", "/dev"]
        for folder in self.hidden:
            if any(folder.is_relative_to(place) for place in _seen(interpreter)) and folder.is_dir():
                argv += ["--tmpfs", str(folder), "--remount-ro", str(folder)]
        for own, size_mib in (("/dev/shm", _SHARED_MIB), ("/tmp", _TEMPORARY_MIB)):  # noqa: S108 - the sandbox's own
            argv += ["--size", str(size_mib * MIB), "--tmpfs", own]
        # If silo runs as root, the build's user is root for the host's kernel, without a capability: the threat model
        # says so. So `/proc/sys` must be read-only.
        return [*argv, "--remount-ro", "/dev", "--remount-ro", "/proc"]

    def _probe(self, interpreter: Interpreter) -> str:
        if find_program("bwrap") is None:
            return "bwrap is not installed; `silo setup` installs it"
        try:
            rules = seccomp.sealed(seccomp.build())
        except KeyError as error:
            return f"there is no seccomp filter for {error.args[0]}"
        try:
            argv = [*self._sandbox(interpreter, rules), "--", str(interpreter.executable), "-I", "-S", "-c", "pass"]
            done = subprocess.run(
                argv, capture_output=True, check=False, env={}, pass_fds=(rules,), timeout=_PROBE_TIMEOUT_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bwrap failed: {error}"
        finally:
            os.close(rules)
        words = done.stderr.decode(errors="replace").strip().splitlines()
        return "" if done.returncode == 0 else f"bwrap failed: {words[-1] if words else done.returncode}"


class _Answer:
    """The first line of a build's standard output, and the rest, which goes to a file; both bounded."""

    def __init__(self, out: int, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.line = bytearray()
        self.is_too_long = False
        self._out = out
        self._size = 0
        self._is_whole = False

    def take(self, chunk: bytes) -> None:
        if not self._is_whole:
            line, newline, chunk = chunk.partition(b"\n")
            self.line += line[: _MAX_LINE_BYTES + 1 - len(self.line)]
            self._is_whole = bool(newline)
        self._size += len(chunk)
        self.is_too_long = self.is_too_long or self._size > self._most_bytes
        if not self.is_too_long:
            with os.fdopen(os.dup(self._out), "ab", buffering=0) as file:
                file.write(chunk)


async def _keep_tail(stream: anyio.abc.ByteReceiveStream, kept: bytearray) -> None:
    async for chunk in stream:
        kept += chunk
        del kept[:-_KEPT_OF_STDERR]


def _environ(folder: Path, task: BuildTask) -> dict[str, str]:
    """The whole environment of a build: nothing of silo's own."""
    confined = folder == Path("/build")
    packages = "" if task.packages is None else "/build/packages" if confined else str(task.packages)
    home = folder / "home"
    if not confined:
        home.mkdir(mode=0o700, exist_ok=True)
    found = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8", "PYTHONNOUSERSITE": "1"}
    found["SOURCE_DATE_EPOCH"] = "315532800"  # 1980, the earliest time that a zip file can have
    if packages:
        found |= {"PATH": f"{packages}/bin:{found['PATH']}", "PYTHONPATH": packages}
    return found


def _seen(interpreter: Interpreter) -> tuple[Path, ...]:
    """The folders of the host that a build sees, as well as some links and files of `/etc`."""
    prefix = interpreter.stdlib.parent.parent
    return (Path("/usr"), *(() if prefix.is_relative_to("/usr") else (prefix,)))


def _system(interpreter: Interpreter) -> list[str]:
    places = [part for place in _seen(interpreter)[1:] for part in ("--ro-bind", str(place), str(place))]
    # `/usr`, the first place, is among the system's. `/etc/alternatives` is Debian's choice of compiler.
    return [*system_binds(), *places, "--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]


def _failed(task: BuildTask, why: str, stderr: Sequence[int]) -> DependencyUnavailable:
    lines = [line.strip() for line in bytes(stderr).decode(errors="replace").splitlines() if line.strip()]
    said = "; ".join(lines[-2:])[:600] or "it printed nothing"
    return DependencyUnavailable(
        f"{task.archive.name.removesuffix('.tar.gz')} could not be built: {why}: {said}",
        hint="a build has no network here; if it needs more, build a wheel yourself and put it on your own index",
    )
