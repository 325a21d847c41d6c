"""Fixtures for the tests of imports and exports: the golden files, and the script that made them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

GOLDEN = Path(__file__).with_name("golden")


@pytest.fixture(scope="session")
def golden() -> Path:
    return GOLDEN


@pytest.fixture(scope="session")
def maker() -> ModuleType:
    """`make_golden.py`, a second implementation of the formats. Loaded by path, because the tests are not a package."""
    spec = importlib.util.spec_from_file_location("silo_transfer_make_golden", GOLDEN / "make_golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
