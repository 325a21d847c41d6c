"""A strict server for cases that a real server can't produce on demand. It only answers expected requests, in order.

The cases are hangs, broken and hostile answers, bad certificates, and Kubernetes, because there is no cluster here.
"""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Callable

WAIT_S = 300.0
"""How long a handler runs at most if a test forgets to close the server."""


class FakeServer:
    """Listens on loopback in its own thread. `check` fails if the requests were not the expected ones."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.closing = threading.Event()
        self.requests: list[tuple[str, str, dict[str, str], dict]] = []
        self._expected: list[tuple[str, str, Callable]] = []
        self._wrong: list[str] = []
        self._lock = threading.Lock()
        self._server = _Listener(self, context)
        self.port = self._server.server_address[1]
        self.address = f"{'http' if context is None else 'https'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def expect(self, method: str, path: str, status: int = 200, body: object = None, times: int = 1, **headers: str):
        """Expect a request, and answer it with a status and a body (bytes unchanged, anything else as JSON)."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()

        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        self.expect_raw(method, path, answer, times=times)

    def expect_raw(self, method: str, path: str, answer: Callable, *, times: int = 1) -> None:
        """Expect a request, and let this function use the connection."""
        self._expected += [(method, f"/v1/{path}", answer)] * times

    def expect_hang(self, method: str, path: str, *, times: int = 1) -> None:
        """Expect a request, and never answer."""
        self.expect_raw(method, path, lambda handler: self.closing.wait(WAIT_S), times=times)

    def expect_drip(self, method: str, path: str, head: bytes, drop: bytes, *, times: int = 1) -> None:
        """Expect a request, and answer with the head, then with one drop after another until the client hangs up."""

        def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.wfile.write(head)
            while not self.closing.wait(0.02):
                handler.wfile.write(drop)

        self.expect_raw(method, path, answer, times=times)

    def close(self) -> None:
        """Stop the server, and wait for all handlers to end."""
        self.closing.set()
        self._server.shutdown()
        self._thread.join(WAIT_S)
        self._server.server_close()

    def check(self) -> None:
        """Fail if there was an unexpected request, or if an expected one is missing."""
        assert not self._wrong, self._wrong
        assert not self._expected, [entry[:2] for entry in self._expected]

    def handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else {}
        with self._lock:
            self.requests.append((handler.command, handler.path, dict(handler.headers), body))
            is_expected = bool(self._expected) and self._expected[0][:2] == (handler.command, handler.path)
            answer = self._expected.pop(0)[2] if is_expected else None
            if answer is None:
                self._wrong.append(f"{handler.command} {handler.path}")
        if answer is None:
            raise AssertionError(f"nobody expects {handler.command} {handler.path}")
        answer(handler)


class _Listener(http.server.ThreadingHTTPServer):
    daemon_threads = False  # so that `server_close` waits for the handlers

    def __init__(self, fake: FakeServer, context: ssl.SSLContext | None) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.handle(self)

            do_POST = do_GET  # noqa: N815 - the name that http.server calls

            def log_message(self, *arguments: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self._context = context

    def get_request(self):
        sock, address = super().get_request()
        sock.settimeout(WAIT_S)
        if self._context is not None:  # the handler's thread does the handshake, when it reads the first byte
            sock = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, address

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # tests make clients hang up; `check` reports unexpected requests
