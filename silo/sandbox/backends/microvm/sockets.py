"""The socket pairs between silo and one QEMU: the guest's streams, the monitor, and the console during a boot."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Self

from silo.sandbox.base import Stream
from silo.sandbox.streams import read_some

_CONSOLE_BYTES = 64 * 1024
_CONTROLS = re.compile(r"\x1b(?:\[[0-9;:?]*[A-Za-z]|.)|[^\n\x20-\x7e\xa0-\U0010ffff]")
"""Escape sequences (ECMA-48 §5.4) and control characters: firmware positions its text with them."""


def open_sockets(streams: Sequence[Stream], *, console: bool) -> Sockets:
    """Make the sockets for one QEMU; leaving the context closes them."""
    return Sockets(streams, console=console)


class Sockets:
    """The socket pairs between silo and one QEMU: a port for each stream, the monitor, and perhaps the console."""

    def __init__(self, streams: Sequence[Stream], *, console: bool) -> None:
        self._names = [stream.name for stream in streams]
        self._pairs = [socket.socketpair() for _ in range(len(streams) + 1 + console)]
        self._has_console = console
        self._unread = b""
        self._heard = b""
        for ours, _ in self._pairs:
            ours.setblocking(False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for ours, theirs in self._pairs:
            ours.close()
            theirs.close()

    @property
    def guest_ports(self) -> Mapping[str, int]:
        """QEMU's ends of the streams, by the name of the guest's port, by which `silo.guest.init` finds them."""
        return {f"silo.{name}": theirs.fileno() for name, (_, theirs) in self._named()}

    @property
    def host_ports(self) -> Mapping[str, int]:
        """silo's ends of the streams, by their names."""
        return {name: ours.fileno() for name, (ours, _) in self._named()}

    @property
    def guest_monitor(self) -> int:
        """QEMU's end of the monitor."""
        return self._pairs[len(self._names)][1].fileno()

    @property
    def guest_console(self) -> int | None:
        """QEMU's end of the console, if there is one."""
        return self._pairs[-1][1].fileno() if self._has_console else None

    @property
    def monitor(self) -> socket.socket:
        """silo's end of the monitor."""
        return self._pairs[len(self._names)][0]

    def for_guest(self) -> list[int]:
        """The descriptors that QEMU inherits."""
        return [theirs.fileno() for _, theirs in self._pairs]

    def close_guest_ends(self) -> None:
        """Close QEMU's ends in this process, once QEMU has them."""
        for _, theirs in self._pairs:
            theirs.close()

    async def console_line(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Read the console until a whole line matches; None if QEMU ends first."""
        while True:
            *lines, self._unread = self._unread.split(b"\n")
            for number, line in enumerate(lines):
                if found := pattern.search(line):
                    self._unread = b"\n".join([*lines[number + 1 :], self._unread])
                    return found
            try:
                self._hear(data := await read_some(self._pairs[-1][0].fileno()))
                self._unread = (self._unread + data)[-_CONSOLE_BYTES:]
            except EOFError:
                return None

    def console_text(self) -> str:
        """The last output of the guest's firmware and kernel on its console, without control characters."""
        if self._has_console:
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                self._hear(self._pairs[-1][0].recv(_CONSOLE_BYTES))
        return _CONTROLS.sub("", self._heard.decode(errors="replace"))

    def _named(self) -> list[tuple[str, tuple[socket.socket, socket.socket]]]:
        return list(zip(self._names, self._pairs, strict=False))

    def _hear(self, data: bytes) -> None:
        self._heard = (self._heard + data)[-_CONSOLE_BYTES:]
