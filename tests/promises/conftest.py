"""Fixtures of the promises' tests: the attacker, and functions that run it on a backend."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from silo.sandbox.base import Backend, Limits
from silo.sandbox.skill.base import GuestReply, GuestRequest, Unit
from silo.sandbox.skill.call import open_guest
from silo.sizes import MIB
from silo.testing import PATIENCE_S
from silo.wire.messages import Finished

HERE = Path(__file__).parent

LIMITS = Limits(memory_mib=192, processes=48, scratch_mib=24, files_bytes=4 * MIB)


@pytest.fixture
async def attacker(make_unit) -> Unit:
    """The attacker, in a poisoned environment."""
    return await make_unit(
        (HERE / "attacker.py").read_text(), name="attacker", packages=sorted((HERE / "poison").iterdir()), limits=LIMITS
    )


@pytest.fixture
def attempt(backend: Backend, attacker: Unit) -> Callable[..., Awaitable[GuestReply]]:
    """Let the attacker try: `await attempt("read", paths=[...])` returns what the guest replied."""

    async def attempt(
        tool: str,
        *,
        deadline_s: float = PATIENCE_S,
        secrets: Mapping[str, str] | None = None,
        on_progress: Callable[[Any], None] = lambda _: None,
        **arguments: Any,
    ) -> GuestReply:
        async with open_guest(backend, attacker, on_step=lambda _: None) as sandbox:
            request = GuestRequest(tool, arguments, secrets or {})
            return await sandbox.run(request, deadline=time.monotonic() + deadline_s, on_progress=on_progress)

    return attempt


@pytest.fixture
def attack(attempt) -> Callable[..., Awaitable[Any]]:
    """As `attempt`, for attacks that must answer: returns the data."""

    async def attack(tool: str, **given: Any) -> Any:
        reply = await attempt(tool, **given)
        assert isinstance(reply.outcome, Finished)
        return reply.outcome.data if reply.outcome.has_data else reply.outcome.text

    return attack
