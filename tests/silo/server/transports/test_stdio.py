"""The server as a process: what it writes to its pipes, and how it ends. It uses the fake engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from silo.testing import PATIENCE_S

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class Server:
    """A server process, driven line by line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def send(self, *messages) -> None:
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def receive(self):
        return json.loads(self.process.stdout.readline())

    def call(self, id_, name, arguments=None, **params) -> None:
        params = {"name": name, "arguments": arguments or {}, **params}
        self.send({"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params})

    def handshake(self) -> None:
        self.send(INITIALIZE)
        assert self.receive()["result"]["serverInfo"]["name"] == "silo"
        self.send(INITIALIZED)

    def hang(self) -> None:
        """Start a call that never returns, and wait until it runs."""
        self.call(99, "demo__hang", _meta={"progressToken": 1})
        assert self.receive()["method"] == "notifications/progress"


@contextmanager
def started(command, **kwargs):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kwargs
    with subprocess.Popen(command, **pipes) as process:
        watchdog = threading.Timer(
            PATIENCE_S, process.kill
        )  # an answer that never comes fails the test instead of hanging it
        watchdog.start()
        try:
            yield Server(process)
        finally:
            watchdog.cancel()
            process.kill()


@asynccontextmanager
async def connect(command, log):
    """The official client's own transport, with the server's stderr in a file."""
    program, *arguments = command
    with open(log, "w") as errors:
        async with stdio_client(
            StdioServerParameters(command=program, args=arguments, env=dict(os.environ)), errors
        ) as streams:
            yield streams


@pytest.fixture
def server(server_command):
    with started(server_command) as server:
        yield server


def test_prints_of_any_kind_reach_stderr_and_never_the_protocol(server):
    server.handshake()
    server.call(1, "demo__noisy")
    assert server.receive()["result"]["content"][0]["text"] == "quiet"
    rest, errors = server.process.communicate(timeout=PATIENCE_S)
    assert rest == b""
    for words in (b"printed before anything was claimed", b"from print", b"from descriptor 1", b"from a child"):
        assert words in errors


def test_end_of_stdin_cancels_calls_that_hang_closes_the_engine_and_ends(server):
    server.handshake()
    server.hang()
    _, errors = server.process.communicate(timeout=PATIENCE_S)
    assert server.process.returncode == 0
    assert errors.decode().splitlines()[-2:] == ["the guest is gone", "the engine is closed"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_cancels_calls_that_hang_closes_the_engine_and_ends(server, number, status):
    server.handshake()
    server.hang()
    server.process.send_signal(number)
    assert server.process.wait(timeout=PATIENCE_S) == status
    assert server.process.stderr.read().decode().splitlines()[-2:] == ["the guest is gone", "the engine is closed"]


def test_signal_ends_a_server_that_waits_for_its_first_request(server):
    server.send(INITIALIZE)
    server.receive()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=PATIENCE_S) == 143


def test_client_that_vanishes_without_reading_ends_the_server(server):
    server.handshake()
    server.process.stdout.close()
    server.call(1, "demo__echo", {"text": "x"})
    assert server.process.wait(timeout=PATIENCE_S) == 0


def test_client_that_reads_nothing_cannot_keep_the_server_after_a_signal(server):
    server.handshake()
    for number in range(40):  # far more than the pipe takes
        server.call(number, "demo__echo", {"text": "x" * 50_000})
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=PATIENCE_S) == 143


def test_client_that_reads_nothing_cannot_keep_the_server_after_the_end_of_stdin(server):
    server.handshake()
    server.call(1, "demo__echo", {"text": "x" * 1_000_000})
    server.process.stdin.close()
    assert server.process.wait(timeout=PATIENCE_S) == 0


SENSELESS = [
    (b"garbage", -32700, None),
    (b"\xff\xfe", -32700, None),
    (b'{"jsonrpc": "2.0", "id": 7', -32700, None),
    (b"[" * 100_000, -32700, None),
    (b"[]", -32600, None),
    (b'"text"', -32600, None),
    (b'{"jsonrpc": "2.0", "id": "q", "method": 5}', -32600, "q"),
    (b'{"jsonrpc": "1.0", "id": 7, "method": "ping"}', -32600, 7),
    (b'{"jsonrpc": "2.0", "id": true}', -32600, None),
    (b'{"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": {}}', -32602, 8),
    (b'{"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "x", "arguments": []}}', -32602, 9),
    (b'{"jsonrpc": "2.0", "id": 10, "method": "no/such"}', -32601, 10),
]
"""Lines, and the code and id of the error that answers them (JSON-RPC 2.0 §5.1)."""


def test_senseless_line_gets_an_error_and_the_server_goes_on(server):
    server.handshake()
    for line, code, identity in SENSELESS:
        server.send(line)
        answer = server.receive()
        assert (answer["error"]["code"], answer["id"]) == (code, identity), line[:80]
        server.call(1, "demo__echo", {"text": "still here"})
        assert server.receive()["result"]["content"][0]["text"] == "still here", line[:80]


def test_lone_surrogate_in_a_request_does_not_end_the_server(server):
    server.handshake()
    server.send(
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "demo__echo", '
        b'"arguments": {"text": "\\ud800"}}}'
    )
    assert server.receive()["id"] in {1, None}
    server.call(2, "demo__echo", {"text": "still here"})
    assert server.receive()["result"]["content"][0]["text"] == "still here"


def test_request_before_the_handshake_is_refused(server):
    server.call(1, "demo__echo")
    assert "error" in server.receive()
    server.handshake()


def test_cancelled_request_gets_no_answer_and_its_guest_ends(server):
    server.handshake()
    server.hang()
    server.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}})
    assert server.process.stderr.readline() == b"printed before anything was claimed\n"
    assert server.process.stderr.readline() == b"the guest is gone\n"
    server.call(2, "demo__echo", {"text": "next"})
    assert server.receive()["id"] == 2


def test_answers_come_as_they_are_ready_not_in_the_order_of_requests(server):
    server.handshake()
    server.hang()
    server.call(2, "demo__echo")
    assert server.receive()["id"] == 2


def test_stdin_that_is_closed_is_a_usage_error_with_a_hint(server_command):
    script = 'exec "$@" <&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *server_command], capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode != 0
    assert b"stdin and stdout must be open" in done.stderr


def test_requests_from_a_file_are_answered_into_a_file(server_command, tmp_path):
    """Regular files can't be polled; `silo mcp serve < requests > answers` is how people look at a server by hand."""
    requests, answers = tmp_path / "in", tmp_path / "out"
    requests.write_bytes(b"".join(json.dumps(message).encode() + b"\n" for message in (INITIALIZE, INITIALIZED)))
    with open(requests, "rb") as stdin, open(answers, "wb") as stdout:
        subprocess.run(
            server_command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=PATIENCE_S, check=True
        )
    (answer,) = answers.read_text().splitlines()
    assert json.loads(answer)["id"] == 0


def test_protocol_descriptors_are_not_inherited_by_children(server):
    server.handshake()
    process = Path(f"/proc/{server.process.pid}")
    protocol = {
        Path(f"/proc/self/fd/{pipe.fileno()}").readlink() for pipe in (server.process.stdin, server.process.stdout)
    }
    private = {int(entry.name) for entry in (process / "fd").iterdir() if entry.readlink() in protocol}
    assert private
    assert not private & {0, 1, 2}
    for number in private:
        (flags,) = [line for line in (process / "fdinfo" / str(number)).read_text().splitlines() if "flags" in line]
        assert int(flags.split()[1], 8) & os.O_CLOEXEC


@pytest.mark.anyio
async def test_official_client_talks_to_the_process_in_both_eras(server_command, mode, tmp_path):
    log = tmp_path / "stderr"
    seen = []

    async def on_progress(progress, total, message):
        seen.append(message)

    with anyio.fail_after(PATIENCE_S):
        async with Client(connect(server_command, log), mode=mode) as client:
            assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
            assert "demo__add" in [tool.name for tool in (await client.list_tools()).tools]
            assert (await client.call_tool("demo__add", {"a": 1, "b": 2})).structured_content == {"result": 3}
            await client.call_tool("demo__steps", progress_callback=on_progress)
            with pytest.raises(Exception, match=r"[Tt]imed out"):
                await client.call_tool("demo__hang", read_timeout_seconds=0.1)
            crash = await client.call_tool("demo__crash")
            assert "SECRET-IN-EXCEPTION" not in crash.model_dump_json()
    assert seen[-1] == "step 3"
    assert "the guest is gone" in log.read_text()


@pytest.mark.anyio
async def test_process_announces_a_skill_that_another_process_installs(server_command, tmp_path, mode):
    skills = tmp_path / "skills"
    skills.mkdir()
    transport = connect([*server_command, str(skills)], tmp_path / "stderr")
    news = anyio.Event()

    async def on_message(message):
        if message.method == "notifications/tools/list_changed":
            news.set()

    async with Client(transport, mode=mode, message_handler=on_message) as client:
        assert "late__echo" not in [tool.name for tool in (await client.list_tools()).tools]
        async with anyio.create_task_group() as tasks:
            if mode == "auto":
                ready = anyio.Event()

                async def listen():
                    async with client.listen(tools_list_changed=True) as events:
                        ready.set()
                        async for _ in events:
                            news.set()

                tasks.start_soon(listen)
                await ready.wait()
            (skills / "late").mkdir()
            (skills / "late" / "current").symlink_to("0123")
            with anyio.fail_after(PATIENCE_S):
                await news.wait()
            tasks.cancel_scope.cancel()
        assert "late__echo" in [tool.name for tool in (await client.list_tools()).tools]


def test_serving_loads_no_client_and_no_http_stack(server_command):
    """A server on stdio doesn't need half of `import mcp`, and every client waits for it."""
    program = (
        "import runpy, sys, atexit\n"
        "atexit.register(lambda: print('loaded', *sorted(sys.modules), file=sys.stderr))\n"
        f"sys.path.insert(0, {str(Path(server_command[-1]).parent)!r})\n"
        f"runpy.run_path({server_command[-1]!r}, run_name='__main__')\n"
    )
    with started([sys.executable, "-c", program]) as server:
        server.handshake()
        server.send({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        assert server.receive()["result"]["tools"]
        _, errors = server.process.communicate(timeout=PATIENCE_S)
    loaded = next(line for line in errors.decode().splitlines() if line.startswith("loaded ")).split()
    assert "mcp.server.lowlevel.server" in loaded
    assert not {"mcp.client.client", "mcp.server.mcpserver", "httpx2", "jsonschema", "typer"} & set(loaded)


@pytest.mark.parametrize("moment", ["made", "opened"])
def test_engine_that_does_not_open_fails_with_its_own_error(moment):
    """A task group would wrap it into an ExceptionGroup, and the command line would call it a bug."""
    program = f"""
import contextlib, sys
from silo.errors import HomeUnsafe
from silo.server.engine import ServerOptions
from silo.server.transports.stdio import serve

error = HomeUnsafe("others can write to it", hint="chmod 700")

@contextlib.asynccontextmanager
async def opens():
    raise error
    yield

def makes():
    if {moment!r} == "made":
        raise error
    return opens()

try:
    serve(makes, ServerOptions(version="0"))
except HomeUnsafe as caught:
    print("restored", caught.code)
"""
    done = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert done.stdout == b"restored home-unsafe\n"
