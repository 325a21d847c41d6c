"""Loading `mcp` quickly, for a process that only serves. Nothing here knows what is served.

A client waits for the first answer while this loads, and nearly all of that time goes into importing `mcp`: building its
pydantic models (which a server needs), and its client, its HTTP client and its high-level server (which ours does not). Measured
on a busy machine with two cores, from process start to the first `tools/list`, median of 15 each in turn: 1.03 s as it comes,
0.96 s without the collector, 0.87 s with both.
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
"""Packages whose `__init__` only re-exports; what we use of them are their submodules."""


@contextmanager
def fast_imports() -> Iterator[None]:
    """Within the context, import without the garbage collector and without the `__init__` of `_DEFERRED`.

    The collector finds nothing in classes that stay, but looks for it again and again; freezing what was loaded keeps it from
    walking through them later, in the middle of calls.
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
    """A package whose `__init__` runs when something asks for a name that only it defines; until then, submodules import.

    `importlib.util.LazyLoader` is this idea for plain modules; for a package it would end at once, when the import of a submodule
    asks for `__path__`.
    """

    def __getattr__(self, name: str) -> object:
        if name.startswith(
            "__"
        ):  # the import system's questions (`__all__`, `__wrapped__`, …) are no use of the package
            raise AttributeError(name)
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def _defer(name: str) -> None:
    """Put `name` into `sys.modules` without running it; leave it alone if it is loaded, or can't be found this way."""
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
