"""What the tests of the vault share: a folder like a real one, keys, and a vault that is quick to open."""

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
    """A vault object that remembers nothing of an earlier one, as a new process would."""

    def make(key: str | None = KEY, **options) -> Vault:
        return Vault(path, [EnvironmentKey(key)], **options)

    return make


@pytest.fixture
def counted_random() -> Callable[[int], bytes]:
    """Bytes that are different at each call and the same in each run."""
    calls = 0

    def random(size: int) -> bytes:
        nonlocal calls
        calls += 1
        return hashlib.shake_128(calls.to_bytes(4, "big")).digest(size)

    return random


# --- HashiCorp Vault and OpenBao: `hashicorp/` and two files of `keys/` -------------------------------------------------


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
    """One server for all tests. Each mounts what it needs at places of its own."""
    with bao_module.running(tmp_path_factory.mktemp("bao")) as server:
        yield server


@pytest.fixture(scope="session")
def fake_module() -> ModuleType:
    return _module("hashicorp/fake_server.py")


@pytest.fixture
def fake(fake_module: ModuleType) -> Iterator[Any]:
    """A server that answers what it was told to, and fails the test if something else was asked."""
    server = fake_module.FakeServer()
    try:
        yield server
    finally:
        server.close()
    server.check()


class Clock:
    """A monotonic clock that can be put forward, and that pauses put forward too."""

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
    """Make server objects that wait for nothing, and close them at the end."""
    servers: list[HashicorpServer] = []

    def make(address: str, **settings: Any) -> HashicorpServer:
        made = settings_from({"VAULT_ADDR": address}, **settings)
        servers.append(HashicorpServer(made, clock=clock, pause=clock.pause, jitter=lambda: 0.5))
        return servers[-1]

    yield make
    for server in servers:
        server.forget()  # what a test wants to see given back, it closes itself
