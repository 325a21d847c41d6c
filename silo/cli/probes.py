"""What the backends' probes mean for this machine: whether the configured floor is met, and how to show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from silo.errors import SandboxUnavailable
from silo.model import Isolation
from silo.sandbox.base import Probe

if TYPE_CHECKING:  # it defines pydantic's models
    from silo.config.schema import Config

COLUMNS = ("BACKEND", "WORKS", "WHAT WAS FOUND")


def chosen(probes: Sequence[Probe], config: Config) -> Probe | None:
    """Return the probe of the backend that a call would get, or None if the floor can't be met.

    Args:
        probes: strongest backend first.
        config: has the floor, and maybe the name of a backend.
    """
    floor, named = config.sandbox.min_isolation, config.sandbox.backend
    fitting = (probe for probe in probes if probe.works and probe.isolation.is_at_least(floor))
    return next((probe for probe in fitting if named in ("auto", probe.isolation.value)), None)


def require_floor(probes: Sequence[Probe], config: Config) -> Probe:
    """Return the probe of the backend that a call would get, as `chosen` does.

    Raises:
        SandboxUnavailable: the floor can't be met; the hint says what to do first.
    """
    found = chosen(probes, config)
    if found is not None:
        return found
    floor, named = config.sandbox.min_isolation, config.sandbox.backend
    if named != "auto" and not Isolation(named).is_at_least(floor):
        raise SandboxUnavailable(
            f"the configured backend '{named}' is weaker than the floor '{floor}'",
            hint="change `sandbox.backend` or `sandbox.min_isolation` in silo.toml",
        )
    wanted = [one for one in probes if one.isolation.is_at_least(floor) and named in ("auto", one.isolation.value)]
    hint = next((one.hint for one in wanted if one.hint), "run `silo setup` to get what is missing")
    raise SandboxUnavailable(f"no sandbox with at least the isolation '{floor}' works here", hint=hint)


def rows(probes: Sequence[Probe]) -> list[tuple[str, str, str]]:
    """Return the rows of a table with `COLUMNS`: one for each backend, and one for each of its findings."""
    table = []
    for probe in probes:
        table.append((probe.isolation.value, "yes" if probe.works else "no", probe.detail))
        said = [("missing", one) for one in probe.missing] + [("note", one) for one in probe.notes]
        said += [("hint", probe.hint)] if probe.hint else []
        table += [("", "", f"{label}: {text}") for label, text in said]
    return table
