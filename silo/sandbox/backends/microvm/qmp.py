"""QEMU's monitor protocol (QMP): commands, answers and events over a socket. `template` uses it.

A guest that broke out of its kernel is in QEMU, so QEMU's messages are parsed like a guest's.
"""

from __future__ import annotations

import json
import socket
from typing import Any

from silo.errors import SandboxBroken
from silo.sandbox.streams import Pace, read_some
from silo.wire.frames import WireError
from silo.wire.messages import Json
from silo.wire.strict_json import WINDOW_BYTES, parse_json

_MAX_QMP_BYTES = WINDOW_BYTES
"""The longest line of QEMU. The answers to silo's commands have some hundred bytes."""

_AT_ONCE = 100
_PER_S = 100
"""How many messages QEMU may send at once, and how many a second after that; a template takes about ten."""


class Monitor:
    """A QMP session over a socket (QEMU's `docs/interop/qmp-spec`); commands may be sent without waiting."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._buffer = bytearray()
        self._searched = 0
        self._pace = Pace(burst=_AT_ONCE, per_s=_PER_S)
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
                    error = answer["error"]
                    why = error.get("desc") if isinstance(error, dict) else error
                    raise SandboxBroken(
                        f"QEMU refused {command}: {str(why)[:300]}",
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
        await self._pace.wait()
        while (end := self._buffer.find(b"\n", self._searched)) < 0 and len(self._buffer) <= _MAX_QMP_BYTES:
            self._searched = len(self._buffer)
            try:
                self._buffer += await read_some(self._socket.fileno())
            except EOFError:
                raise _gone() from None
        if not 0 <= end <= _MAX_QMP_BYTES:
            raise SandboxBroken("QEMU's monitor sent an invalid message: it is too long", hint="run `silo doctor`")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        try:
            message = parse_json(line)
        except WireError as error:
            raise SandboxBroken(f"QEMU's monitor sent an invalid message: {error}", hint="run `silo doctor`") from error
        return message if isinstance(message, dict) else {}


def _gone() -> SandboxBroken:
    return SandboxBroken("QEMU ended unexpectedly", hint="run `silo doctor` to see whether QEMU works on this machine")
