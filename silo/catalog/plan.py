"""The plan of an install, to which a person must agree. `silo.install.installer` asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from silo.model import SkillHeader


@dataclass(frozen=True)
class PlannedBuild:
    """A package that must be built, which runs its code.

    Attributes:
        package: `name==version`.
        hash: `sha256:…` of its source distribution.
        source: where that comes from.
        needs: what its build is known to need; the build itself can name more packages of the index.
        is_confined: whether it is built in a sandbox.
    """

    package: str
    hash: str
    source: str
    needs: tuple[str, ...]
    is_confined: bool


@dataclass(frozen=True)
class InstallPlan:
    """An install that is planned but not begun.

    Attributes:
        namespace: the name of the skill.
        source: where it comes from (`builtin:jwt` or a path).
        header: the upper limit of what its tools may have.
        digest: over script and lock; the agreement is bound to it.
        packages: `name==version` of the packages that will be installed, sorted.
        replaces: the digest of the installed skill of that name, or None.
        grants: what its name holds that it would get, each in words (`silo.install.grants`).
        warnings: for the person who decides, one sentence each.
        builds: packages that will be built.
        is_partial: it is only about `builds`, without which the dependencies are not known. If the builds succeed,
            another plan follows, for the whole. `digest` and `packages` are empty.
        script: its bytes, for comparison with the version that it replaces.
    """

    namespace: str
    source: str
    header: SkillHeader
    digest: str
    packages: tuple[str, ...]
    replaces: str | None
    warnings: tuple[str, ...]
    grants: tuple[str, ...] = ()
    builds: tuple[PlannedBuild, ...] = ()
    is_partial: bool = False
    script: bytes = field(default=b"", repr=False)

    @property
    def needs_person(self) -> bool:
        """Whether silo itself asks a person, whatever a program says that it agrees to."""
        return bool(self.grants) or not all(build.is_confined for build in self.builds)


def plan_warnings(builds: Sequence[PlannedBuild], *, replaces: str | None, digest: str) -> tuple[str, ...]:
    """Return warnings about an install: code that would run on the host, a version that is replaced."""
    warnings = [
        f"{build.package} has no wheel: building it runs its code on this machine, "
        + ("in a sandbox" if build.is_confined else "OUTSIDE of any sandbox, with all that your user may do")
        for build in builds
    ]
    if replaces is not None and replaces != digest:
        warnings.append("another version of this skill is installed, and will be replaced")
    return tuple(warnings)
