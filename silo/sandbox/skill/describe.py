"""Asking a skill what it is: a guest imports it and says so. Also what a backend needs to copy such a guest."""

from __future__ import annotations

import time

from silo.sandbox.base import Backend, Guest, OnStep, Preparing, Ready
from silo.sandbox.skill.base import Description, Unit
from silo.sandbox.skill.link import GuestLink


class SkillProgram:
    """The skill runner, as a backend sees it that makes copies of guests: `silo.sandbox.base.Program`."""

    async def start_up(self, guest: Guest, *, deadline: float) -> Ready:
        """Wait until the skill is imported; keep what it says of itself."""
        link = to_link(guest)
        described = await link.describe(deadline=deadline)
        kept = {"skill": described.skill, "facts": dict(link.facts)}
        return Ready(kept, {"import": described.import_s, "warmup": described.warmup_s})

    async def wake(self, guest: Guest) -> None:
        """Give it entropy, the time and a name of its own, and open the gate."""
        await to_link(guest).resume(guest.name)

    async def rehearse(self, guest: Guest, *, deadline: float) -> None:
        """Go through the path of a call once."""
        await to_link(guest).rehearse(deadline=deadline)


def to_link(guest: Guest) -> GuestLink:
    """Return the host's end of the conversation with a guest.

    Between two exchanges it holds nothing, so each step of a guest's life makes its own.
    """
    return GuestLink(guest.streams, guest.spec.limits, name=guest.spec.name)


async def describe(backend: Backend, unit: Unit, *, deadline: float, on_step: OnStep) -> Description:
    """Import the unit's skill in a guest and return what it says of itself, preparing what later calls need.

    Args:
        backend: runs the guest.
        unit: the skill.
        deadline: a reading of `time.monotonic()` in seconds, for the import to have ended.
        on_step: told each longer step.

    Raises:
        SkillSyntaxError, SkillImportError, SkillMetadataInvalid: the script cannot be used.
        SandboxTimeout, SkillCrashed, SkillExited, SkillOutOfMemory, SkillFlooded: how the import ended instead.
        ResultInvalid, SandboxLost: what came is not a description; the guest died.
        SandboxUnavailable, SandboxBroken: the guest did not start, or could not be kept.
    """
    if isinstance(backend, Preparing):
        prepared = await backend.prepare(unit.spec, SkillProgram(), deadline=deadline, on_step=on_step)
        return Description(prepared.ready.kept["skill"], backend.isolation, prepared.ready.timing)
    on_step(f"importing '{unit.name}' in a {backend.name} sandbox")
    started = time.monotonic()
    async with backend.start(unit.spec) as guest:
        ready = await SkillProgram().start_up(guest, deadline=deadline)
        timing = {**ready.timing, "total": time.monotonic() - started}
    return Description(ready.kept["skill"], backend.isolation, timing)
