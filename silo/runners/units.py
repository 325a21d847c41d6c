"""Units: which images and limits belong to an installed skill, kept as one reference in its record.

`silo.sandbox.image` builds the images; `silo.install.installer` decides when.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import anyio.to_thread

from silo.errors import SandboxBroken
from silo.model import Interpreter, Skill, SkillHeader
from silo.sandbox.base import Image, Limits, OnStep
from silo.sandbox.skill.base import Unit


class ImageStore(Protocol):
    """The images as installations and calls use them; `silo.sandbox.image.Images` implements it."""

    async def base(self, interpreter: Interpreter, on_step: OnStep) -> Image:
        """Return the base image for an interpreter, building it if this is the first time."""
        ...

    async def layer(self, digest: str, staged: Path, base: Image, on_step: OnStep) -> Image:
        """Make the layer of a skill from a staged folder; the folder becomes part of the store."""
        ...

    async def renewed_layer(self, digest: str, layer: Image, base: Image) -> Image:
        """Make the layer of a skill again, for another base."""
        ...

    def is_current(self, image: Image) -> bool:
        """Whether the files of the host in a base or a layer are still those of the host."""
        ...

    def interpreter(self, base: Image) -> Path | None:
        """Return the executable whose files a base has, or None if that is not known."""
        ...

    def successor(self, layer: Image) -> str | None:
        """Return the reference that `replace` noted for a layer, or None."""
        ...

    def replace(self, layer: Image, reference: str) -> None:
        """Note which images took the place of a layer and its base. Blocks."""
        ...

    def renewing(self) -> AbstractAsyncContextManager[None]:
        """Hold the lock under which one process makes successors."""
        ...

    async def runtime(self, interpreter_version: str) -> Image:
        """Return the image with the guest's side of this silo."""
        ...

    def find(self, kind: str, digest: str) -> Image | None:
        """Return an image that was built, or None."""
        ...

    def staging(self) -> Path:
        """Make a new folder on the same file system as the images, for an install that is under way."""
        ...


@dataclass(frozen=True)
class ImageReference:
    """The images that were built for a skill, as `Skill.image` keeps them: `3.11.7/<base>/<layer>`."""

    python: str
    base: str
    layer: str

    def __str__(self) -> str:
        return f"{self.python}/{self.base}/{self.layer}"

    @classmethod
    def parse(cls, text: str) -> ImageReference | None:
        """Return the reference that a text holds; None for any other text."""
        found = _REFERENCE.fullmatch(text)
        return cls(*found.groups()) if found else None


_REFERENCE = re.compile(r"(\d+\.\d+\.\d+)/([0-9a-f]{64})/([0-9a-f]{64})")


Inspect = Callable[[Path], Awaitable[Interpreter | None]]
"""Asks an executable whether it is a CPython, and which."""


@dataclass(frozen=True)
class _Images:
    """The images of a reference, all of which exist."""

    reference: ImageReference
    base: Image
    layer: Image


@dataclass(frozen=True)
class SkillUnits:
    """Finds the unit of a skill, and renews its images after an update of the host.

    Attributes:
        images: where images are.
        limits: the user's bounds of every guest; memory is the skill's own.
        inspect: as `silo.catalog.interpreter.inspect_interpreter`.
    """

    images: ImageStore
    limits: Limits
    inspect: Inspect

    async def of(self, skill: Skill, on_step: OnStep) -> Unit:
        """Return what a backend runs for a skill. The guest's side of silo always has the version of this silo.

        If the host's Python, libraries or certificates were updated since the images were built, they are built again
        first, which takes seconds. If that Python is gone, the skill keeps its old images, and `on_step` is told.

        Raises:
            SandboxBroken: an image that was built at install is gone, or can't be built again.
        """
        installed = self._installed(skill)
        found = self._successor(installed) or installed
        if not self._is_current(found):
            found = await self._renewed(skill, installed, on_step)
        return await self.unit(skill.header, found.reference.python, found.base, found.layer)

    async def built(self, skill: Skill) -> Unit:
        """Return what the next call would run if the host did not change; builds nothing.

        Raises:
            SandboxBroken: an image that was built at install is gone.
        """
        installed = self._installed(skill)
        found = self._successor(installed) or installed
        return await self.unit(skill.header, found.reference.python, found.base, found.layer)

    def _installed(self, skill: Skill) -> _Images:
        found = self._find(ImageReference.parse(skill.image))
        if found is None:
            raise SandboxBroken(
                f"the image of the skill {skill.namespace!r} is gone",
                hint=f"build it again: silo install {skill.source.removeprefix('builtin:')}",
            )
        return found

    def _successor(self, installed: _Images) -> _Images | None:
        text = self.images.successor(installed.layer)
        return None if text is None else self._find(ImageReference.parse(text))

    def _find(self, reference: ImageReference | None) -> _Images | None:
        base = self.images.find("base", reference.base) if reference else None
        layer = self.images.find("layer", reference.layer) if reference else None
        return None if reference is None or base is None or layer is None else _Images(reference, base, layer)

    def _is_current(self, found: _Images) -> bool:
        return self.images.is_current(found.base) and self.images.is_current(found.layer)

    async def _renewed(self, skill: Skill, installed: _Images, on_step: OnStep) -> _Images:
        async with self.images.renewing():
            # Another process may have renewed it meanwhile.
            found = self._successor(installed) or installed
            if self._is_current(found):
                return found
            executable = self.images.interpreter(found.base)
            interpreter = None if executable is None else await self.inspect(executable)
            if interpreter is None or _minor(interpreter.version) != _minor(found.reference.python):
                source = skill.source.removeprefix("builtin:")
                why = "is gone" if executable is not None else "is not known: an older silo built its images"
                on_step(
                    f"the Python that {skill.namespace!r} was installed with {why}; its guests keep the old one and "
                    f"its libraries until you run: silo install {source}"
                )
                return found
            on_step(f"this machine was updated: building the images of {skill.namespace!r} again")
            base = await self.images.base(interpreter, on_step)
            layer = await self.images.renewed_layer(skill.digest, installed.layer, base)
            reference = ImageReference(interpreter.version, base.digest, layer.digest)
            await anyio.to_thread.run_sync(self.images.replace, installed.layer, str(reference))
            return _Images(reference, base, layer)

    async def unit(self, header: SkillHeader, python: str, base: Image, layer: Image) -> Unit:
        """Combine images with the limits of a skill."""
        runtime = await self.images.runtime(python)
        limits = replace(self.limits, memory_mib=header.memory_mib)
        return Unit(header.namespace, base, layer, runtime, limits)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
