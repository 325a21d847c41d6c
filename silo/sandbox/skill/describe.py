"""Gets a skill's description of itself by importing it in a guest. Also what a backend needs to copy such a guest."""

from __future__ import annotations

import time

from silo.sandbox.base import Backend, Guest, OnStep, Preparing, Ready
from silo.sandbox.skill.base import Description, Unit
from silo.sandbox.skill.link import GuestLink


class SkillProgram:
    """The skill runner as a `silo.sandbox.base.Program`, for backends that copy guests."""

    async def start_up(self, guest: Guest, *, deadline: float) -> Ready:
        """Wait until the skill is imported; keep its description of itself."""
        link = to_link(guest)
        described = await link.describe(deadline=deadline)
        kept = {"skill": described.skill, "facts": dict(link.facts)}
        return Ready(kept, {"import": described.import_s, "warmup": described.warmup_s})

    async def hold(self, guest: Guest, *, deadline: float) -> float:
        """Let no process of the skill run until `wake`."""
        return await to_link(guest).hold(deadline=deadline) / 1e9

    async def wake(self, guest: Guest) -> None:
        """Give the copy entropy, the time and its own name, and let the skill run."""
        await to_link(guest).resume(guest.name)

    async def rehearse(self, guest: Guest, *, deadline: float) -> None:
        """Go through the path of a call once."""
        await to_link(guest).rehearse(deadline=deadline)


def to_link(guest: Guest) -> GuestLink:
    """Return the host's end of the conversation with a guest.

    It has no state between two exchanges, so each step makes a new one.
    """
    return GuestLink(guest.streams, guest.spec.limits, name=guest.spec.name)


async def describe(backend: Backend, unit: Unit, *, deadline: float, on_step: OnStep) -> Description:
    """Import the unit's skill in a guest and return its description of itself. Prepares what later calls need.

    Args:
        backend: runs the guest.
        unit: the skill.
        deadline: a reading of `time.monotonic()` in seconds, by which the import must have ended.
        on_step: called with each longer step.

    Raises:
        SkillSyntaxError, SkillImportError, SkillMetadataInvalid: the script cannot be used.
        SandboxTimeout, SkillCrashed, SkillExited, SkillOutOfMemory, SkillFlooded: the import ended without a result.
        ResultInvalid, SandboxLost: the answer isn't a description; the guest died.
        SandboxUnavailable, SandboxBroken: the guest could not be started or saved.
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
