"""QEMU's monitor: what a QEMU that a guest took over may say is an error or is ignored, and holds up nobody."""

import json
import re
import socket

import anyio
import pytest

from silo.errors import SandboxBroken
from silo.sandbox.backends.microvm.qmp import Monitor
from silo.sandbox.backends.microvm.sockets import open_sockets

pytestmark = pytest.mark.anyio

PATIENCE_S = 300.0


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def monitor():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Monitor(ours), theirs


async def test_the_answer_to_a_command_is_found_among_events(monitor):
    monitor, qemu = monitor
    qemu.sendall(
        b'{"QMP": {"version": {}}}\r\n{"event": "RESUME"}\r\n{"return": {"a": [1]}, "id": 1}\r\n{"event": "STOP"}\r\n'
    )
    assert await monitor.execute("query-status") == {"a": [1]}
    assert (await monitor.event("STOP", "OTHER"))["event"] == "STOP"


async def test_an_answer_in_pieces_is_put_together(monitor):
    monitor, qemu = monitor

    async def drip():
        for byte in b'{"return": 7, "id": 1}\n':
            qemu.sendall(bytes([byte]))
            await anyio.sleep(0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drip)
        assert await monitor.execute("x") == 7


@pytest.mark.parametrize(
    "line",
    [b"{", b"nonsense", b"\xff\xfe", b"[" * 20_000, b'{"id":NaN}', b'{"id":1,"id":1}', b'{"return":"\\ud800","id":1}',
     b'{"id":' + b"1" * 5000 + b"}", b"x" * 100_000, b'{"return":"' + b"x" * 100_000 + b'","id":1}', b""],
)  # fmt: skip
async def test_what_is_no_message_is_an_error_and_not_a_crash(monitor, line):
    monitor, qemu = monitor
    qemu.sendall(line + b"\n")
    with anyio.fail_after(PATIENCE_S), pytest.raises(SandboxBroken, match="invalid message"):
        await monitor.execute("x")


@pytest.mark.parametrize("error", [None, 5, "no", [], {"desc": {"a": 1}}, {}, {"desc": "no such device"}])
async def test_a_refusal_of_any_shape_is_a_refusal(monitor, error):
    monitor, qemu = monitor
    qemu.sendall(json.dumps({"error": error, "id": 1}).encode() + b"\n")
    with pytest.raises(SandboxBroken, match="QEMU refused x"):
        await monitor.execute("x")


async def test_a_flood_of_events_does_not_keep_the_event_loop(monitor):
    """350,000 lines in one buffer, each copied from it with all the rest, kept it for half a minute."""
    monitor, qemu = monitor
    qemu.setblocking(False)
    ticks = 0

    async def flood():
        while True:
            await anyio.wait_writable(qemu)
            qemu.send(b"{}\n" * 20_000)

    async def tick():
        nonlocal ticks
        while ticks < 100:
            await anyio.sleep(0.001)
            ticks += 1
        tasks.cancel_scope.cancel()

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood)
            tasks.start_soon(tick)
            await monitor.execute("x")
    assert ticks == 100


async def test_a_line_of_the_console_is_found_behind_many_others():
    async with open_sockets((), console=True) as sockets:
        guest = socket.socket(fileno=sockets.guest_console)
        try:
            guest.sendall(b"\n" * 30_000 + b"silo 1\nsilo 2\nrest")
            first = await sockets.console_line(re.compile(rb"silo (\d)"))
            second = await sockets.console_line(re.compile(rb"silo (\d)"))
            assert (first[1], second[1]) == (b"1", b"2")
        finally:
            guest.detach()
