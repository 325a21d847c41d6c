"""Runs one call of a skill in its own guest."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from silo.errors import SandboxBroken, SandboxLost, SkillCrashed, SkillFailed, SkillOutOfMemory
from silo.model import Isolation
from silo.sandbox.base import Backend, Guest, OnStep, Preparing
from silo.sandbox.skill.base import GuestReply, GuestRequest, OnProgress, Unit
from silo.sandbox.skill.describe import SkillProgram, to_link

_PREPARE_S = 120.0
"""How long preparing may take if a call finds nothing prepared; emulated guests are slow to boot."""


class SkillGuest:
    """A fresh guest for one call. It can't be reused, and holds no state once `run` returns."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    @property
    def isolation(self) -> Isolation:
        """The boundary that this guest really has."""
        return self._guest.isolation

    async def run(self, request: GuestRequest, *, deadline: float, on_progress: OnProgress) -> GuestReply:
        """Run the skill once; when the surrounding `open_guest` ends, no process of the guest is alive.

        Args:
            request: what the guest executes.
            deadline: a reading of `time.monotonic()` in seconds, not a duration.
            on_progress: receives the skill's progress.

        Raises:
            SandboxTimeout: the deadline passed.
            SkillRaised, ArgumentsRefused, SecretUndeclared: the tool reported this instead of a result.
            SkillExited, SkillCrashed, SkillOutOfMemory, SkillFlooded: the skill's process ended without a result.
            SkillSyntaxError, SkillImportError, SkillMetadataInvalid: the skill behaves differently than at its install.
            ResultTooLarge, ResultInvalid: the result breaks the limits or the protocol.
            SandboxBroken: the guest is gone, although silo did not end it.
        """
        try:
            return await self._run(request, deadline, on_progress)
        except SkillCrashed as error:
            if (await self._guest.end()).is_out_of_memory:
                raise _out_of_memory(error) from None
            raise
        except SandboxLost as error:
            ended = await self._guest.end()
            if ended.is_out_of_memory:
                raise _out_of_memory(error) from error
            raise SandboxBroken(f"{error} ({ended.last_words})", hint=ended.hint) from error

    async def _run(self, request: GuestRequest, deadline: float, on_progress: OnProgress) -> GuestReply:
        guest, link, timing = self._guest, to_link(self._guest), {}
        if guest.kept is None:
            started = time.monotonic()
            await link.describe(deadline=deadline)
            timing["import"] = time.monotonic() - started
            await link.resume(guest.name)
            facts = link.facts
        else:
            facts = guest.kept["facts"]
        reply = await link.run(request, deadline=deadline, on_progress=on_progress)
        return replace(reply, timing=timing, facts={**facts, **guest.facts})


@asynccontextmanager
async def open_guest(backend: Backend, unit: Unit, *, on_step: OnStep) -> AsyncIterator[SkillGuest]:
    """Start a fresh guest for a call; leaving the context always ends it, and waits until it is gone.

    Raises:
        SandboxUnavailable: the backend does not work here.
        SandboxBroken: the guest did not start, or did not end.
        SkillFailed: nothing was prepared yet, and the skill could not be imported (as
            `silo.sandbox.skill.describe.describe`).
    """
    if isinstance(backend, Preparing):
        deadline = time.monotonic() + _PREPARE_S
        prepared = await backend.prepare(unit.spec, SkillProgram(), deadline=deadline, on_step=on_step)
        starting = prepared.start()
    else:
        starting = backend.start(unit.spec)
    async with starting as guest:
        yield SkillGuest(guest)


def _out_of_memory(error: SkillFailed) -> SkillOutOfMemory:
    return SkillOutOfMemory(
        "the skill needed more memory than its guest has",
        hint="raise `memory_mib` in the skill's header, or give it less to do",
        stdout=error.stdout,
        stderr=error.stderr,
    )
