"""Starts a backend's process, and makes sure that it ends. The backend decides what to run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
from anyio.lowlevel import checkpoint

from silo.errors import SandboxBroken
from silo.sandbox.seccomp import sealed
from silo.sandbox.streams import read_some

_GONE_S = 5.0

_TIE_S = 10.0
"""Bubblewrap needs some milliseconds to set up a guest; on a machine that swaps, it may need seconds."""

_ORPHAN_S = 0.25
"""The kernel ends a guest of some hundred MiB in a few milliseconds; a guest that lives longer was not killed."""


class GuestProcess:
    """One process (bubblewrap, and what runs in it), its inherited sockets, and its last words.

    Every process of the guest holds the *leash*, the other end of a socket of silo's, at first as its stdin. When
    silo's end reads an end of file, the last of them is gone, however they ended. When silo is gone, their writes fail.
    """

    def __init__(self, process: anyio.abc.Process, leash: socket.socket, held: int, errors: int) -> None:
        self._process = process
        self._leash = leash
        self._held = held
        self._errors = errors

    @classmethod
    async def start(
        cls, argv: Sequence[str], *, inherit: Sequence[int], stdout: int | None = None, rules: bytes = b""
    ) -> GuestProcess:
        """Start `argv` with an empty environment and no descriptors but `inherit`.

        The environment is empty because `/proc` shows bubblewrap's environment until it execs the guest.

        Args:
            argv: bubblewrap and its options, if `rules` are given.
            inherit: descriptors that keep their numbers.
            stdout: a descriptor, or None to drop the output.
            rules: a filter of system calls for what bubblewrap starts (`silo.sandbox.seccomp.build`).

        Raises:
            SandboxBroken: the program can't be started.
        """
        ours, theirs = socket.socketpair()
        held = os.fstat(theirs.fileno()).st_ino
        errors = os.memfd_create("stderr", os.MFD_CLOEXEC)
        filters = [sealed(rules)] if rules else []
        try:
            process = await anyio.open_process(
                [argv[0], *(word for rule in filters for word in ("--seccomp", str(rule))), *argv[1:]],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL if stdout is None else stdout,
                stderr=errors,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                pass_fds=(*inherit, *filters, theirs.fileno()),
                cwd="/",
            )
        except BaseException as error:  # also a cancellation: nothing else would close these descriptors
            ours.close()
            os.close(errors)
            if not isinstance(error, OSError):
                raise
            raise SandboxBroken(
                f"cannot start {argv[0]}: {error.strerror}", hint="run `silo setup`, then `silo doctor`"
            ) from error
        finally:
            theirs.close()
            for descriptor in filters:
                os.close(descriptor)
        return cls(process, ours, held, errors)

    async def tie(self) -> None:
        """Answer the program's first line on the leash, which tells it that silo lives.

        `silo.sandbox.backends.microvm.qemu.confine` starts such a program. If the program has ended, or writes nothing
        for seconds, this returns without an answer: the program's other sockets tell why.
        """
        with anyio.move_on_after(_TIE_S), contextlib.suppress(EOFError, OSError):
            self._leash.setblocking(False)
            if await read_some(self._leash.fileno()):
                self._leash.send(b"\n")

    @property
    def pid(self) -> int:
        """The process id on the host."""
        return self._process.pid

    def last_words(self) -> str:
        """The last line on its stderr, for an error message."""
        data = os.pread(self._errors, 64 * 1024, max(0, os.fstat(self._errors).st_size - 64 * 1024))
        lines = [line for line in data.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else "it said nothing"

    async def end(self) -> None:
        """Kill it and wait until none of its processes is left, also while the surrounding task is being cancelled.

        Raises:
            SandboxBroken: a process survived for seconds; silo can do nothing more.
        """
        with anyio.CancelScope(shield=True):
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            self._leash.setblocking(False)
            end = time.monotonic() + _GONE_S
            while not (is_gone := await self._is_gone(_ORPHAN_S)) and time.monotonic() < end:
                # Bubblewrap's child dies with it only once the child is set up (`--die-with-parent`). If bubblewrap was
                # killed before that, the child lives on, and only the leash leads to it.
                await anyio.to_thread.run_sync(_kill_holders, self._held)
            self._leash.close()
            os.close(self._errors)
            await checkpoint()
        if not is_gone:
            raise SandboxBroken(
                f"a guest's process did not end within {_GONE_S:.0f} s", hint="look for it with `ps`, and report this"
            )

    async def _is_gone(self, patience_s: float) -> bool:
        """Whether the leash reaches its end in that time."""
        with anyio.move_on_after(patience_s):
            try:
                while True:
                    await read_some(self._leash.fileno())
            except EOFError:
                return True
        return False


def _kill_holders(inode: int) -> None:
    """Kill every process that has the socket with this inode open."""
    wanted = f"socket:[{inode}]"
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or belongs to another user
            if any(str(descriptor.readlink()) == wanted for descriptor in (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)
