"""The contract of a runner: decide where a call will run, then run it there.

`silo.runners.local` runs calls on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from silo.model import Isolation, Skill
from silo.sandbox.base import OnStep
from silo.sandbox.skill.base import GuestReply, GuestRequest, OnProgress


@dataclass(frozen=True)
class Placement:
    """Where a call will run. It is known before a person is asked, because the question says how the call is isolated.

    Attributes:
        backend: the name of the backend.
        isolation: the boundary that its guests have.
    """

    backend: str
    isolation: Isolation


class Runner(Protocol):
    """Runs calls, each in a guest of its own."""

    async def place(self, *, floor: Isolation | None, named: str | None) -> Placement:
        """Decide where a call will run. Nothing is started.

        Args:
            floor: the skill's own floor, which nothing goes below.
            named: the name of the backend that was asked for, or None for the configured choice.

        Raises:
            SandboxUnavailable: no backend that is strong enough works.
        """
        ...

    async def run(
        self,
        placement: Placement,
        skill: Skill,
        request: GuestRequest,
        *,
        timeout_s: float,
        on_progress: OnProgress,
        on_step: OnStep,
    ) -> GuestReply:
        """Run one call in a fresh guest; when this returns or raises, no process of the guest is alive.

        The reply's timing has the phases `open`, `run`, the parts of `run` that the guest's side reported
        (`run.import`), and `close`.

        Args:
            placement: what `place` decided.
            skill: the skill; its image was built when it was installed.
            request: what the guest executes.
            timeout_s: how long the guest may take, counted from its start.
            on_progress: receives the skill's progress, on the event loop; must not block.
            on_step: called with each longer step on the way.

        Raises:
            SandboxUnavailable: the backend that `place` chose does not work any more.
            SandboxBroken: the guest did not start, died, or did not end; or the skill's image is gone.
            SkillFailed: one subclass for each way the skill can fail, as
                `silo.sandbox.skill.call.SkillGuest.run` lists them; `SandboxTimeout` among them.
        """
        ...
