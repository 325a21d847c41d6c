"""Build a skill's environment: a plain folder of packages that no python of the host ever imports from.

A wheel may have code that runs as soon as a python of its environment starts (`.pth`, `sitecustomize`). So uv installs
with the base interpreter into a plain folder, and files that would run by themselves are removed. `silo.catalog.lock`
decides what to install; `silo.sandbox` turns the folder into an image.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from silo.catalog.lock import Requirements
from silo.catalog.process import run_to_end
from silo.catalog.uv import Uv, failure
from silo.errors import DependencyUnavailable
from silo.model import Interpreter

MOUNTED_AT: Final = "/skill/env"
"""The path of the folder in a guest (`silo.sandbox.skill.base.Unit.layer`). Compiled code has it in its file names."""

INSTALL_TIMEOUT_S: Final = 1800.0
COMPILE_TIMEOUT_S: Final = 300.0
_COMPILE_MEMORY_BYTES = 2 * 1024**3
# Generated modules of large packages need some hundred MiB to compile; a malicious one could need any amount.

_COMPILE = """
import compileall, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
folder, seen_as = sys.argv[2:]
compileall.compile_dir(
    folder, maxlevels=64, stripdir=folder, prependdir=seen_as, force=True, quiet=2, workers=2,
    invalidation_mode=compileall.py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
"""

_STARTS_BY_ITSELF = ("*.pth", "sitecustomize.py", "usercustomize.py", "sitecustomize", "usercustomize")


@dataclass(frozen=True)
class Environment:
    """A built environment.

    Attributes:
        folder: import packages and their metadata, for `sys.path`.
        removed: names of the removed files, which would run by themselves when a python starts.
        size_bytes: size of all files.
        is_compiled: whether every module that can be compiled was; if not, the guest compiles the rest, more slowly.
    """

    folder: Path
    removed: tuple[str, ...]
    size_bytes: int
    is_compiled: bool


async def build_environment(
    folder: Path,
    requirements: Requirements,
    interpreter: Interpreter,
    uv: Uv,
    *,
    name: str,
    on_step: Callable[[str], None] = lambda _: None,
) -> Environment:
    """Install the locked packages into a new folder, wheels only, each file checked against its hash.

    Args:
        folder: is made here; its parent exists. It is removed if this raises.
        requirements: from `silo.catalog.lock.read_requirements`, with the wheels that were built.
        interpreter: the interpreter of the guest.
        uv: knows the user's package index.
        name: the skill, for messages.
        on_step: called at the start of each longer step.

    Raises:
        DependencyUnavailable: a package can't be downloaded, has another hash, or has no wheel for this machine.
        FileExistsError: the folder exists.
    """
    if requirements.unbuilt:
        raise DependencyUnavailable(
            f"'{name}' needs {', '.join(requirements.unbuilt)}, which has no wheel for this machine",
            hint="`--allow-builds` builds it from source, in a sandbox, and asks first",
        )
    await anyio.Path(folder).mkdir(mode=0o755)
    try:
        if requirements.packages:
            on_step(f"installing {len(requirements.packages)} packages")
            await _install(folder, requirements, interpreter, uv, name)
        removed = await anyio.to_thread.run_sync(_take_out, folder)
        is_compiled = True
        if requirements.packages:
            on_step("compiling the packages")
            is_compiled = await _compile(folder, interpreter)
        size_bytes = await anyio.to_thread.run_sync(_size, folder)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(shutil.rmtree, folder)
        raise
    return Environment(folder, removed, size_bytes, is_compiled)


async def _install(folder: Path, requirements: Requirements, interpreter: Interpreter, uv: Uv, name: str) -> None:
    done = await uv.run(
        [
            *("pip", "install", "--target", str(folder), "--python", str(interpreter.executable)),
            # A copy, not links into uv's cache: a skill's code must not change when another program writes there.
            *("--link-mode=copy", "--no-compile-bytecode", "--require-hashes", "--no-deps"),
            # uv never builds: `silo.install.builds` does, in a sandbox.
            *("--only-binary", ":all:", "--requirements", "-"),
        ],
        stdin=requirements.text.encode(),
        timeout_s=INSTALL_TIMEOUT_S,
    )
    if done.status != 0:
        raise failure(done, doing=f"can't install the dependencies of '{name}'")


def _take_out(folder: Path) -> tuple[str, ...]:
    """Remove files that would run by themselves, programs and compiled code; return the names of the first."""
    removed = sorted({path for pattern in _STARTS_BY_ITSELF for path in folder.glob(pattern)})
    for path in [*removed, folder / "bin", folder / ".lock", *folder.rglob("__pycache__")]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return tuple(path.name for path in removed)


async def _compile(folder: Path, interpreter: Interpreter) -> bool:
    """Compile every module; Python's compiler parses and never executes. A module that can't be compiled is left as is.

    Hashes are unchecked, because a guest's copy never changes, and because file times differ from build to build.
    """
    command = [
        str(interpreter.executable),
        "-I",
        "-S",
        "-c",
        _COMPILE,
        str(_COMPILE_MEMORY_BYTES),
        str(folder),
        MOUNTED_AT,
    ]
    with anyio.move_on_after(COMPILE_TIMEOUT_S):
        return (await run_to_end(command, environ={"PATH": os.defpath})).status == 0
    return False


def _size(folder: Path) -> int:
    return sum(
        (Path(parent) / name).lstat().st_size
        for parent, _, names in os.walk(folder, followlinks=False)
        for name in names
    )
