"""Compiles the modules of a skill's packages for its guests, once, at install.

Python's compiler parses and never executes, but the files are a stranger's, so it runs confined: the base image's own
interpreter on nothing but the packages (`silo.sandbox.confined`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import anyio.to_thread

from silo.sandbox.base import Image, OnStep
from silo.sandbox.confined import Confinement, run_confined

MOUNTED_AT: Final = "/skill/env"
"""The path of the folder in a guest (`silo.sandbox.skill.base.Unit.layer`). Compiled code has it in its file names."""

COMPILE_TIMEOUT_S: Final = 300.0

_COMPILE: Final = """
import compileall, sys
compileall.compile_dir(
    sys.argv[1], maxlevels=64, force=True, quiet=2, workers=2,
    invalidation_mode=compileall.py_compile.PycInvalidationMode.UNCHECKED_HASH,
)
"""
# Hashes are unchecked, because a guest's copy never changes, and because file times differ from build to build.


async def compile_modules(folder: Path, base: Image, on_step: OnStep) -> bool:
    """Compile every module below a folder; one that can't be compiled is left as it is.

    Returns:
        False if the compiler was stopped by a limit. Its guests then compile what is left, more slowly.

    Raises:
        SandboxBroken: the sandbox for the compiler can't be set up.
    """
    if not await anyio.to_thread.run_sync(lambda: any(folder.rglob("*.py"))):
        return True
    on_step("compiling the packages")
    confinement = Confinement(root=base.tree, write={MOUNTED_AT: folder}, timeout_s=COMPILE_TIMEOUT_S)
    argv = ["/usr/bin/python3", "-I", "-S", "-B", "-W", "ignore", "-c", _COMPILE, MOUNTED_AT]
    try:
        return (await run_confined(argv, confinement)).status == 0
    except TimeoutError:
        return False
