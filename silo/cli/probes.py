"""What the probes of the backends mean for this machine, for commands to show.

`silo.runners.choose` decides which backend calls get.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from silo.errors import SandboxUnavailable
from silo.runners.choose import BackendChoice, choose
from silo.sandbox.base import Probe

if TYPE_CHECKING:  # it defines pydantic's models
    from silo.config.schema import Config

COLUMNS = ("BACKEND", "WORKS", "WHAT WAS FOUND")


def chosen(probes: Sequence[Probe], config: Config) -> tuple[Probe, None] | tuple[None, SandboxUnavailable]:
    """Return the probe of the backend that calls get, or the error that they get. Probes are strongest first."""
    named = None if config.sandbox.backend == "auto" else config.sandbox.backend
    try:
        return choose(probes, BackendChoice(named, config.sandbox.min_isolation)), None
    except SandboxUnavailable as error:
        return None, error


def rows(probes: Sequence[Probe]) -> list[tuple[str, str, str]]:
    """Return the rows of a table with `COLUMNS`: one for each backend, and one for each of its findings."""
    table = []
    for probe in probes:
        table.append((probe.name, "yes" if probe.works else "no", probe.detail))
        said = [("missing", one) for one in probe.missing] + [("note", one) for one in probe.notes]
        said += [("hint", probe.hint)] if probe.hint else []
        table += [("", "", f"{label}: {text}") for label, text in said]
    return table
