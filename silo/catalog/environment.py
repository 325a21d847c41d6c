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
from silo.catalog.uv import Uv, failure, too_large
from silo.errors import DependencyUnavailable
from silo.model import Interpreter

INSTALL_TIMEOUT_S: Final = 1800.0

MAX_FILES: Final = 250_000
"""Files and folders of an environment; the largest scientific ones have some ten thousand."""

_STARTS_BY_ITSELF = ("*.pth", "sitecustomize.py", "usercustomize.py", "sitecustomize", "usercustomize")


@dataclass(frozen=True)
class Environment:
    """A built environment.

    Attributes:
        folder: import packages and their metadata, for `sys.path`.
        removed: names of the removed files, which would run by themselves when a python starts.
        size_bytes: size of all files.
    """

    folder: Path
    removed: tuple[str, ...]
    size_bytes: int


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
        DependencyUnavailable: a package can't be downloaded, has another hash, or has no wheel for this machine; or the
            packages are too large.
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
        size_bytes, count = await anyio.to_thread.run_sync(_measure, folder)
        if size_bytes > uv.max_unpacked_bytes:
            raise too_large(uv.max_unpacked_bytes, doing=f"can't install the dependencies of '{name}'")
        if count > MAX_FILES:
            raise DependencyUnavailable(
                f"the packages of '{name}' have {count:,} files, and at most {MAX_FILES:,} are possible",
                hint="look at what 'dependencies' in the header brings along; a package may be hostile",
            )
    except BaseException:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(shutil.rmtree, folder)
        raise
    return Environment(folder, removed, size_bytes)


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


def _measure(folder: Path) -> tuple[int, int]:
    """Return the size of all files, and how many files and folders there are."""
    size = count = 0
    for parent, folders, names in os.walk(folder, followlinks=False):
        size += sum((Path(parent) / name).lstat().st_size for name in names)
        count += len(folders) + len(names)
    return size, count
