"""A package index in a folder, made by the tests, so that real uv needs no network; and interpreters to use it with."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest

from silo.catalog.header import read_header
from silo.catalog.interpreter import inspect_interpreter
from silo.catalog.uv import Uv
from silo.model import Interpreter, SkillHeader


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def interpreter() -> Interpreter:
    found = anyio.run(inspect_interpreter, Path(getattr(sys, "_base_executable", sys.executable)), dict(os.environ))
    assert found is not None
    return found


_BACKEND = """
import zipfile
{on_build}

def build_wheel(folder, *ignored):
    info = "{name}-{version}.dist-info"
    with zipfile.ZipFile(f"{{folder}}/{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("{name}.py", "built = True\\n")
        wheel.writestr(f"{{info}}/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
        wheel.writestr(f"{{info}}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{{info}}/RECORD", "")
    return "{name}-{version}-py3-none-any.whl"
"""


class LocalIndex:
    """A PEP 503 index on disk. `environ` makes uv use only this index, with its own cache."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.simple = root / "simple"
        self.simple.mkdir()
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(root / "home"),
            "UV_CACHE_DIR": str(root / "cache"),
            "UV_DEFAULT_INDEX": self.simple.as_uri(),
        }
        self.uv = Uv(self.environ)

    def add_wheel(
        self, name: str, version: str = "1.0", *, files: Mapping[str, str], requires: tuple[str, ...] = ()
    ) -> Path:
        module = name.replace("-", "_")
        info = f"{module}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        metadata += "".join(f"Requires-Dist: {one}\n" for one in requires)
        contents = {
            **files,
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(
            f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
            f"{len(text.encode())}\n"
            for path, text in contents.items()
        )
        wheel = self._folder(name) / f"{module}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, text in contents.items():
                archive.writestr(path, text)
            archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
        self._list(name)
        return wheel

    def add_sdist(self, name: str, version: str = "1.0", *, on_build: str) -> None:
        """Add a source distribution that brings its own build backend (PEP 517), which runs `on_build` first."""
        files = {
            "PKG-INFO": f"Metadata-Version: 1.0\nName: {name}\nVersion: {version}\n",
            "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
            "backend.py": _BACKEND.format(on_build=on_build, name=name, version=version),
        }
        with tarfile.open(self._folder(name) / f"{name}-{version}.tar.gz", "w:gz") as archive:
            for path, text in files.items():
                member = tarfile.TarInfo(f"{name}-{version}/{path}")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        self._list(name)

    def digest(self, name: str, version: str = "1.0") -> str:
        """SHA-256 of a source distribution, in hex."""
        return hashlib.sha256((self._folder(name) / f"{name}-{version}.tar.gz").read_bytes()).hexdigest()

    def _folder(self, name: str) -> Path:
        folder = self.simple / name
        folder.mkdir(exist_ok=True)
        return folder

    def _list(self, name: str) -> None:
        folder = self._folder(name)
        links = [
            f"<a href='{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}'>{path.name}</a>\n"
            for path in sorted(folder.iterdir())
            if path.name != "index.html"
        ]
        (folder / "index.html").write_text("<!doctype html>\n" + "".join(links))


@pytest.fixture
def index(tmp_path: Path) -> LocalIndex:
    root = tmp_path / "index"
    root.mkdir()
    return LocalIndex(root)


def header_for(*dependencies: str, python: str = ">=3.11") -> SkillHeader:
    listed = ", ".join(f'"{one}"' for one in dependencies)
    text = f'# /// script\n# requires-python = "{python}"\n# dependencies = [{listed}]\n# ///\n'
    return read_header(text.encode(), name="demo")


@pytest.fixture(name="header_for")
def header_for_fixture() -> object:
    return header_for
