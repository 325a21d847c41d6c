"""A skill can forge only its own answer: whatever it sends to silo, the call ends with an answer or an error.

The process that runs the skill owns the channel, so silo doesn't claim secrecy. It claims that the host does not crash,
does not hang beyond the deadline, uses no more memory than the limits allow, and keeps serving meanwhile.
"""

import resource
import signal

import anyio
import pytest

from silo.errors import (
    ResultInvalid,
    ResultTooLarge,
    SandboxBroken,
    SandboxLost,
    SandboxTimeout,
    SkillExited,
    SkillFailed,
)
from silo.testing import PATIENCE_S
from silo.wire.messages import Finished

pytestmark = pytest.mark.anyio

BROKEN = [
    "garbage", "zeros", "gigantic length", "not json", "deep json", "type is a list", "type is an object",
    "huge number", "lone surrogate", "duplicate key", "resume", "described", "rehearsed", "booted", "exited",
    "file with a path", "negative file", "file longer than announced", "file of empty pieces", "file of single bytes",
    "blob first", "number as a message", "null as a message", "endless traceback", "millions of lists", "many keys",
]  # fmt: skip

ENDLESS = [
    "longest length, never filled",
    "file that never comes",
    "never-ending progress",
    "drip",
]


@pytest.mark.parametrize("how", BROKEN)
async def test_a_broken_protocol_is_an_error_at_once(attempt, how):
    with pytest.raises(ResultInvalid):
        await attempt("forge", how=how, deadline_s=PATIENCE_S)


async def test_a_file_beyond_the_limit_is_refused_before_it_is_read(attempt):
    with pytest.raises(ResultTooLarge):
        await attempt("forge", how="gigantic file", deadline_s=PATIENCE_S)


async def test_the_error_about_a_wrong_field_says_which_it_is(attempt):
    """A number in `failed.message` was an internal error of silo."""
    with pytest.raises(ResultInvalid, match="the field 'message' of 'failed' must be a string of at most 4,000"):
        await attempt("forge", how="number as a message", deadline_s=PATIENCE_S)


@pytest.fixture
def alarm():
    """Interrupts the test if the event loop is blocked, because then timeouts don't work either."""

    def ring(*_):
        raise TimeoutError("the event loop was held up for minutes")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(int(PATIENCE_S))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("how", ENDLESS)
async def test_what_never_ends_is_ended_by_the_deadline_and_holds_up_nobody(attempt, how):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await anyio.sleep(0.02)
            ticks += 1

    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        with anyio.fail_after(PATIENCE_S), pytest.raises(SandboxTimeout):
            await attempt("forge", how=how, deadline_s=1.5)
        tasks.cancel_scope.cancel()
    assert ticks >= 10  # other tasks ran, if less often than usual
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000  # KiB


@pytest.mark.parametrize("how", ["finished", "finished twice"])
async def test_a_skill_can_forge_only_its_own_answer(attempt, how):
    reply = await attempt("forge", how=how)
    assert reply.outcome == Finished("forged")


@pytest.mark.parametrize("how", ["close", "close every descriptor"])
async def test_a_closed_channel_is_an_end(attempt, how):
    with pytest.raises((SandboxLost, SandboxBroken, SandboxTimeout, SkillExited)):
        await attempt("forge", how=how, deadline_s=2)


async def test_writing_to_every_descriptor_hurts_only_the_call(attempt):
    with pytest.raises(SkillFailed):
        await attempt("forge", how="every descriptor", deadline_s=PATIENCE_S)


@pytest.mark.parametrize("how", ["control by number", "first process"])
async def test_the_first_process_of_the_guest_is_out_of_reach(attempt, how):
    """Otherwise only the guest would end, but silo could not tell a crash from a lie."""
    reply = await attempt("forge", how=how, deadline_s=PATIENCE_S)
    assert reply.outcome.text == "survived"
