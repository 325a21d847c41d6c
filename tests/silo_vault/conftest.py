"""Fixtures for the tests of the vault: a folder like a real one, keys, and a vault that opens quickly."""

import hashlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from silo_vault import EnvironmentKey, Vault
from silo_vault.hashicorp import HashicorpServer, settings_from

KEY = "00112233445566778899aabbccddeeff" * 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    place.mkdir(mode=0o700)
    return place


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "credentials.silo"


@pytest.fixture
def open_vault(path: Path) -> Callable[..., Vault]:
    """Makes a vault object without any state of earlier ones, as in a new process."""

    def make(key: str | None = KEY, **options) -> Vault:
        return Vault(path, [EnvironmentKey(key)], **options)

    return make


@pytest.fixture
def counted_random() -> Callable[[int], bytes]:
    """Bytes that differ from call to call, but not from run to run."""
    calls = 0

    def random(size: int) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.shake_128(calls.to_bytes(4, "big")).digest(size)

    return random


# --- HashiCorp Vault and OpenBao: `hashicorp/` and two files of `keys/` -----------------------------------------------


def _module(path: str) -> ModuleType:
    place = Path(__file__).parent / path
    spec = importlib.util.spec_from_file_location(f"silo_vault_tests_{place.stem}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def bao_module() -> ModuleType:
    return _module("hashicorp/bao.py")


@pytest.fixture(scope="session")
def bao(bao_module: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One server for all tests. Each test mounts what it needs at its own paths."""
    with bao_module.running(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture(scope="session")
def fake_module() -> ModuleType:
    return _module("hashicorp/fake_server.py")


@pytest.fixture
def fake(fake_module: ModuleType) -> Iterator[Any]:
    """A server with prepared answers. The test fails if it gets other requests than it expects."""
    server = fake_module.FakeServer()
    try:
        yield server
    finally:
        server.close()
    server.check()


class Clock:
    """A monotonic clock that tests can advance. A pause advances it instead of waiting."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s

    def pause(self, wait_s: float) -> None:
        self.pauses.append(wait_s)
        self.ahead_s += wait_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connect(clock: Clock) -> Iterator[Callable[..., HashicorpServer]]:
    """Makes server objects that never wait, and forgets them at the end."""
    servers: list[HashicorpServer] = []

    def make(address: str, **settings: Any) -> HashicorpServer:
        made = settings_from({"VAULT_ADDR": address}, **settings)
        servers.append(HashicorpServer(made, clock=clock, pause=clock.pause, jitter=lambda: 0.5))
        return servers[-1]

    yield make
    for server in servers:
        server.forget()  # a test that checks how a token is revoked calls `close` itself
