"""The packages of one install that have no wheel: found without running any of their code, then built.

Finding reads archives; nothing of them runs. Building runs a stranger's code, so a person agrees first, and
`silo.sandbox.build` confines it. uv itself never builds: it would do so outside of any sandbox, and put the result into
a cache that all skills share. What a build needs is installed from wheels, outside, because the build has no network.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from email.parser import HeaderParser
from pathlib import Path
from typing import Final

from anyio import to_thread
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from silo.catalog.lock import Lock, Requirements, WheelsMissing, resolve
from silo.catalog.plan import PlannedBuild
from silo.catalog.sdists import (
    Project,
    Sdist,
    check_build_requirements,
    fetch,
    locate,
    read_project,
    wheel_metadata,
    write_stand_in,
)
from silo.catalog.uv import Uv, failure
from silo.errors import DependencyUnavailable, SandboxUnavailable
from silo.model import Interpreter, SkillHeader
from silo.sandbox.base import OnStep
from silo.sandbox.build import BuildSandbox, BuildTask
from silo.sizes import MIB

MAX_ROUNDS: Final = 30
"""Each resolution names one or more packages that the one before did not reach."""

_FILE_NAME = re.compile(r"[A-Za-z0-9.!+_-]{1,200}\.whl")
_MAX_METADATA_BYTES: Final = 1 * MIB

AgreeToBuild = Callable[[Sequence[PlannedBuild]], Awaitable[None]]
"""Asks a person whether these packages may be built now; raises if not."""


@dataclass(frozen=True)
class _Source:
    sdist: Sdist
    archive: Path
    project: Project


class SourceBuilds:
    """Finds and builds the packages of one install; `folder` is private to it, and deleted by the caller."""

    def __init__(
        self,
        folder: Path,
        header: SkillHeader,
        interpreter: Interpreter,
        uv: Uv,
        sandbox: BuildSandbox,
        *,
        may_be_unconfined: bool,
        on_step: OnStep,
    ) -> None:
        self._folder = folder
        self._header = header
        self._interpreter = interpreter
        self._uv = uv
        self._sandbox = sandbox
        self._may_be_unconfined = may_be_unconfined
        self._on_step = on_step
        self._is_probed = False
        self._sources: dict[str, _Source] = {}
        self._wheels: dict[str, Path] = {}
        self._links = folder / "links"
        self._links.mkdir()

    async def lock(self, agree: AgreeToBuild) -> Lock:
        """Resolve the dependencies; build only what does not say otherwise what it depends on.

        Raises:
            DependencyUnavailable: there is no solution, or a build failed.
            SandboxUnavailable: a package must be built, and can't be confined here.
        """
        found = await self._resolve()
        for _ in range(MAX_ROUNDS):
            if isinstance(found, Lock):
                return found
            await self._find(found, agree)
            found = await self._resolve()
        if isinstance(found, WheelsMissing):
            raise found.error
        return found

    async def plan(self, requirements: Requirements, lock: Lock) -> tuple[PlannedBuild, ...]:
        """Return what must be built to install these requirements.

        Raises:
            DependencyUnavailable: the index has no source of a package, or another one than the lock.
            SandboxUnavailable: as `lock`.
        """
        locked = {f"{one.name}=={one.version}": one.sdist for one in lock.packages}
        for package in requirements.unbuilt:
            if package not in self._sources:
                source = await self._get(package)
                if source.sdist.package != package or source.sdist.hash != locked[package]:
                    raise DependencyUnavailable(
                        f"the package index has another source of {package} than the lock",
                        hint="don't install it; ask the index's operator",
                    )
        return tuple([await self._planned(self._sources[package]) for package in requirements.unbuilt])

    async def build(self, requirements: Requirements) -> Requirements:
        """Build what these requirements need, and return them with the wheels. A person has agreed.

        Raises:
            DependencyUnavailable: a build failed.
        """
        for package in requirements.unbuilt:
            if package not in self._wheels:
                await self._build(self._sources[package])
        return requirements.with_wheels({package: self._wheels[package] for package in requirements.unbuilt})

    async def _resolve(self) -> Lock | WheelsMissing:
        hashes = {package: source.sdist.hash for package, source in self._sources.items()}
        links = self._links if hashes else None
        return await resolve(self._header, self._interpreter, self._uv, links=links, sdists=hashes)

    async def _find(self, missing: WheelsMissing, agree: AgreeToBuild) -> None:
        known = {source.sdist.name for source in self._sources.values()}
        names = [name for name in missing.names if canonicalize_name(name) not in known]
        if not names:
            raise missing.error
        unknown: list[_Source] = []
        for name in names:
            source = await self._get(_wanted(self._header, name))
            if source.project.metadata is None:
                unknown.append(source)
            else:
                await to_thread.run_sync(write_stand_in, self._links, source.sdist, source.project.metadata)
        if unknown:
            await agree([await self._planned(source) for source in unknown])
        for source in unknown:
            await self._build(source)
            wheel = self._wheels[source.sdist.package]
            metadata = await to_thread.run_sync(_metadata_of, wheel, source.sdist)
            await to_thread.run_sync(write_stand_in, self._links, source.sdist, metadata)

    async def _get(self, requirement: str) -> _Source:
        self._on_step(f"looking for the source of {requirement}")
        sdist = await locate(requirement, self._header.requires_python, self._interpreter, self._uv)
        archive = await fetch(sdist, self._folder, self._uv.environ)
        source = _Source(sdist, archive, await read_project(archive, sdist))
        self._sources[sdist.package] = source
        return source

    async def _planned(self, source: _Source) -> PlannedBuild:
        await self._probe(source.sdist.package)
        sdist = source.sdist
        needs = source.project.build_requires
        return PlannedBuild(sdist.package, sdist.hash, sdist.source, needs, self._sandbox.is_confined)

    async def _probe(self, package: str) -> None:
        if self._is_probed:
            return
        missing = await self._sandbox.missing(self._interpreter)
        if missing and not self._may_be_unconfined:
            raise SandboxUnavailable(
                f"{package} has no wheel, and no build can be confined here: {missing}",
                hint="`silo doctor` says what is missing; `--allow-unsandboxed-builds` asks you whether it may be "
                "built with all that your user may do",
            )
        self._sandbox = replace(self._sandbox, is_confined=not missing)
        self._is_probed = True

    async def _build(self, source: _Source) -> None:
        sdist = source.sdist
        self._on_step(f"building {sdist.package}")
        packages = await self._install(sdist, source.project.build_requires, "first")
        more = check_build_requirements(
            await self._sandbox.requires(BuildTask(self._interpreter, source.archive, packages)), sdist.package
        )
        if more:
            packages = await self._install(sdist, (*source.project.build_requires, *more), "second")
        made = self._folder / f"{sdist.name}-{sdist.version}.made"
        name = await self._sandbox.wheel(BuildTask(self._interpreter, source.archive, packages), made)
        try:
            # `packaging` accepts tags that don't belong into a file name, such as one with a line break.
            is_right = _FILE_NAME.fullmatch(name) is not None
            is_right = is_right and parse_wheel_filename(name)[:2] == (
                canonicalize_name(sdist.name),
                Version(sdist.version),
            )
        except InvalidWheelFilename:
            is_right = False
        if not is_right:
            raise DependencyUnavailable(
                f"the build of {sdist.package} made something else: {name[:100]!r}", hint="do without the package"
            )
        self._wheels[sdist.package] = made.rename(self._folder / name)

    async def _install(self, sdist: Sdist, needs: Sequence[str], which: str) -> Path | None:
        """Install what a build needs into a folder of its own, from wheels, so that no code of it runs here."""
        if not needs:
            return None
        folder = self._folder / f"{sdist.name}-{sdist.version}.{which}"
        done = await self._uv.run(
            [
                *("pip", "install", "--target", str(folder), "--python", str(self._interpreter.executable)),
                *("--link-mode=copy", "--no-compile-bytecode", "--only-binary", ":all:", "--requirements", "-"),
            ],
            stdin="".join(f"{one}\n" for one in needs).encode(),
            timeout_s=600,
        )
        if done.status != 0:
            raise failure(done, doing=f"can't install what the build of {sdist.package} needs")
        return folder


def _wanted(header: SkillHeader, name: str) -> str:
    """Return the requirement for a package, with the header's own conditions if it names the package itself."""
    conditions = [
        str(requirement.specifier)
        for requirement in map(Requirement, header.dependencies)
        if canonicalize_name(requirement.name) == canonicalize_name(name) and requirement.specifier
    ]
    return f"{canonicalize_name(name)}{','.join(conditions)}"


def _metadata_of(wheel: Path, sdist: Sdist) -> str:
    """Return the dependencies that a wheel from a build states. The wheel is a stranger's."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            (entry,) = [one for one in archive.infolist() if one.filename.endswith(".dist-info/METADATA")]
            if entry.file_size > _MAX_METADATA_BYTES:
                raise ValueError("it is too long")
            text = archive.read(entry).decode("utf-8", errors="replace")
        return wheel_metadata(HeaderParser().parsestr(text), sdist)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, InvalidRequirement) as error:
        raise DependencyUnavailable(
            f"the wheel that the build of {sdist.package} made has no metadata that can be read: {error}",
            hint="do without the package",
        ) from error
