"""Runs the build of one source distribution (PEP 517). `silo.sandbox.build` starts this file as a program.

    python build_hook.py requires|wheel ARCHIVE FOLDER

It is the standard library only, and may run outside of a sandbox, with any CPython from 3.11 on. Its standard output is
the answer: a line of JSON, then the bytes of the wheel. What the build prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tarfile
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

LIMITS = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_CPU, 1800),
    (resource.RLIMIT_AS, 4 * 1024**3),
    (resource.RLIMIT_FSIZE, 1024**3),
    (resource.RLIMIT_NOFILE, 4096),
)
"""A compiler of C++ needs some hundred MiB for a file, and a large package some minutes. Each process has these."""


def main(phase: str, archive: str, folder: str) -> None:
    """Unpack the archive into an empty folder, call its backend, and write the answer."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for kind, most in LIMITS:
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))
    root = _unpack(archive, Path(folder))
    os.chdir(root)
    backend = _backend(root)
    with answer:
        if phase == "requires":
            asks = getattr(backend, "get_requires_for_build_wheel", None)
            answer.write(json.dumps({"requires": list(asks({}) if asks is not None else [])}).encode() + b"\n")
            return
        out = Path(folder) / "wheel"
        out.mkdir()
        name = str(backend.build_wheel(str(out), {}, None))
        answer.write(json.dumps({"wheel": name}).encode() + b"\n")
        with (out / name).open("rb") as wheel:
            shutil.copyfileobj(wheel, answer)


def _unpack(archive: str, folder: Path) -> Path:
    source = folder / "source"
    source.mkdir()
    with tarfile.open(archive) as members:
        # The filter is missing before 3.11.4. What is unpacked runs in a moment, and can do the same by itself.
        options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        members.extractall(source, **options)  # noqa: S202 - as above
    (root,) = source.iterdir()
    return root


def _backend(root: Path) -> Any:  # noqa: ANN401 - a stranger's module or object
    system: dict[str, Any] = {}
    if (root / "pyproject.toml").is_file():
        system = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("build-system", {})
    name = system.get("build-backend", "setuptools.build_meta:__legacy__")
    sys.path[:0] = [str(root / part) for part in system.get("backend-path", [])]
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    for part in path.split(".") if path else ():
        found = getattr(found, part)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
