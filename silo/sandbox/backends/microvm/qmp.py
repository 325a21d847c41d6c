"""QEMU's monitor protocol (QMP): commands, answers and events over a socket. `template` uses it."""

from __future__ import annotations

import json
import socket
from typing import Any

from silo.errors import SandboxBroken
from silo.sandbox.streams import read_some
from silo.wire.messages import Json

_MAX_QMP_BYTES = 1 << 20


class Monitor:
    """A QMP session over a socket (QEMU's `docs/interop/qmp-spec`); commands may be sent without waiting."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._buffer = bytearray()
        self._number = 0

    async def execute(self, command: str, *, descriptor: int | None = None, **given: Json) -> Json:
        """Run one command and return its answer.

        Args:
            descriptor: sent along with the command (for `getfd`).

        Raises:
            SandboxBroken: QEMU refused it, or is gone.
        """
        number = self.send(command, descriptor=descriptor, **given)
        while True:
            answer = await self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise SandboxBroken(
                        f"QEMU refused {command}: {str(answer['error'].get('desc'))[:300]}",
                        hint="run `silo doctor`; "
                        "if QEMU was just updated, `silo setup --repair` rebuilds its templates",
                    )
                return answer.get("return")

    def send(self, command: str, *, descriptor: int | None = None, **given: Json) -> int:
        """Send a command without waiting for its answer; return its number.

        Raises:
            SandboxBroken: QEMU is gone.
        """
        self._number += 1
        message = {"execute": command, "id": self._number}
        if given:
            message["arguments"] = {key.replace("_", "-"): value for key, value in given.items()}
        data = json.dumps(message).encode() + b"\n"
        try:
            if descriptor is None:
                self._socket.sendall(data)
            else:
                socket.send_fds(self._socket, [data], [descriptor])
        except OSError as error:  # closed, or full because QEMU reads nothing any more
            raise _gone() from error
        return self._number

    async def event(self, *names: str) -> dict[str, Any]:
        """Wait for one of the named events."""
        while True:
            message = await self._read()
            if message.get("event") in names:
                return message

    async def _read(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            try:
                self._buffer += await read_some(self._socket.fileno())
            except EOFError:
                raise _gone() from None
            if len(self._buffer) > _MAX_QMP_BYTES:
                raise SandboxBroken("QEMU's monitor sent an invalid message", hint="run `silo doctor`")
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer = bytearray(rest)
        message = json.loads(line)
        return message if isinstance(message, dict) else {}


def _gone() -> SandboxBroken:
    return SandboxBroken("QEMU ended unexpectedly", hint="run `silo doctor` to see whether QEMU works on this machine")
