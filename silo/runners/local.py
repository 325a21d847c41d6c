"""The runner of this machine: its backends, and the units of its installed skills."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import anyio

from silo.errors import SandboxBroken, UsageError
from silo.model import Isolation, Skill
from silo.runners.base import Placement
from silo.runners.choose import BackendChoice, pick
from silo.runners.units import SkillUnits
from silo.sandbox.base import Backend, OnStep, Probe
from silo.sandbox.skill.base import Description, GuestReply, GuestRequest, OnProgress, Unit
from silo.sandbox.skill.call import open_guest
from silo.sandbox.skill.describe import describe


class LocalRunner:
    """A `silo.runners.base.Runner` for guests of this machine; also gives an installation access to the backends.

    Args:
        backends: strongest first; no two have the same name.
        choice: what the configuration allows.
        units: finds what a guest runs for a skill.
    """

    def __init__(self, backends: Sequence[Backend], choice: BackendChoice, units: SkillUnits) -> None:
        self._backends = {backend.name: backend for backend in backends}
        if len(self._backends) < len(backends):
            raise UsageError("two backends have the same name", hint="give each a name of its own")
        self._choice = choice
        self._units = units

    @property
    def backends(self) -> tuple[str, ...]:
        """The names of the backends, strongest first."""
        return tuple(self._backends)

    async def probe(self, *, refresh: bool = False) -> tuple[Probe, ...]:
        """Say for each backend, strongest first, whether it works here."""
        found: dict[str, Probe] = {}

        async def ask(backend: Backend) -> None:
            found[backend.name] = await backend.probe(refresh=refresh)

        async with anyio.create_task_group() as tasks:
            for backend in self._backends.values():
                tasks.start_soon(ask, backend)
        return tuple(found[name] for name in self._backends)

    async def place(self, *, floor: Isolation | None, named: str | None) -> Placement:
        """As `Runner.place`."""
        backend = await pick(tuple(self._backends.values()), self._choice, floor=floor, named=named)
        return Placement(backend.name, backend.isolation)

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
        """As `Runner.run`."""
        started = time.monotonic()
        unit = await self._units.of(skill, on_step)
        async with open_guest(self._backends[placement.backend], unit, on_step=on_step) as guest:
            if guest.isolation is not placement.isolation:
                # A person agreed to that isolation, and the result will claim it: nothing is sent to another guest.
                raise SandboxBroken(
                    f"the backend '{placement.backend}' started a guest with the isolation '{guest.isolation}' instead "
                    f"of '{placement.isolation}'",
                    hint="report this to the author of the backend; `--backend` names another one",
                )
            opened = time.monotonic()
            reply = await guest.run(request, deadline=opened + timeout_s, on_progress=on_progress)
            answered = time.monotonic()
        phases = {"open": opened - started, "run": answered - opened}
        phases |= {f"run.{name}": seconds for name, seconds in reply.timing.items()}
        return replace(reply, timing={**phases, "close": time.monotonic() - answered})

    async def describe(self, placement: Placement, unit: Unit, *, deadline: float, on_step: OnStep) -> Description:
        """As `silo.sandbox.skill.describe.describe`, with the backend that `place` chose."""
        return await describe(self._backends[placement.backend], unit, deadline=deadline, on_step=on_step)

    async def prune(self, backends: Iterable[str], keep: Iterable[Unit]) -> list[Path]:
        """Delete what the named backends prepared for units that aren't in `keep`; return what was deleted."""
        specs = [unit.spec for unit in keep]
        return [path for name in backends for path in await self._backends[name].prune(specs)]
