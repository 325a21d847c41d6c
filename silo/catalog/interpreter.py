"""Choose the CPython of the host whose files go into a skill's guests, and ask it for its version and paths.

Interpreters are only started isolated and without site-packages, and never see a skill's environment.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from silo.catalog.process import run_to_end
from silo.catalog.uv import Uv
from silo.errors import DependencyUnavailable
from silo.model import Interpreter

OLDEST: Final = "3.11"
"""The oldest version that the guest's side of silo supports."""

_FACTS = """
import json, sys, sysconfig
print(json.dumps({
    "implementation": sys.implementation.name,
    "executable": getattr(sys, "_base_executable", sys.executable),
    "version": "%d.%d.%d" % sys.version_info[:3],
    "stdlib": sysconfig.get_path("stdlib"),
    "platstdlib": sysconfig.get_path("platstdlib"),
    "abi": sysconfig.get_config_var("SOABI"),
    "final": sys.version_info.releaselevel == "final",
}))
"""


async def choose_interpreter(requires_python: str, uv: Uv) -> Interpreter:
    """Return the CPython that runs silo if it fits, else one that uv finds on the machine; none is downloaded.

    Args:
        requires_python: a version specifier (PEP 440), from the header.
        uv: finds other interpreters.

    Raises:
        DependencyUnavailable: no fitting interpreter.
    """
    wanted = SpecifierSet(requires_python)
    own = await inspect_interpreter(Path(getattr(sys, "_base_executable", sys.executable)), uv.environ)
    if own is not None and _fits(own, wanted):
        return own
    found = await uv.run(["python", "find", "--no-project", "--system", f"cpython{wanted},>={OLDEST}"], timeout_s=60)
    if found.status == 0:
        other = await inspect_interpreter(Path(found.stdout.strip()), uv.environ)
        if other is not None and _fits(other, wanted):
            return other
    having = f"this machine runs silo with {own.version}" if own is not None else "none was found"
    raise DependencyUnavailable(
        f"no CPython that fits 'requires-python = \"{requires_python}\"' (and >={OLDEST}); {having}",
        hint="install one, for instance with `uv python install 3.13`, or widen 'requires-python' in the header",
    )


async def inspect_interpreter(executable: Path, environ: Mapping[str, str]) -> Interpreter | None:
    """Ask an interpreter for its facts, with `-I -S`; None if it can't be started, isn't CPython, or fails."""
    kept = {name: value for name, value in environ.items() if name in ("PATH", "HOME", "LD_LIBRARY_PATH")}
    try:
        with anyio.fail_after(30):
            done = await run_to_end([str(executable), "-I", "-S", "-c", _FACTS], environ=kept)
    except (OSError, TimeoutError):
        return None
    return _parse(done.stdout) if done.status == 0 else None


def _parse(answer: str) -> Interpreter | None:
    try:
        facts = json.loads(answer)
        if facts["implementation"] != "cpython" or not facts["final"]:
            return None
        return Interpreter(
            executable=Path(facts["executable"]).resolve(strict=True),
            version=str(Version(facts["version"])),
            stdlib=Path(facts["stdlib"]).resolve(strict=True),
            platstdlib=Path(facts["platstdlib"]).resolve(strict=True),
            abi=str(facts["abi"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fits(interpreter: Interpreter, wanted: SpecifierSet) -> bool:
    return wanted.contains(interpreter.version) and Version(interpreter.version) >= Version(OLDEST)
