"""The port and the thread of the page. `silo_interaction.page.app` is what they serve."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from silo_interaction.page.feed import POLL_S, BoardFeed

HOST = "127.0.0.1"

_BACKLOG = 64
_MAX_CONNECTIONS = 64
"""A browser opens six, and a person uses one or two browsers."""
_REQUEST_TIMEOUT_S = 10.0
"""How long a connection may send nothing, or only part of a request."""
_START_TIMEOUT_S = 20.0
_CLOSE_TIMEOUT_S = 1.0


class Port:
    """A port of 127.0.0.1 that no other process can get from its first use to `close`, even while it is paused.

    A process that listens on a port that used to be ours gets what browsers store for this origin, and its cookies. So
    the socket stays bound, without SO_REUSEADDR: shutdown(2) stops the listening and keeps the address, and listen(2)
    resumes on the same socket. SO_REUSEADDR is set only from just before listen(2), which fails without it while
    earlier connections are in TIME_WAIT.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self.number = 0

    def listen(self) -> tuple[socket.socket, bool]:
        """Start to listen; return a duplicate of the socket, and whether the port is the same as before."""
        if self._socket is not None:
            with suppress(OSError):
                return self._listen(self._socket), True
            self.close()
        self._socket, self.number = _bind()
        return self._listen(self._socket), False

    def pause(self) -> None:
        """Stop listening, but keep the port."""
        if self._socket is None:
            return
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # not every system can shut down a listening socket; the next `listen` takes another port
            self.close()

    def close(self) -> None:
        """Release the port."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @staticmethod
    def _listen(bound: socket.socket) -> socket.socket:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.listen(_BACKLOG)
        return bound.dup()


class ServerThread:
    """A thread with an event loop that serves until `stop`, or until no question has waited for `linger_s`."""

    def __init__(self, app: ASGIApp, feed: BoardFeed, listening: socket.socket, port: Port, *, linger_s: float) -> None:
        """Take the application and a duplicate of the port's socket. In the end close the socket and pause the port."""
        self._feed = feed
        self._socket = listening
        self._port = port
        self._linger_s = linger_s
        self._server = _Server(app)
        self._lock = threading.Lock()
        self._wanted_at = time.monotonic()
        self._is_ending = False
        self._failure: BaseException | None = None
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, name="approval-page", daemon=True)

    def start(self) -> None:
        """Start the thread; return when it serves."""
        self._thread.start()
        if not self._server.is_ready.wait(_START_TIMEOUT_S) or self._failure is not None:
            self.stop()
            raise RuntimeError("the approval page can't be served") from self._failure

    def postpone_end(self) -> bool:
        """Serve for another `linger_s` at least; false if it is too late for that."""
        with self._lock:
            self._wanted_at = time.monotonic()
            return not self._is_ending and self._thread.is_alive()

    def stop(self) -> None:
        """Stop; return when the thread has ended and all connections are closed."""
        with self._lock:
            self._is_ending = True
            self._stop()
        self._thread.join()

    def _run(self) -> None:
        try:
            # This loop needs no other package than the standard library, and closing it closes its sockets.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # the thread ends here; `start` raises the error
            self._failure = error
        finally:
            self._socket.close()
            self._port.pause()
            self._is_ending = True
            self._server.is_ready.set()

    async def _serve(self) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        stopping = asyncio.create_task(stopped.wait())
        sweep = _Sweep(self._server)
        try:
            while not serving.done() and not self._is_over():
                self._feed.poll()
                sweep.close_slow_ones()
                await asyncio.wait([serving, stopping], timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            with self._lock:  # the loop is about to close, and a closed loop can't be woken
                self._stop = lambda: None
            stopping.cancel()
            self._feed.end()
            self._server.should_exit = True
            loop.call_later(_CLOSE_TIMEOUT_S, sweep.close_all)
            await serving
            sweep.close_all()
            await asyncio.sleep(0)  # a transport closes its socket in the loop's next iteration

    def _is_over(self) -> bool:
        with self._lock:
            idle_s = min(self._feed.idle_s, time.monotonic() - self._wanted_at)
            self._is_ending = self._is_ending or idle_s >= self._linger_s
            return self._is_ending


class _Protocol(H11Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Drop the connection if there are too many. uvicorn's own limit would answer it, without our headers."""
        super().connection_made(transport)
        if len(self.connections) > _MAX_CONNECTIONS:
            transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Close the connection: a response to invalid HTTP would lack our headers, and nobody needs one."""
        self.transport.close()


class _Server(uvicorn.Server):
    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,  # addresses hold the secrets of links and sessions
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=5,
            )
        )
        self.is_ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_ready.set()


class _Sweep:
    """Closes connections that are slow to send a request (slow loris): uvicorn has a timeout only between requests."""

    def __init__(self, server: uvicorn.Server) -> None:
        self._server = server
        self._silent_since: dict[_Protocol, tuple[object, float]] = {}

    def close_slow_ones(self) -> None:
        now = time.monotonic()
        silent: dict[_Protocol, tuple[object, float]] = {}
        for connection in self._connections():
            cycle = connection.cycle
            if cycle is not None and not cycle.response_complete:
                continue  # a response is on its way; forms have their own deadline, and streams may stay open
            seen_cycle, since = self._silent_since.get(connection, (cycle, now))
            silent[connection] = (cycle, since if seen_cycle is cycle else now)
            if now - silent[connection][1] > _REQUEST_TIMEOUT_S:
                connection.transport.abort()
        self._silent_since = silent

    def close_all(self) -> None:
        for connection in self._connections():
            connection.transport.abort()

    def _connections(self) -> Sequence[_Protocol]:
        return [connection for connection in self._server.server_state.connections if isinstance(connection, _Protocol)]


def _bind() -> tuple[socket.socket, int]:
    """Return a socket that is bound to a random port, and the port.

    This takes two steps, because shutdown(2) releases a port that the kernel picked, but keeps one that was asked for.
    """
    for _ in range(20):  # another process can take the port between the two steps
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        # asyncio sets TCP_NODELAY only if the protocol is given; without it, a response takes 40 ms longer.
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            bound.bind((HOST, port))
        except OSError:
            bound.close()
        else:
            return bound, port
    raise OSError("no port of 127.0.0.1 can be bound")
