"""Which backend runs a call: the strongest that works here, never one below the floor. It says why when there is none."""

from __future__ import annotations

from collections.abc import Sequence

from silo.errors import SandboxUnavailable
from silo.model import Isolation
from silo.sandbox.base import Backend, Probe


class Sandboxes:
    """The backends of this machine, and what the user allows.

    Args:
        backends: strongest first.
        backend: the one that the configuration names, or None for `auto`.
        floor: the weakest boundary that may be chosen without being named.
    """

    def __init__(self, backends: Sequence[Backend], *, backend: Isolation | None, floor: Isolation) -> None:
        self._backends = tuple(backends)
        self._configured = backend
        self._floor = floor

    async def pick(self, *, floor: Isolation | None = None, named: Isolation | None = None) -> Backend:
        """Return the backend for one call or one installation.

        Args:
            floor: the skill's own floor, which nothing goes below.
            named: the backend that was named for this call alone; it may be weaker than the user's floor, because naming it is
                saying so, but not than the skill's.

        Raises:
            SandboxUnavailable: none that is strong enough works here; the hint says how to get one.
        """
        if named is not None:
            if floor is not None and not named.is_at_least(floor):
                raise SandboxUnavailable(
                    f"the skill asks for at least the isolation '{floor}', and '{named}' is weaker",
                    hint=f"leave out the backend, or use `--backend {floor}`",
                )
            return await self._working(named)
        if self._configured is not None:
            needed = self._stronger(floor)
            if not self._configured.is_at_least(needed):
                raise SandboxUnavailable(
                    f"the configured backend '{self._configured}' is weaker than the floor '{needed}'",
                    hint="change `sandbox.backend` or `sandbox.min_isolation` in silo.toml, or the skill's `min_isolation`",
                )
            return await self._working(self._configured)
        return await self._strongest(self._stronger(floor))

    async def probe(self, *, refresh: bool = False) -> tuple[Probe, ...]:
        """Find out what works here, strongest first."""
        return tuple([await backend.probe(refresh=refresh) for backend in self._backends])

    def _stronger(self, floor: Isolation | None) -> Isolation:
        return floor if floor is not None and floor.is_at_least(self._floor) else self._floor

    async def _working(self, isolation: Isolation) -> Backend:
        backend = next((b for b in self._backends if b.isolation == isolation), None)
        if backend is None:
            raise SandboxUnavailable(
                f"this version of silo has no backend '{isolation}'",
                hint=f"there are: {', '.join(b.isolation for b in self._backends)}",
            )
        probe = await backend.probe()
        if not probe.works:
            raise SandboxUnavailable(
                f"the backend '{isolation}' does not work here: {_reasons(probe)}", hint=probe.hint
            )
        return backend

    async def _strongest(self, floor: Isolation) -> Backend:
        failed: list[Probe] = []
        for backend in self._backends:
            if not backend.isolation.is_at_least(floor):
                continue
            probe = await backend.probe()
            if probe.works:
                return backend
            failed.append(probe)
        reasons = "; ".join(f"{probe.isolation}: {_reasons(probe)}" for probe in failed)
        weaker = [b.isolation for b in self._backends if not b.isolation.is_at_least(floor)]
        hint = next((probe.hint for probe in failed if probe.hint), "run `silo doctor`")
        if weaker:
            hint += f"; or accept less for this call with `--backend {weaker[0]}`, which is weaker"
        raise SandboxUnavailable(f"no sandbox with at least the isolation '{floor}' works here ({reasons})", hint=hint)


def _reasons(probe: Probe) -> str:
    return "; ".join(probe.missing) or "its probe failed"
