"""The plan of an install, to which a person must agree. `silo.install.installer` asks."""

from __future__ import annotations

from dataclasses import dataclass, field

from silo.catalog.lock import Requirements
from silo.model import SkillHeader


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
        grants: what its name holds that it would get, each in words (`silo.install.grants`). If there are any, silo
            itself asks a person, whatever a program says that it agrees to.
        warnings: for the person who decides, one sentence each.
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
    script: bytes = field(default=b"", repr=False)


def plan_warnings(requirements: Requirements, *, replaces: str | None, digest: str) -> tuple[str, ...]:
    """Return warnings about an install: code that would run on the host, a version that is replaced."""
    warnings = [
        f"{package} has no wheel: building it runs its code on this machine, outside of any sandbox"
        for package in requirements.unbuilt
    ]
    if replaces is not None and replaces != digest:
        warnings.append("another version of this skill is installed, and will be replaced")
    return tuple(warnings)
