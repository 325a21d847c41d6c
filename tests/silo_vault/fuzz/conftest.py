"""Fixtures for the fuzz tests: check one input against the rules and the limits of time and memory."""

from __future__ import annotations

import importlib.util
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

MAX_S = 4.0
"""Processor time for one input of at most 64 KiB, read three times and written once; the slowest takes a hundredth."""
MAX_BYTES = 64 * 1024 * 1024


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("silo_vault_tests_oracle", Path(__file__).with_name("oracle.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def check(oracle: ModuleType) -> Callable[[bytes], Any]:
    """Check one input and how much CPU time it takes. A slow input is measured twice: the machine may be busy."""

    def timed(data: bytes) -> Any:
        for _ in range(2):
            began = time.thread_time()
            document = oracle.check(data)
            took_s = time.thread_time() - began
            if took_s < MAX_S:
                return document
        raise AssertionError(f"{len(data)} bytes took {took_s:.3f} s")

    return timed


@pytest.fixture(scope="session")
def check_memory(oracle: ModuleType) -> Callable[[bytes], None]:
    """Check one input and its peak memory. Slow."""

    def measured(data: bytes) -> None:
        tracemalloc.start()
        try:
            oracle.check(data)
            _, most_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most_bytes < MAX_BYTES, f"{len(data)} bytes took {most_bytes}"

    return measured
