"""Imports scripts for the tests of the SDK as a guest does, under a name that is in `sys.modules`."""

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str | Path], ModuleType]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Import a script, given as a path or as its text; forgotten when the test ends."""
    numbers = itertools.count()
    names = []

    def import_script(source: str | Path) -> ModuleType:
        number = next(numbers)
        path = source if isinstance(source, Path) else tmp_path / f"skill{number}.py"
        if isinstance(source, str):
            path.write_text(source, encoding="utf-8")
        name = f"skill_under_test_{number}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        names.append(name)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    yield import_script
    for name in names:
        del sys.modules[name]
