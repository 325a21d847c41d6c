"""A running guest of this backend, as its starter uses it. `template` starts guests."""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from typing import Any

from silo.model import Isolation
from silo.sandbox.backends.microvm.qemu import Qemu
from silo.sandbox.backends.microvm.qmp import Monitor
from silo.sandbox.base import Ended, GuestSpec
from silo.sandbox.process import GuestProcess


class MicrovmGuest:
    """A guest under QEMU.

    Attributes:
        kind: how it was started: `booted`, `clone` or `warm clone`.
        kept: for a clone, what its template kept.
        monitor: the connection to QEMU's monitor.
        note: why it is slower than a guest could be on this machine, or empty.
    """

    isolation = Isolation.MICROVM

    def __init__(
        self,
        spec: GuestSpec,
        streams: Mapping[str, int],
        process: GuestProcess,
        qemu: Qemu,
        monitor: Monitor,
        *,
        kind: str,
        kept: Mapping[str, Any] | None,
    ) -> None:
        self.spec = spec
        self.name = f"{spec.name.replace('_', '-')}-{os.urandom(4).hex()}"
        self.streams = streams
        self.kind = kind
        self.kept = kept
        self._qemu = qemu
        self._process = process
        self.monitor = monitor
        self.note = ""
        self._ended: Ended | None = None

    @property
    def facts(self) -> Mapping[str, str]:
        """QEMU, its accelerator, how the guest was started, and why it is slow if it should not be."""
        facts = {"backend": f"QEMU {self._qemu.version}, {self._qemu.accelerator.name.upper()}, {self.kind}"}
        return {**facts, "note": self.note} if self.note else facts

    @property
    def is_connected(self) -> bool:
        """Whether QEMU still holds the other end of the streams. Reads nothing from them."""
        poll = select.poll()
        for descriptor in self.streams.values():
            poll.register(descriptor, 0)
        return not poll.poll(0)  # POLLHUP and POLLERR are always reported

    async def stop(self) -> None:
        """Stop the guest's processor (QMP's `stop`): until `go_on`, nothing runs in the guest, and its clocks stop.

        Raises:
            SandboxBroken: QEMU refused, or is gone.
        """
        await self.monitor.execute("stop")

    def go_on(self) -> None:
        """Let the guest's processor run again (QMP's `cont`). Does not wait: what the guest is sent next queues.

        Raises:
            SandboxBroken: QEMU is gone.
        """
        self.monitor.send("cont")

    def last_words(self) -> str:
        """The last line that QEMU printed."""
        return self._process.last_words()

    async def end(self) -> Ended:
        """Kill QEMU and everything in its sandbox."""
        if self._ended is None:
            self._ended = Ended(
                self._process.last_words(),
                is_out_of_memory=False,  # the guest has its own memory, so its own kernel reports this, not the host's
                hint="if QEMU or the kernel was just updated, `silo setup --repair` rebuilds the templates",
            )
            await self._process.end()
        return self._ended
