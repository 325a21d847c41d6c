"""One HTTP exchange through `hvac`, limited in time and size. `messages` parses the answer; `attempts` tries again.

Only this module imports `hvac`, and the first request loads it. `hvac` builds the request. The sockets are our own,
because those of `requests` can't limit the total time: their read timeout starts again with each byte, so a server that
sends one byte a second would never time out.
"""

from __future__ import annotations

import http.client
import io
import queue
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from hvac.adapters import RawAdapter  # type: ignore[import-untyped]
from requests import PreparedRequest, Response, Session
from requests.adapters import BaseAdapter

from silo_vault.errors import VaultLocked
from silo_vault.hashicorp.messages import MAX_BODY_BYTES, NoServerAnswer, ServerAnswer, ServerRequest
from silo_vault.hashicorp.settings import ServerSettings


class Transport:
    """Sends requests to one server. Each has its own connection: nothing stays open, and threads share nothing."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    def exchange(self, request: ServerRequest, *, timeout_s: float) -> ServerAnswer:
        """Return the server's answer, whatever its status. Redirects are not followed.

        Args:
            request: what is sent.
            timeout_s: for the whole exchange.

        Raises:
            NoServerAnswer: there is no complete answer in time, or it is larger than `MAX_BODY_BYTES`.
            VaultLocked: a certificate named in the settings can't be read.
        """
        settings = self._settings
        with Session() as session:
            session.trust_env = False  # else ~/.netrc, and proxies and CAs from the environment, would be used
            session.headers.clear()
            session.headers.update({"User-Agent": "silo-vault", "Accept-Encoding": "identity", "Connection": "close"})
            session.adapters.clear()
            bounded = _Bounded(settings)  # it always connects to the server of the settings
            session.mount("https://", bounded)
            session.mount("http://", bounded)
            adapter = RawAdapter(
                base_uri=settings.address,
                token=request.token,
                namespace=settings.namespace or None,
                session=session,
                allow_redirects=False,
                timeout=timeout_s,
            )
            response = cast(
                "Response",
                adapter.request(request.method, f"/v1/{request.path}", raise_exception=False, json=request.body),
            )
        return ServerAnswer.parse(
            settings.address,
            response.status_code,
            response.content,
            retry_after=response.headers.get("Retry-After"),
        )


class _Bounded(BaseAdapter):
    """An adapter of `requests` that applies one deadline to the whole exchange."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__()
        self._settings = settings

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,
        timeout: Any = None,  # noqa: ANN401 - as in `requests`; always the number that `exchange` gave
        verify: bool | str = True,
        cert: Any = None,  # noqa: ANN401 - as in `requests`; certificates come from the settings
        proxies: Mapping[str, str] | None = None,
    ) -> Response:
        """As `BaseAdapter.send`, but ignores `stream`, `verify`, `cert` and `proxies`."""
        assert request.method is not None
        body = request.body
        assert body is None or isinstance(body, bytes)
        deadline = time.monotonic() + timeout
        parts = urlsplit(self._settings.address)
        assert parts.hostname is not None
        context = _context(self._settings) if parts.scheme == "https" else None
        port = parts.port or (80 if context is None else 443)
        sock = _connect(parts.hostname, port, deadline)
        was_sent = False
        try:
            if context is not None:
                sock.settimeout(_remaining(deadline))
                # OpenSSL treats the timeout as a deadline for each call, so a slow handshake ends too.
                sock = context.wrap_socket(sock, server_hostname=self._settings.tls_server_name or parts.hostname)
            connection = http.client.HTTPConnection(parts.hostname, port)
            connection.sock = cast("socket.socket", _Deadlined(sock, deadline))
            was_sent = True
            connection.request(request.method, request.path_url, body=body, headers=dict(request.headers))
            with connection.getresponse() as answer:
                return _response(answer, _read(answer))
        except ssl.SSLCertVerificationError as error:
            raise NoServerAnswer(
                f"its certificate was not accepted: {error.verify_message}",
                hint="set VAULT_CACERT to the CA that signed it, "
                "and VAULT_TLS_SERVER_NAME to the name in it if that differs from the host",
                is_final=True,
            ) from None
        except ssl.SSLError as error:
            raise NoServerAnswer(
                f"TLS failed ({error.reason})",
                hint="check whether the server speaks TLS on this port, and whether it needs VAULT_CLIENT_CERT",
                was_sent=was_sent,
                is_final=True,
            ) from None
        except TimeoutError:
            raise _late(was_sent=was_sent) from None
        except OSError as error:
            raise NoServerAnswer(
                f"the connection broke ({error.strerror or type(error).__name__})", was_sent=was_sent
            ) from None
        except http.client.HTTPException as error:
            # `from None` and no text: the message may quote what was received.
            raise NoServerAnswer(f"it did not speak HTTP ({type(error).__name__})", was_sent=was_sent) from None
        finally:
            sock.close()

    def close(self) -> None:
        """Do nothing: no connection stays open."""


class _Deadlined:
    """The part of a socket that `http.client` uses, with one deadline for all waits."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        """As `socket.sendall`."""
        self._sock.settimeout(_remaining(self._deadline))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        """As `socket.makefile`, for reading."""
        assert mode == "rb"
        return io.BufferedReader(_Reader(self._sock, self._deadline))

    def close(self) -> None:
        """Do nothing: `_Bounded.send` closes the socket."""


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - typeshed's WriteableBuffer is not there at run time
        self._sock.settimeout(_remaining(self._deadline))
        return self._sock.recv_into(buffer)


def _remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _late(*, was_sent: bool) -> NoServerAnswer:
    return NoServerAnswer("it did not answer in time", was_sent=was_sent)


def _connect(host: str, port: int, deadline: float) -> socket.socket:
    problem: OSError = TimeoutError()
    for family, kind, protocol, _, address in _resolve(host, port, deadline):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_remaining(deadline))
            sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
        else:
            return sock
    if isinstance(problem, TimeoutError):
        raise _late(was_sent=False)
    raise NoServerAnswer(f"the connection failed ({problem.strerror or type(problem).__name__})")


def _resolve(host: str, port: int, deadline: float) -> list[Any]:
    """Return the addresses of a host.

    The look-up can't be interrupted, so it runs in its own thread, which is abandoned at the deadline.
    """
    results: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            results.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            results.put(error)

    threading.Thread(target=look_up, name="silo-vault-resolver", daemon=True).start()
    try:
        found = results.get(timeout=max(deadline - time.monotonic(), 0.001))
    except queue.Empty:
        raise NoServerAnswer("its name was not resolved in time") from None
    if isinstance(found, Exception):
        raise NoServerAnswer("its name can't be resolved") from None
    return found


def _context(settings: ServerSettings) -> ssl.SSLContext:
    # Made for each connection, so that certificates that were replaced on disk are used.
    cafile, capath = settings.ca_cert, settings.ca_path
    try:
        context = ssl.create_default_context(
            cafile=None if cafile is None else str(cafile), capath=None if capath is None else str(capath)
        )
        if settings.client_cert:
            # Without a password function OpenSSL would ask on the terminal.
            context.load_cert_chain(settings.client_cert, settings.client_key, password=lambda: "")
    except OSError as error:  # SSLError is a subclass
        raise VaultLocked(
            f"a certificate or its key can't be used: {error.strerror or type(error).__name__}",
            hint="check that VAULT_CACERT, VAULT_CAPATH, VAULT_CLIENT_CERT and VAULT_CLIENT_KEY name PEM files "
            "without a passphrase",
        ) from None
    if settings.skip_verify:  # on this machine only, which `ServerSettings` checks
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _read(answer: http.client.HTTPResponse) -> bytes:
    if answer.length is None and not answer.chunked:
        # The answer would then end with the connection, and anyone who can cut that could truncate the answer.
        raise NoServerAnswer("it did not speak HTTP (no length)", was_sent=True)
    body = answer.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise NoServerAnswer(
            f"its answer is larger than {MAX_BODY_BYTES} bytes",
            hint="check whether VAULT_ADDR is right",
            was_sent=True,
            is_final=True,
        )
    if answer.length:  # `read` with a size doesn't report an early end
        raise NoServerAnswer("the connection broke within the answer", was_sent=True)
    return body


def _response(answer: http.client.HTTPResponse, body: bytes) -> Response:
    response = Response()
    response.status_code = answer.status
    response._content = body  # how an adapter without urllib3 passes a body to `requests`
    response._content_consumed = True
    # No other header is passed on, because `requests` acts on some even without redirects.
    if retry_after := answer.getheader("Retry-After"):
        response.headers["Retry-After"] = retry_after
    return response
