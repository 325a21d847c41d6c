"""The server as a process: it claims stdin and stdout, and runs until the client leaves or a signal arrives.

Stdout is claimed first, so slow modules are imported where they are used: `mcp`, `pydantic` and `silo.server.protocol`.
`serve` loads them as quickly as `silo.server.transports.startup` can. `tests/cli/test_startup_imports.py` checks what a
start loads.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import anyio

from silo.errors import SiloError
from silo.server.engine import Engine, ServerOptions
from silo.server.transports.startup import fast_imports
from silo.server.transports.streams import LineTooLong, Pipes, claimed, lines, write

if TYPE_CHECKING:
    from anyio.abc import ObjectReceiveStream, ObjectSendStream
    from mcp.shared.message import SessionMessage
    from mcp.types import JSONRPCError, JSONRPCMessage

_log = logging.getLogger(__name__)

FLUSH_S = 0.5
"""How long answers may still be written after the client closed stdin: half of the longest
time that silo takes to end."""

OpenEngine = Callable[[], AbstractAsyncContextManager[Engine]]
"""Makes the engine, e.g. a function that imports `Runtime` and returns `Runtime(home=home)`. It is called after stdout
is claimed, where imports are fast, and before the event loop runs. Its result is entered on the loop."""


def serve(open_engine: OpenEngine, options: ServerOptions) -> int:
    """Serve one client over this process's stdin and stdout; return the exit status.

    0: the client closed stdin, or stopped reading stdout. 130 and 143: SIGINT and SIGTERM. In each case, running calls
    are cancelled and the engine is closed. A second signal meanwhile has its usual effect. Logs go to stderr.

    Raises:
        SiloError: the engine could not be opened, or stdin or stdout is closed.
    """
    with claimed() as pipes:
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="silo: %(levelname)s: %(message)s")
        with fast_imports():
            import silo.server.protocol.app  # noqa: F401 - loaded here, where imports are fast

            opening = open_engine()
        return anyio.run(_serve, opening, options, pipes)


async def _serve(opening: AbstractAsyncContextManager[Engine], options: ServerOptions, pipes: Pipes) -> int:
    status = 0
    failure: SiloError | None = None

    async def end_on_signal(scope: anyio.CancelScope) -> None:
        nonlocal status
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                status = 128 + number
                scope.cancel()
                return

    async with anyio.create_task_group() as tasks:
        # Before the engine is opened, so that a signal during that leaves nothing behind either.
        tasks.start_soon(end_on_signal, tasks.cancel_scope)
        try:
            async with opening as engine:
                await serve_stdio(engine, options, pipes)
        except SiloError as error:  # raised again below; the task group would wrap it into a group
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return status


async def serve_stdio(engine: Engine, options: ServerOptions, pipes: Pipes) -> None:
    """Serve one client on `pipes` until it closes its end, or until cancelled. Then running calls end.

    This is for programs with their own event loop and engine; `serve` is for a process that does nothing else.
    """
    from mcp.shared.message import SessionMessage

    from silo.server.protocol.app import build_server

    server = build_server(engine, options)
    to_server, requests = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    to_client, answers = anyio.create_memory_object_stream[SessionMessage](0)
    async with anyio.create_task_group() as reading:
        reading.start_soon(_receive, pipes.read_fd, to_server, to_client.clone())
        async with anyio.create_task_group() as writing:
            writing.start_soon(_send, pipes.write_fd, answers, reading.cancel_scope)
            # Returns when `requests` ends, after cancelling the calls that still run and closing `to_client`.
            await server.run(requests, to_client, server.create_initialization_options())
            writing.cancel_scope.deadline = anyio.current_time() + FLUSH_S
        reading.cancel_scope.cancel()


async def _receive(
    fd: int,
    to_server: ObjectSendStream[SessionMessage | Exception],
    to_client: ObjectSendStream[SessionMessage],
) -> None:
    from mcp.shared.message import SessionMessage
    from mcp.types import jsonrpc_message_adapter
    from pydantic import ValidationError

    async with to_server, to_client:
        try:
            async for line in lines(fd):
                if isinstance(line, LineTooLong):
                    await to_client.send(SessionMessage(_refusal(b"", str(line))))
                    continue
                try:
                    message: JSONRPCMessage = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValidationError:
                    await to_client.send(SessionMessage(_refusal(line, "not a JSON-RPC 2.0 message")))
                    continue
                await to_server.send(SessionMessage(message))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # the server ended first


async def _send(fd: int, answers: ObjectReceiveStream[SessionMessage], everything: anyio.CancelScope) -> None:
    async with answers:
        async for answer in answers:
            try:
                await write(fd, _encode(answer.message) + b"\n")
            except OSError as error:
                _log.info("the client stopped reading: %s", error)
                everything.cancel()
                return


def _encode(message: JSONRPCMessage) -> bytes:
    """Return the line for `message`. One that can't be encoded becomes an error, so that the connection stays."""
    from mcp.types import INTERNAL_ERROR, ErrorData, JSONRPCError, JSONRPCResponse

    try:
        return message.model_dump_json(by_alias=True, exclude_unset=True).encode()
    except ValueError:
        _log.exception("an answer could not be encoded")
        identity = message.id if isinstance(message, JSONRPCResponse) else None
        error = ErrorData(code=INTERNAL_ERROR, message="silo made an answer that is not JSON")
        return JSONRPCError(jsonrpc="2.0", id=identity, error=error).model_dump_json(exclude_unset=True).encode()


def _refusal(line: bytes, why: str) -> JSONRPCError:
    """Return the error for an invalid line, with its id if it has one, so that the client does not wait for ever."""
    from mcp.types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError

    identity: str | int | None = None
    code = PARSE_ERROR
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        pass
    else:
        code = INVALID_REQUEST
        given = value.get("id") if isinstance(value, dict) else None
        if isinstance(given, str | int) and not isinstance(given, bool):
            identity = given
    return JSONRPCError(jsonrpc="2.0", id=identity, error=ErrorData(code=code, message=why))
