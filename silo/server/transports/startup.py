"""Load `mcp` quickly, for a process that only serves.

A client waits for the first answer during this import, which takes most of the start-up time. It builds pydantic
models, which a server needs, and it loads an MCP client, an HTTP client and a high-level server, which silo does not
need.
Measured on a busy machine with two cores, from process start to the first `tools/list`, medians of 15 in turn: 1.03 s
with plain imports, 0.96 s without the garbage collector, 0.87 s with both measures.
"""

from __future__ import annotations

import gc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_DEFERRED = ("mcp", "mcp.server")
"""Packages whose `__init__` only re-exports names. silo imports their submodules directly."""


@contextmanager
def fast_imports() -> Iterator[None]:
    """Within the context, import without the garbage collector and without the `__init__` of `_DEFERRED`.

    Imported classes are never garbage, yet the collector would scan them again and again. Freezing what was loaded also
    keeps it from scanning them later, during calls.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for name in _DEFERRED:
            _defer(name)
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


class _Deferred(ModuleType):
    """A package whose `__init__` runs only when a name that it defines is used. Its submodules can be imported before.

    `importlib.util.LazyLoader` does the same for plain modules. It would load a package at once, because importing a
    submodule reads `__path__`.
    """

    def __getattr__(self, name: str) -> object:
        # The import system asks for `__all__`, `__wrapped__` and the like; that must not load the package.
        if name.startswith("__"):
            raise AttributeError(name)
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def _defer(name: str) -> None:
    """Put `name` into `sys.modules` without running it. Does nothing if it is loaded already or can't be found."""
    if name in sys.modules:
        return
    parent, _, child = name.rpartition(".")
    path = sys.modules[parent].__path__ if parent else None
    spec = importlib.machinery.PathFinder.find_spec(name, path)
    if spec is None or spec.submodule_search_locations is None:
        return
    module = _Deferred(name)
    module.__spec__ = spec
    module.__loader__ = spec.loader
    module.__file__ = spec.origin
    module.__package__ = name
    module.__path__ = spec.submodule_search_locations
    sys.modules[name] = module
    if parent:
        setattr(sys.modules[parent], child, module)
