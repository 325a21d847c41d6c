"""The fake engine and clients of both protocol eras, for all tests of the MCP edge."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


def _load(name: str) -> ModuleType:
    """Load a file beside this one; with `--import-mode=importlib` the folder is not on `sys.path`."""
    spec = importlib.util.spec_from_file_location(f"silo_server_tests_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    return _load("fake_engine")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def engine(fakes):
    return fakes.demo_engine()


@pytest.fixture(params=["auto", "legacy"])
def mode(request) -> str:
    """`auto` speaks 2026-07-28 to an in-memory server, `legacy` shakes hands as of 2025-11-25."""
    return request.param


@pytest.fixture
def server_command(monkeypatch) -> list[str]:
    """The command of a server process over the fake engine, to be started in the environment of the test."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # what it buffers before the start is part of the test
    return [sys.executable, "-W", "error", str(HERE / "fake_server.py")]
