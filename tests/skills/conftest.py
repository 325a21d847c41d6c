"""Loads the built-in skills as modules, so that tests can call their functions directly; no guest is started here."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """Return a function that imports a script, given its path within the repository."""

    def load(path: str) -> ModuleType:
        name = "script_" + path.removesuffix("/skill.py").replace("/", "_")
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, REPOSITORY / path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module  # annotations are looked up through it
            spec.loader.exec_module(module)
        return sys.modules[name]

    return load
