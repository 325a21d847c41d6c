"""Source distributions: where one comes from, its file, and what it says without being built.

`silo.install.builds` has them built. Here they are only data: an archive is read up to limits, and nothing is unpacked.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from anyio import to_thread
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from silo.catalog.download import MAX_DOWNLOAD_BYTES, download
from silo.catalog.uv import Uv, failure, without_credentials
from silo.errors import DependencyUnavailable
from silo.model import Interpreter
from silo.sizes import MIB

MAX_UNPACKED_BYTES: Final = 1024 * MIB
"""As much of an archive is looked through. The largest source distributions on PyPI unpack to some hundred MiB."""

MAX_MEMBERS: Final = 100_000
_MAX_TEXT_BYTES: Final = 1 * MIB
_MAX_REQUIREMENTS: Final = 100

_DEFAULT_REQUIRES: Final = ("setuptools>=40.8.0",)
"""For a project without a `pyproject.toml`, or without a build system there (PEP 517)."""

_STATIC: Final = frozenset({"requires-dist", "requires-python", "provides-extra"})


@dataclass(frozen=True)
class Sdist:
    """A source distribution of a package index.

    Attributes:
        name: as in locks.
        hash: `sha256:…` of its file.
        source: the address or path of its file, without credentials.
    """

    name: str
    version: str
    hash: str
    source: str

    @property
    def package(self) -> str:
        """`name==version`."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Project:
    """What an archive says of itself.

    Attributes:
        metadata: what it depends on, as the metadata of a wheel, if it says so for every build (PEP 643); else None.
        build_requires: what its build needs (PEP 518).
    """

    metadata: str | None
    build_requires: tuple[str, ...]


async def locate(requirement: str, python: str, interpreter: Interpreter, uv: Uv) -> Sdist:
    """Ask the user's package index for the newest source distribution that a requirement accepts.

    Nothing is built or downloaded: the resolution has this one package, and uv is told that it depends on nothing.

    Args:
        requirement: a name, with or without a specifier; without extras and markers.
        python: `requires-python` of the skill.

    Raises:
        DependencyUnavailable: the index has none, or no hash of it.
    """
    name = canonicalize_name(Requirement(requirement).name)
    with tempfile.TemporaryDirectory(prefix="silo-sdist-") as folder:
        script = Path(folder) / "skill.py"
        script.write_text(
            f'# /// script\n# requires-python = "{python}"\n# dependencies = ["{requirement}"]\n'
            f'# [tool.uv]\n# dependency-metadata = [{{ name = "{name}", requires-dist = [] }}]\n# ///\n',
            encoding="utf-8",
        )
        done = await uv.run(["lock", "--script", str(script), "--python", str(interpreter.executable)], timeout_s=300)
        if done.status != 0:
            raise failure(done, doing=f"can't find the source of {name}")
        document = tomllib.loads(script.with_name("skill.py.lock").read_text(encoding="utf-8"))
        return await to_thread.run_sync(_sdist, document, name, Path(folder))


def _sdist(document: Mapping[str, Any], name: str, folder: Path) -> Sdist:
    for table in document.get("package", []):
        sdist = table.get("sdist")
        if table.get("name") != name or not isinstance(sdist, dict):
            continue
        source, digest = without_credentials(str(sdist.get("url") or "")), sdist.get("hash")
        if not source and isinstance(path := sdist.get("path"), str):
            source = str(folder / path)
            digest = digest or _hash(Path(source))
        if source and isinstance(digest, str) and re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            return Sdist(name, str(table["version"]), digest, source)
    raise DependencyUnavailable(
        f"the package index has no source distribution of {name} with a SHA-256",
        hint="put a wheel for this machine on your own index, or do without the package",
    )


async def fetch(sdist: Sdist, folder: Path, environ: Mapping[str, str]) -> Path:
    """Get the file of a source distribution, and check it against its hash.

    Args:
        folder: where it is put.
        environ: for proxies, certificates, and credentials of the index.

    Raises:
        DependencyUnavailable: it can't be had, is too large, has another hash, or is no `.tar.gz`.
    """
    split = urlsplit(sdist.source)
    name = unquote(split.path).rsplit("/", 1)[-1]
    if not name.endswith(".tar.gz"):
        raise DependencyUnavailable(
            f"{sdist.package} is {name[:100]!r}, and silo builds only .tar.gz (PEP 625)",
            hint="put a wheel for this machine on your own index, or do without the package",
        )
    target = folder / f"{sdist.name}-{sdist.version}.tar.gz"
    if split.scheme in {"http", "https"}:
        await download(sdist.source, target, environ)
    else:
        path = Path(unquote(split.path) if split.scheme == "file" else sdist.source)
        await to_thread.run_sync(_copy, path, target)
    if await to_thread.run_sync(_hash, target) != sdist.hash:
        target.unlink()
        raise DependencyUnavailable(
            f"{sdist.package}: the index serves another file than the one with the hash {sdist.hash}",
            hint="don't install it; ask the index's operator",
        )
    return target


async def read_project(archive: Path, sdist: Sdist) -> Project:
    """Read what an archive says of itself.

    Raises:
        DependencyUnavailable: it is no source distribution of this package, or beyond the limits.
    """
    return await to_thread.run_sync(_read_project, archive, sdist)


def write_stand_in(folder: Path, sdist: Sdist, metadata: str) -> None:
    """Write a wheel without code into a folder. It only tells uv what a source distribution depends on."""
    stem = f"{sdist.name.replace('-', '_')}-{sdist.version}"
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", metadata)
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


def wheel_metadata(headers: Message, sdist: Sdist) -> str:
    """Return the metadata of a wheel with the dependencies that these headers state, and nothing else of them.

    Raises:
        InvalidRequirement: a dependency isn't a requirement (PEP 508).
    """
    lines = ["Metadata-Version: 2.2", f"Name: {sdist.name}", f"Version: {sdist.version}"]
    lines += [f"Requires-Dist: {Requirement(str(one))}" for one in headers.get_all("Requires-Dist", [])]
    for key in ("Requires-Python", "Provides-Extra"):
        lines += [f"{key}: {' '.join(str(one).split())}" for one in headers.get_all(key, [])]
    return "\n".join(lines) + "\n"


def check_build_requirements(given: object, package: str) -> tuple[str, ...]:
    """Return what a build needs, after checking that it comes from the index.

    Args:
        given: a list of requirements, from an archive or from its build.

    Raises:
        DependencyUnavailable: it isn't one, is too long, or names an address.
    """
    wrong = DependencyUnavailable(
        f"{package} needs for its build what silo does not install: {str(given)[:200]}",
        hint="put a wheel for this machine on your own index, or do without the package",
    )
    if not isinstance(given, list) or len(given) > _MAX_REQUIREMENTS:
        raise wrong
    checked = []
    for one in given:
        try:
            requirement = Requirement(one) if isinstance(one, str) and len(one) <= 500 else None
        except InvalidRequirement:
            requirement = None
        if requirement is None or requirement.url is not None:
            raise wrong
        checked.append(str(requirement))
    return tuple(checked)


def _read_project(archive: Path, sdist: Sdist) -> Project:
    try:
        texts = _texts(archive)
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise DependencyUnavailable(
            f"{sdist.package}: its source distribution can't be read: {error}", hint="do without the package"
        ) from error
    requires = list(_DEFAULT_REQUIRES)
    if (text := texts.get("pyproject.toml")) is not None:
        try:
            system = tomllib.loads(text).get("build-system")
        except (ValueError, RecursionError) as error:
            raise DependencyUnavailable(
                f"{sdist.package}: its pyproject.toml is not TOML: {error}", hint="do without the package"
            ) from error
        if isinstance(system, dict):
            requires = system.get("requires", requires)
    return Project(_static_metadata(texts.get("PKG-INFO"), sdist), check_build_requirements(requires, sdist.package))


def _texts(archive: Path) -> dict[str, str]:
    """Return the two files at the top of the archive that describe the project."""
    found: dict[str, str] = {}
    size = 0
    with tarfile.open(archive, "r|gz") as members:  # a stream: nothing is read twice
        for number, member in enumerate(members):
            size += member.size
            if number >= MAX_MEMBERS or size > MAX_UNPACKED_BYTES:
                raise ValueError("it unpacks to more than silo looks through")
            parts = member.name.split("/")
            if len(parts) != 2 or parts[1] not in {"PKG-INFO", "pyproject.toml"} or not member.isreg():
                continue
            file = members.extractfile(member)
            if member.size > _MAX_TEXT_BYTES or file is None:
                raise ValueError(f"its {parts[1]} has more than {_MAX_TEXT_BYTES // MIB} MiB")
            found[parts[1]] = file.read(_MAX_TEXT_BYTES).decode("utf-8", errors="replace")
    return found


def _static_metadata(text: str | None, sdist: Sdist) -> str | None:
    """Return the dependencies as the metadata of a wheel, if the archive has them for every build (PEP 643)."""
    if text is None:
        return None
    headers = HeaderParser().parsestr(text)
    dynamic = {str(one).strip().lower() for one in headers.get_all("Dynamic", [])}
    try:
        is_new = Version(str(headers["Metadata-Version"])) >= Version("2.2")
        is_same = canonicalize_name(str(headers["Name"])) == sdist.name
        is_same = is_same and Version(str(headers["Version"])) == Version(sdist.version)
        return wheel_metadata(headers, sdist) if is_new and is_same and not dynamic & _STATIC else None
    except (InvalidVersion, InvalidRequirement):
        return None


def _copy(path: Path, target: Path) -> None:
    try:
        if path.stat().st_size > MAX_DOWNLOAD_BYTES:
            raise DependencyUnavailable(f"{path} is too large", hint="do without the package")
        shutil.copyfile(path, target)
    except OSError as error:
        raise DependencyUnavailable(
            f"can't read {path}: {error.strerror}", hint="look at the folder of your package index"
        ) from error


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
