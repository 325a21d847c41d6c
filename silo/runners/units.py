"""Units: which images and limits belong to an installed skill, kept as one reference in its record.

`silo.sandbox.image` builds the images; `silo.install.installer` decides when.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from silo.errors import SandboxBroken
from silo.model import Interpreter, Skill, SkillHeader
from silo.sandbox.base import Image, Limits, OnStep
from silo.sandbox.skill.base import Unit


class ImageStore(Protocol):
    """The images as installations and calls use them; `silo.sandbox.image.Images` implements it."""

    async def base(self, interpreter: Interpreter, on_step: OnStep) -> Image:
        """Return the base image for an interpreter, building it if this is the first time."""
        ...

    async def layer(self, digest: str, staged: Path, base: Image) -> Image:
        """Make the layer of a skill from a staged folder; the folder becomes part of the store."""
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


@dataclass(frozen=True)
class SkillUnits:
    """Finds the unit of a skill.

    Attributes:
        images: where images are.
        limits: the user's bounds of every guest; memory is the skill's own.
    """

    images: ImageStore
    limits: Limits

    async def of(self, skill: Skill) -> Unit:
        """Return what a backend runs for a skill. The guest's side of silo always has the version of this silo.

        Raises:
            SandboxBroken: an image that was built at install is gone.
        """
        reference = ImageReference.parse(skill.image)
        base = self.images.find("base", reference.base) if reference else None
        layer = self.images.find("layer", reference.layer) if reference else None
        if reference is None or base is None or layer is None:
            raise SandboxBroken(
                f"the image of the skill {skill.namespace!r} is gone",
                hint=f"build it again: silo install {skill.source.removeprefix('builtin:')}",
            )
        return await self.unit(skill.header, reference.python, base, layer)

    async def unit(self, header: SkillHeader, python: str, base: Image, layer: Image) -> Unit:
        """Combine images with the limits of a skill."""
        runtime = await self.images.runtime(python)
        limits = replace(self.limits, memory_mib=header.memory_mib)
        return Unit(header.namespace, base, layer, runtime, limits)
