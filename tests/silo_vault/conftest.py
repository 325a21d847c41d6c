"""What the tests of the vault share: a folder like a real one, keys, and a vault that is quick to open."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from silo_vault import EnvironmentKey, Vault

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
