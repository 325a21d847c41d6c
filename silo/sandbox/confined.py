"""Runs a program of the host on files that a stranger wrote: the compiler on packages, `mke2fs` on a tree of them.

The program runs under bubblewrap (`man 1 bwrap`), in namespaces of its own: no network, no process or file of the host
but the system's programs and libraries and what the caller names, no capability, the seccomp filter of
guests, limits of memory, time and written bytes. A fault in its parser then reaches nothing but the files that it was
given.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio

from silo.errors import SandboxBroken
from silo.sandbox import seccomp
from silo.sandbox.programs import find_program, system_binds
from silo.sizes import KIB, MIB

_SHARED_MIB: Final = 4
_KEPT_OF_STDERR: Final = 64 * KIB
_LIMIT = 'ulimit -c 0; ulimit -v "$1"; ulimit -t "$2"; ulimit -f "$3"; shift 3; exec "$@"'


@dataclass(frozen=True)
class Confinement:
    """What a confined program has.

    Attributes:
        read: folders and files that it may read, by the path that it sees.
        write: folders and files that it may also write.
        root: an image's tree with `usr` and `opt`, in place of the host's own programs and libraries.
        address_mib: the address space of each of its processes.
        file_mib: the size of each file that it writes.
        cpu_s: the processor time of each of its processes.
        timeout_s: it is killed after this time.
    """

    read: Mapping[str, Path] = field(default_factory=dict)
    write: Mapping[str, Path] = field(default_factory=dict)
    root: Path | None = None
    address_mib: int = 2048
    file_mib: int = 512
    cpu_s: int = 300
    timeout_s: float = 300.0


@dataclass(frozen=True)
class ConfinedResult:
    """How a confined program ended: its exit status (negative: a signal), and the end of its stderr."""

    status: int
    stderr: str


async def run_confined(argv: Sequence[str], confinement: Confinement) -> ConfinedResult:
    """Run a program to its end; a cancelled task kills it with all of its children.

    Raises:
        TimeoutError: it ran for longer than `timeout_s`, and was killed.
        SandboxBroken: bubblewrap is missing, or can't be started.
    """
    with _prepared(argv, confinement) as (command, rules, stderr):
        with _started(), anyio.fail_after(confinement.timeout_s):
            # `--die-with-parent` and the pid namespace end its children with it.
            done = await anyio.run_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                check=False,
                env={},
                pass_fds=(rules,),
                cwd="/",
            )
        return ConfinedResult(done.returncode, _tail(stderr))


def run_confined_blocking(argv: Sequence[str], confinement: Confinement) -> ConfinedResult:
    """As `run_confined`, for worker threads."""
    with _prepared(argv, confinement) as (command, rules, stderr), _started():
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                check=False,
                env={},
                pass_fds=(rules,),
                cwd="/",
                timeout=confinement.timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        return ConfinedResult(done.returncode, _tail(stderr))


@contextmanager
def _prepared(argv: Sequence[str], confinement: Confinement) -> Iterator[tuple[list[str], int, int]]:
    """Yield bubblewrap's command line, the descriptor of its filter, and one for stderr.

    Stderr is a file, so that the limit of written bytes bounds it, too.
    """
    bwrap = find_program("bwrap")
    if bwrap is None:
        raise SandboxBroken("bwrap is missing", hint="install the package bubblewrap, or run `silo setup`")
    rules = seccomp.sealed(seccomp.build())
    try:
        stderr = os.memfd_create("stderr", os.MFD_CLOEXEC)
        try:
            yield _command(bwrap, argv, confinement, rules), rules, stderr
        finally:
            os.close(stderr)
    finally:
        os.close(rules)


@contextmanager
def _started() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise
    except OSError as error:
        raise SandboxBroken(
            f"cannot start bwrap: {error.strerror}", hint="run `silo setup`, then `silo doctor`"
        ) from error


def _command(bwrap: Path, argv: Sequence[str], confinement: Confinement, rules: int) -> list[str]:
    wrap = [str(bwrap), "--unshare-user", "--unshare-all", "--disable-userns", "--die-with-parent", "--new-session"]
    # Root of its own user namespace, without a capability: `mke2fs` writes the owners that it sees, and the owner of
    # silo's files shall be root in every image. If silo is root, it is root for the host's kernel, too (threat model).
    wrap += ["--uid", "0", "--gid", "0", "--cap-drop", "ALL", "--hostname", "confined", "--clearenv"]
    wrap += ["--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin", "--setenv", "LC_ALL", "C.UTF-8"]
    wrap += ["--seccomp", str(rules), *_programs(confinement.root)]
    wrap += ["--proc", "/proc", "--dev", "/dev", "--size", str(_SHARED_MIB * MIB), "--tmpfs", "/dev/shm"]
    for inside, path in confinement.read.items():
        wrap += ["--ro-bind", str(path), inside]
    for inside, path in confinement.write.items():
        wrap += ["--bind", str(path), inside]
    wrap += ["--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/"]
    # In units of 1 KiB, seconds, and 512 bytes (POSIX, `ulimit`). Set inside, where only the program is bound by them.
    limits = [confinement.address_mib * MIB // KIB, confinement.cpu_s, confinement.file_mib * MIB // 512]
    if confinement.root is not None:
        return [*wrap, "--", "/usr/bin/python3", "-I", "-S", "-c", _LIMIT_BY_PYTHON, *map(str, limits), *argv]
    return [*wrap, "--", "/bin/sh", "-c", _LIMIT, "sh", *map(str, limits), *argv]


_LIMIT_BY_PYTHON = """
import os, resource, sys
kinds = (resource.RLIMIT_AS, 1024), (resource.RLIMIT_CPU, 1), (resource.RLIMIT_FSIZE, 512)
for (kind, unit), amount in zip(kinds, sys.argv[1:4]):
    resource.setrlimit(kind, (int(amount) * unit,) * 2)
os.execv(sys.argv[4], sys.argv[4:])
"""
"""For a root without a shell: the images of guests have a Python only."""


def _programs(root: Path | None) -> list[str]:
    """The options that give it programs and libraries: those of an image, or those of the host, without settings."""
    if root is not None:
        binds = [part for name in ("usr", "opt") for part in ("--ro-bind", str(root / name), f"/{name}")]
        return [
            *binds,
            "--symlink",
            "usr/bin",
            "/bin",
            "--symlink",
            "usr/lib",
            "/lib",
            "--symlink",
            "usr/lib",
            "/lib64",
        ]
    return system_binds()


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _KEPT_OF_STDERR, max(0, size - _KEPT_OF_STDERR)).decode(errors="replace")
