"""Fixtures of the end-to-end tests: a state folder that the real command line filled, and this machine's processes.

Nothing here is a fake: `python -m silo` runs as a child process with its own environment, and guests are microVMs.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
T = TypeVar("T")

FIRST_KEY, SECOND_KEY = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Silo:
    """An isolated silo: an environment with its own state folder, and none of the user's files."""

    home: Path
    environ: Mapping[str, str]
    secrets: Mapping[str, str]

    command = (sys.executable, "-m", "silo")

    def run(self, *arguments: str, stdin: str | bytes = b"", status: int | None = 0, **changes: Any) -> Done:
        """Run a command to its end; `status=None` accepts any status. `environ` is added to the silo's own."""
        environ = {**self.environ, **changes.pop("environ", {})}
        done = subprocess.run(
            [*changes.pop("prefix", ()), *self.command, *arguments],
            env=environ,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
            **changes,
        )
        out, err = done.stdout.decode(), done.stderr.decode()
        assert status is None or done.returncode == status, (
            f"status {done.returncode} of silo {arguments}: {out}\n{err}"
        )
        # Steps are announced only if they take long, which depends on the machine.
        return Done(
            done.returncode, out, re.sub(r"^silo: (?!error|hint|warning).+ \.\.\.\n", "", err, flags=re.MULTILINE)
        )

    def start(self, *arguments: str, **changes: Any) -> subprocess.Popen[bytes]:
        """Start a command in its own process group."""
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [*self.command, *arguments], env=dict(self.environ), start_new_session=True, **{**streams, **changes}
        )

    def configure(self, text: str) -> None:
        """Write `silo.toml`."""
        path = self.home / "silo.toml"
        path.write_text(text)
        path.chmod(0o600)

    def installed(self) -> set[str]:
        """Return what `silo list` shows."""
        return {skill["namespace"] for skill in json.loads(self.run("list", "--json").out)["skills"]}


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def new_silo(kernel_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Silo]:
    """Make a silo with nothing installed; its user's home folder is empty."""

    def make() -> Silo:
        root = tmp_path_factory.mktemp("silo")
        for name in ("user", "tmp"):
            (root / name).mkdir(mode=0o700)
        environ = {
            "HOME": str(root / "user"),
            "TMPDIR": str(root / "tmp"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            # uv gets the machine's settings for package indexes; its cache is kept between runs.
            **{name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_CERT_"))},
            "UV_CACHE_DIR": str(REPOSITORY / ".cache" / "uv"),
            "SILO_HOME": str(root / "state"),
            "SILO_KERNEL": str(kernel_folder),
            "SILO_MASTER_KEY": secrets.token_hex(32),
        }
        return Silo(root / "state", environ, {"FIRST_KEY": FIRST_KEY, "SECOND_KEY": SECOND_KEY})

    return make


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder from which agents may hand files to tools."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def settings(shared: Path) -> str:
    """The `silo.toml` of the tests: no warm guests, so that each guest is a call; all tools listed.

    Without a control group, the few tests of the namespace backend run all the same.
    """
    sandbox = '[sandbox]\nwarm = 0\nallow_unlimited = ["memory"]\n'
    return f'{sandbox}[files]\nallow_read = ["{shared}"]\n[server]\ndirect_budget_tokens = 100_000\n'


@pytest.fixture(scope="session")
def filled(
    new_silo: Callable[[], Silo],
    settings: str,
    one_worker: Callable[[str], AbstractContextManager[None]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Silo]:
    """A silo with `jwt`, `table`, `tricky` and `hasty` and their secrets, set up by the commands that a user types.

    It takes a minute to fill, so one worker does, and each works on a copy.
    """
    base = tmp_path_factory.getbasetemp()
    original = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "filled"
    with one_worker("filled"):
        is_ours = not original.exists()
        if is_ours:
            _fill(new_silo(), original)
        silo = _copy_of(original, new_silo())
    silo.configure(settings)
    yield silo
    shutil.rmtree(silo.home.parent)  # hundreds of MB, and pytest would keep three of them
    if is_ours:
        with one_worker("filled"):
            shutil.rmtree(original)


def _fill(silo: Silo, target: Path) -> None:
    """Install skills and add secrets, then move the folder to `target`, which is complete or absent."""
    sources = ("jwt", "table", *(str(HERE / "skills" / name) for name in ("tricky.py", "hasty.py")))
    # All at once, which is faster on two cores than one after the other.
    installs = [silo.start("install", source, "--yes", stdin=subprocess.DEVNULL) for source in sources]
    for process in installs:
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said.decode()
    # Afterwards: `--yes` installs nothing that would get a secret.
    for name, value in {"JWT_KEY": secrets.token_urlsafe(48), **silo.secrets}.items():
        silo.run("vault", "add", name, stdin=value)
    known = {"key": silo.environ["SILO_MASTER_KEY"], "secrets": silo.secrets}
    (silo.home.parent / "known.json").write_text(json.dumps(known))
    silo.home.parent.rename(target)


def _copy_of(original: Path, silo: Silo) -> Silo:
    root = silo.home.parent
    shutil.rmtree(root)
    shutil.copytree(original, root, symlinks=True)
    known = json.loads((root / "known.json").read_text())
    (root / "known.json").unlink()
    return replace(silo, environ={**silo.environ, "SILO_MASTER_KEY": known["key"]}, secrets=known["secrets"])


@pytest.fixture
def silo(filled: Silo, settings: str) -> Silo:
    """The filled silo, with its original settings."""
    filled.configure(settings)
    return filled


# --- processes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """A process of this machine; its start time tells it from a later process with the same id."""

    pid: int
    started: int
    name: str

    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        found = _stat(self.pid)
        return found is not None and found[:1] == (self.started,) and found[2] not in "ZX"


def _stat(pid: int) -> tuple[int, int, str, str] | None:
    """Return start time, parent, state and name of a process (`man 5 proc`)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return int(fields[19]), int(fields[1]), fields[0], head.partition("(")[2]


class Processes:
    """The tree of processes, from `/proc`."""

    def below(self, pid: int) -> set[Process]:
        """Return all descendants of a process."""
        parents: dict[int, list[tuple[int, int, str]]] = {}
        for number in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            if (found := _stat(number)) is not None and found[2] not in "ZX":
                parents.setdefault(found[1], []).append((number, found[0], found[3]))
        descendants: set[Process] = set()
        todo = [pid]
        while todo:
            for number, started, name in parents.get(todo.pop(), []):
                descendants.add(Process(number, started, name))
                todo.append(number)
        return descendants

    def guests(self, pid: int) -> set[Process]:
        """Return the descendants that are bubblewrap, or run in one."""
        confined = {process for process in self.below(pid) if process.name == "bwrap"}
        return confined.union(*(self.below(process.pid) for process in confined))

    def server_of(self, pid: int) -> int:
        """Return the one `silo mcp serve` that a process has started."""
        below = {process.pid for process in self.below(pid) if _parent(process) == pid}
        (server,) = {child for child in below if Path(f"/proc/{child}/cmdline").read_bytes().endswith(b"mcp\0serve\0")}
        return server

    def wait_gone(self, processes: set[Process]) -> None:
        """Wait until none of them is alive.

        Raises:
            AssertionError: some are still alive after minutes.
        """
        assert processes, "there was nothing to wait for"
        until(lambda: not any(process.is_alive() for process in processes), PATIENCE_S, "processes are left")


def _parent(process: Process) -> int | None:
    found = _stat(process.pid)
    return None if found is None else found[1]


def until(look: Callable[[], T], within_s: float, otherwise: str) -> T:
    """Poll until something is found, and return it; for conditions without an event."""
    end = time.monotonic() + within_s
    pause = threading.Event()
    while not (found := look()):
        assert time.monotonic() < end, f"{otherwise}, after {within_s:g} s"
        pause.wait(0.01)
    return found


@pytest.fixture(scope="session")
def processes() -> Processes:
    return Processes()


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], T], float, str], T]:
    return until


# --- a client that sends and reads bytes ------------------------------------------------------------------------------


class RawServer:
    """`silo mcp serve` as a child that gets lines of JSON-RPC (2025-11-25), so that tests see every byte of stdout."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server hung up"
        return json.loads(line)

    def handshake(self) -> None:
        client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        self.send({"id": 0, "method": "initialize", "params": client})
        assert self.receive()["id"] == 0
        self.send({"method": "notifications/initialized"})

    def call(self, identity: int, tool: str, arguments: Mapping[str, Any] | None = None) -> None:
        params = {"name": tool, "arguments": arguments or {}, "_meta": {"progressToken": identity}}
        self.send({"id": identity, "method": "tools/call", "params": params})

    def hang(self) -> None:
        """Start a call that never returns, and wait until its guest says that it runs."""
        self.call(99, "tricky__hang")
        assert self.receive()["params"]["message"] == "hanging"


@pytest.fixture
def serve(silo: Silo) -> Callable[[], AbstractContextManager[RawServer]]:
    """Start a server: `with serve() as server`."""
    return lambda: _served(silo)


@pytest.fixture
def raw_server(silo: Silo) -> Iterator[RawServer]:
    with _served(silo) as server:
        server.handshake()
        yield server


@contextmanager
def _served(silo: Silo) -> Iterator[RawServer]:
    with silo.start("mcp", "serve") as process:
        watchdog = threading.Timer(PATIENCE_S, process.kill)  # an answer that never comes fails the test
        watchdog.start()
        try:
            yield RawServer(process)
        finally:
            watchdog.cancel()
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


@pytest.fixture(scope="session")
def list_files() -> Callable[[Sequence[Path]], set[str]]:
    """Name every file below some folders."""
    return lambda folders: {str(path) for folder in folders for path in folder.rglob("*")}
