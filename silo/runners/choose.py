"""Which backend runs a call: the strongest that works here, never one below the floor. Says why if there is none.

Only this module decides it: `pick` for a call, `choose` from the results of probes (`silo doctor`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from silo.errors import SandboxUnavailable
from silo.model import Isolation
from silo.sandbox.base import Backend, Probe


class NamedBackend(Protocol):
    """A backend, or the result of its probe."""

    @property
    def name(self) -> str:
        """What the backend is called."""
        ...

    @property
    def isolation(self) -> Isolation:
        """The boundary that its guests have."""
        ...


N = TypeVar("N", bound=NamedBackend)


@dataclass(frozen=True)
class BackendChoice:
    """The backends that the configuration allows.

    Attributes:
        backend: the name of the backend that runs calls, or None for the strongest that works.
        floor: the weakest boundary that a backend may have if the call doesn't name it.
    """

    backend: str | None
    floor: Isolation

    def candidates(self, offered: Sequence[N], *, floor: Isolation | None = None, named: str | None = None) -> list[N]:
        """Return the backends that may run a call, in the given order. Does not check whether they work.

        Args:
            offered: all backends, strongest first.
            floor: the skill's own floor, which nothing goes below.
            named: the backend that this call names. It may be below the user's floor, because the user named it, but
                not below the skill's.

        Raises:
            SandboxUnavailable: the backend that was named or configured does not exist, or is too weak.
        """
        if named is not None:
            one = _find(offered, named, hint=f"there are: {_names(offered)}")
            if floor is not None and not one.isolation.is_at_least(floor):
                strong = [each.name for each in offered if each.isolation.is_at_least(floor)]
                use = f", or use `--backend {strong[-1]}`" if strong else ""
                raise SandboxUnavailable(
                    f"the skill asks for at least the isolation '{floor}', and '{named}' is weaker",
                    hint=f"leave out the backend{use}",
                )
            return [one]
        needed = self.needed(floor)
        if self.backend is not None:
            one = _find(
                offered, self.backend, hint=f"there are: {_names(offered)}; change `sandbox.backend` in silo.toml"
            )
            if not one.isolation.is_at_least(needed):
                raise SandboxUnavailable(
                    f"the configured backend '{self.backend}' is weaker than the floor '{needed}'",
                    hint="change `sandbox.backend` or `sandbox.min_isolation` in silo.toml, "
                    "or the skill's `min_isolation`",
                )
            return [one]
        return [each for each in offered if each.isolation.is_at_least(needed)]

    def needed(self, floor: Isolation | None = None) -> Isolation:
        """Return the stronger of the user's floor and a skill's."""
        return floor if floor is not None and floor.is_at_least(self.floor) else self.floor


async def pick(
    backends: Sequence[Backend], choice: BackendChoice, *, floor: Isolation | None = None, named: str | None = None
) -> Backend:
    """Return the backend for one call or one installation; arguments as in `BackendChoice.candidates`.

    Raises:
        SandboxUnavailable: no backend that is strong enough works here; the hint says how to get one.
    """
    failed: list[Probe] = []
    for backend in choice.candidates(backends, floor=floor, named=named):
        probe = await backend.probe()
        if probe.works:
            return backend
        failed.append(probe)
    raise _refusal(choice, backends, failed, floor=floor, named=named)


def choose(probes: Sequence[Probe], choice: BackendChoice) -> Probe:
    """Return the probe of the backend that calls get, given the probes of all backends, strongest first.

    Raises:
        SandboxUnavailable: as `pick`.
    """
    candidates = choice.candidates(probes)
    for probe in candidates:
        if probe.works:
            return probe
    raise _refusal(choice, probes, candidates)


def _refusal(
    choice: BackendChoice,
    offered: Sequence[NamedBackend],
    failed: Sequence[Probe],
    *,
    floor: Isolation | None = None,
    named: str | None = None,
) -> SandboxUnavailable:
    """Say why none of the candidates can run a call: `failed` are their probes."""
    if named is not None or choice.backend is not None:
        (probe,) = failed
        return SandboxUnavailable(
            f"the backend '{probe.name}' does not work here: {_reasons(probe)}", hint=probe.hint or "run `silo doctor`"
        )
    needed = choice.needed(floor)
    reasons = "; ".join(f"{probe.name}: {_reasons(probe)}" for probe in failed) or "there is none"
    hint = next((probe.hint for probe in failed if probe.hint), "run `silo doctor`")
    weaker = [one.name for one in offered if not one.isolation.is_at_least(needed)]
    if weaker:
        hint += f"; or accept less for this call with `--backend {weaker[0]}`, which is weaker"
    return SandboxUnavailable(f"no sandbox with at least the isolation '{needed}' works here ({reasons})", hint=hint)


def _find(offered: Sequence[N], name: str, *, hint: str) -> N:
    for one in offered:
        if one.name == name:
            return one
    raise SandboxUnavailable(f"this version of silo has no backend '{name}'", hint=hint)


def _names(offered: Sequence[NamedBackend]) -> str:
    return ", ".join(one.name for one in offered)


def _reasons(probe: Probe) -> str:
    return "; ".join(probe.missing) or "its probe failed"
