"""Images: the trees of files that guests are made of, content-addressed, built once and never changed.

Three images make a guest: the *base* (an interpreter of the host and what it needs), the *layer* of one skill (its
script and its locked environment), and the *runtime* (the guest's side of this version of silo). Each is a folder
`tree/`, with an ext4 file beside it once a microVM needed it. `silo.catalog` decides what goes into a skill's
environment; nothing here runs its code, and what reads its files runs confined.

Base and layer hold files of the host: its interpreter, its libraries, its certificates. `sources.json` beside the tree
says which, so that `Images.is_current` notices an update of the host. `successor` beside a layer's tree names the
images that took its place.
"""

from __future__ import annotations

import compileall
import json
import os
import platform
import shutil
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from py_compile import PycInvalidationMode

import anyio.to_thread

from silo.errors import SandboxBroken
from silo.model import Interpreter
from silo.sandbox import elf
from silo.sandbox.base import Image, OnStep
from silo.sandbox.base_image import BaseSources
from silo.sandbox.build_cache import BuildCache
from silo.sandbox.compile import compile_modules
from silo.sandbox.ext4 import make_ext4
from silo.sandbox.host_files import (
    Stamps,
    are_current,
    read_stamps,
    shared_objects,
    stamp_parts,
    stamps_of,
    system_libraries,
)

_SILO = Path(__file__).resolve().parent.parent

_FORMAT = "silo-image-v2"
"""Part of every digest; incremented if the same inputs give another tree."""

_RUNTIME_PARTS = ("__init__.py", "version.py", "sdk", "wire", "guest")
_STAGING = ".staging-"
_MAKING = ".disk.ext4."
_SOURCES = "sources.json"
_SUCCESSOR = "successor"
_NOTING = ".successor."
_RENEWING = "renewing"
_PRUNED = ("base", "layer")

Filler = Callable[[Path], None]


class Images:
    """The images under one folder. Safe to use from several processes: each image is built once, under a lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cache = BuildCache(folder)
        # The files of a running silo do not change; reading them for each call would cost milliseconds.
        self._runtimes: dict[str, Image] = {}
        self._stamps: dict[str, Stamps] = {}

    async def base(self, interpreter: Interpreter, on_step: OnStep) -> Image:
        """Return the base image for an interpreter, building it if this is the first time, or the host was updated.

        Raises:
            SandboxBroken: the disk is full, or the interpreter's files can't be read.
        """
        try:
            sources = await anyio.to_thread.run_sync(BaseSources.of, interpreter)
        except OSError as error:
            raise SandboxBroken(
                f"cannot read the interpreter's files: {error}", hint=f"is {interpreter.executable} installed whole?"
            ) from error
        digest = _digest("base", *sources.parts)
        image = self.find("base", digest)
        if image is None:
            on_step(f"building the base image for Python {interpreter.version}")
            image = await anyio.to_thread.run_sync(
                lambda: self._build("base", digest, sources.fill, sources=sources.to_json())
            )
        return image

    async def layer(self, digest: str, staged: Path, base: Image, on_step: OnStep) -> Image:
        """Make the layer image of a skill from `staged`, which is moved; its modules are compiled first.

        Args:
            digest: identifies the skill (script and lock), as in `Skill.digest`.
            staged: a folder on the same file system with `skill.py` and `env/`.
            base: the image below, whose libraries need no second copy.
            on_step: called at the start of each longer step.

        Raises:
            SandboxBroken: the disk is full, or no sandbox can be set up for the compiler.
        """
        plan = await anyio.to_thread.run_sync(_plan_layer, digest, staged / "env", base)
        found = self.find("layer", plan.digest)
        if found is not None:
            return found
        await compile_modules(staged / "env", base, on_step)
        return await anyio.to_thread.run_sync(self._build_layer, plan, lambda tree: _take_over(staged, tree))

    async def renewed_layer(self, digest: str, layer: Image, base: Image) -> Image:
        """Make the layer of a skill for another base, with the host's libraries as they are now.

        The files of the skill are shared with the old layer by hard links; they never change.

        Raises:
            SandboxBroken: the disk is full.
        """
        plan = await anyio.to_thread.run_sync(_plan_layer, digest, layer.tree / "env", base)
        found = self.find("layer", plan.digest)
        if found is not None:
            return found
        return await anyio.to_thread.run_sync(self._build_layer, plan, lambda tree: _link_skill(layer.tree, tree))

    def _build_layer(self, plan: _LayerPlan, take: Filler) -> Image:
        def fill(tree: Path) -> None:
            take(tree)
            (tree / "lib").mkdir(exist_ok=True)
            for name, path in plan.libraries.items():
                shutil.copyfile(path, tree / "lib" / name)
                (tree / "lib" / name).chmod(0o755)

        return self._build("layer", plan.digest, fill, sources=json.dumps({"stamps": plan.stamps}))

    def is_current(self, image: Image) -> bool:
        """Whether the files of the host in a base or a layer are still those of the host. Takes some 0.1 ms."""
        stamps = self._stamps.get(image.digest)
        if stamps is None:
            try:
                stamps = read_stamps(json.loads(_sources(image).read_text()))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                return False
            self._stamps[image.digest] = stamps
        return are_current(stamps)

    def interpreter(self, base: Image) -> Path | None:
        """The executable whose files a base has; None if that can't be read."""
        try:
            return BaseSources.from_json(_sources(base).read_text()).interpreter.executable
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def successor(self, layer: Image) -> str | None:
        """The reference that `replace` noted for a layer, or None."""
        try:
            return _successor(layer).read_text()
        except (OSError, ValueError):
            return None

    def replace(self, layer: Image, reference: str) -> None:
        """Note which images took the place of a layer and its base. Blocks.

        Raises:
            SandboxBroken: the disk is full.
        """
        making = _successor(layer).with_name(f"{_NOTING}{os.getpid()}.{threading.get_ident()}")
        try:
            making.write_text(reference)
            making.rename(_successor(layer))
        except OSError as error:
            raise _cannot_build(self._folder, error) from error
        finally:
            making.unlink(missing_ok=True)

    @asynccontextmanager
    async def renewing(self) -> AsyncIterator[None]:
        """Hold the lock under which one process makes successors; `prune` leaves new images alone."""
        async with self._cache.wait_locked(_RENEWING):
            yield

    async def runtime(self, interpreter_version: str) -> Image:
        """Return the image with the guest's side of this silo, compiled for an interpreter version such as `3.11.7`."""
        minor = ".".join(interpreter_version.split(".")[:2])
        known = self._runtimes.get(minor)
        if known is not None and known.tree.is_dir():
            return known
        found = self._runtimes[minor] = await anyio.to_thread.run_sync(self._build_runtime, minor)
        return found

    def _build_runtime(self, minor: str) -> Image:
        digest = _digest("runtime", minor, *_runtime_contents(_SILO))
        return self.find("runtime", digest) or self._build(
            "runtime", digest, lambda tree: _fill_runtime(tree, _SILO, minor)
        )

    def find(self, kind: str, digest: str) -> Image | None:
        """Return the image if it exists and is complete."""
        tree = self._folder / f"{kind}-{digest[:32]}" / "tree"
        return Image(digest, tree) if tree.is_dir() else None

    def staging(self) -> Path:
        """Make a new folder beside the images, for the files of a layer. The caller passes it to `layer` or deletes it.

        The stage of its install (`silo.catalog.store.SkillStore.stage`) marks it as in use.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=_STAGING, dir=self._folder))

    def disk(self, image: Image) -> Path:
        """Return the ext4 file of an image; made at first use. Blocks.

        Raises:
            SandboxBroken: `mke2fs` is missing or failed.
        """
        if image.disk.is_file():
            return image.disk
        with self._cache.locked(image.tree.parent.name):
            if not image.disk.is_file():
                making = image.disk.with_name(f"{_MAKING}{os.getpid()}")
                try:
                    make_ext4(image.tree, making)
                    making.rename(image.disk)
                except OSError as error:
                    raise _cannot_build(self._folder, error) from error
                finally:
                    making.unlink(missing_ok=True)
        return image.disk

    def prune(self, keep: Iterable[str]) -> list[Path]:
        """Delete the bases and layers that no reference names, and leftovers of killed processes; return the first.

        Call this only while no install is under way (`silo.catalog.store.SkillStore.no_install_in_progress`): its layer
        is in no record yet, and its staging folder would be taken for an abandoned one. Runtimes stay: there are few.

        Args:
            keep: digests of bases and layers. The successors of these layers are kept, too.
        """
        for staged in self._folder.glob(f"{_STAGING}*"):
            _delete(staged)
        gone: list[Path] = []
        # While a successor is being made, its images are in no reference.
        with self._cache.try_locked(_RENEWING) as is_held:
            if is_held:
                wanted = {f"{kind}-{digest[:32]}" for digest in self._with_successors(keep) for kind in _PRUNED}
                unwanted = [name for name in self._cache.names() if name.startswith(_PRUNED) and name not in wanted]
                gone = [self._folder / name for name in unwanted if self._cache.discard(name)]
        for name in self._cache.names():
            if left := [*(self._folder / name).glob(f"{_MAKING}*"), *(self._folder / name).glob(f"{_NOTING}*")]:
                with self._cache.try_locked(name) as is_held:
                    for path in left if is_held else ():
                        path.unlink(missing_ok=True)
        self._cache.sweep()
        return gone

    def _with_successors(self, keep: Iterable[str]) -> set[str]:
        wanted = set(keep)
        for digest in tuple(wanted):
            layer = self.find("layer", digest)
            if layer is not None and (reference := self.successor(layer)) is not None:
                wanted |= set(reference.split("/")[1:])
        return wanted

    def _build(self, kind: str, digest: str, fill: Filler, *, sources: str | None = None) -> Image:
        name = f"{kind}-{digest[:32]}"
        with self._cache.locked(name):
            found = self.find(kind, digest)
            if found is not None:
                return found
            building = self._cache.building(name)
            try:
                tree = building / "tree"
                tree.mkdir(mode=0o755)
                fill(tree)
                if sources is not None:
                    (building / _SOURCES).write_text(sources)
                building.chmod(0o755)
                building.rename(self._folder / name)
            except OSError as error:
                raise _cannot_build(self._folder, error) from error
            finally:
                _delete(building)
        return Image(digest, self._folder / name / "tree")


def _digest(*parts: str) -> str:
    whole = sha256()
    for part in (_FORMAT, platform.machine(), *parts):
        data = part.encode()
        whole.update(len(data).to_bytes(8) + data)
    return whole.hexdigest()


def _cannot_build(folder: Path, error: OSError) -> SandboxBroken:
    return SandboxBroken(
        f"cannot build the image in {folder}: {_first_reason(error)}",
        hint="look at the free space and the permissions of that folder, then try again",
    )


def _first_reason(error: OSError) -> str:
    """Say why in one line.

    `shutil.copytree` goes on after a failure and then lists them all, thousands on a full disk.
    """
    if isinstance(error, shutil.Error) and isinstance(failures := error.args[0], list) and failures:
        return str(failures[0][2])
    return str(error)


def _sources(image: Image) -> Path:
    return image.tree.parent / _SOURCES


def _successor(layer: Image) -> Path:
    return layer.tree.parent / _SUCCESSOR


def _delete(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


# --- the layer of a skill ---------------------------------------------------------------------------------------------


def _take_over(staged: Path, tree: Path) -> None:
    tree.rmdir()
    staged.rename(tree)


def _link_skill(old: Path, tree: Path) -> None:
    """Fill a layer with the files of another one, without its libraries."""
    os.link(old / "skill.py", tree / "skill.py")
    shutil.copytree(old / "env", tree / "env", symlinks=True, copy_function=os.link)


@dataclass(frozen=True)
class _LayerPlan:
    """A layer that is to be built.

    Attributes:
        libraries: by name, the system libraries that the skill's wheels need and the base does not have (`libstdc++`).
        stamps: of these libraries.
    """

    digest: str
    libraries: Mapping[str, Path]
    stamps: Stamps


def _plan_layer(digest: str, env: Path, base: Image) -> _LayerPlan:
    binaries = shared_objects(env)
    have = {path.name for path in binaries} | {entry.name for entry in (base.tree / "usr/lib").iterdir()}
    needed = elf.closure(binaries, have, system_libraries(), trust_search=False)
    libraries = {one.name: one.path for one in needed}
    stamps = stamps_of(libraries.values())
    return _LayerPlan(_digest("layer", digest, base.digest, *stamp_parts(stamps)), libraries, stamps)


# --- the runtime ------------------------------------------------------------------------------------------------------


def _runtime_files(source: Path) -> list[Path]:
    files: list[Path] = []
    for part in _RUNTIME_PARTS:
        path = source / part
        files.extend(sorted(path.rglob("*.py")) if path.is_dir() else [path])
    return files


def _runtime_contents(source: Path) -> Iterator[str]:
    for file in _runtime_files(source):
        yield str(file.relative_to(source))
        yield file.read_text()


def _fill_runtime(tree: Path, source: Path, minor: str) -> None:
    for file in _runtime_files(source):
        target = tree / "silo" / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    if minor == ".".join(map(str, sys.version_info[:2])):
        # Under another version, the guest compiles the files itself, which costs its template some tenths of a second.
        compileall.compile_dir(
            tree,
            quiet=1,
            stripdir=str(tree),
            prependdir="/runtime",
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
        )
