"""The runner of this machine, with fake backends: a call runs where it was placed, and reports its phases."""

from contextlib import asynccontextmanager

import pytest

from silo.errors import SandboxBroken, SkillRaised, UsageError
from silo.model import Isolation
from silo.runners.choose import BackendChoice
from silo.runners.local import LocalRunner
from silo.runners.units import SkillUnits
from silo.sandbox.base import Limits
from silo.sandbox.skill.base import GuestRequest
from silo.testing.fakes import FakeBackend, FakeImages, fake_unit, make_skill

pytestmark = pytest.mark.anyio

ANY = BackendChoice(None, Isolation.NAMESPACE)


async def no_interpreter(executable):
    return None


@pytest.fixture
def runner_of(tmp_path):
    class Units(SkillUnits):
        async def of(self, skill, on_step):
            return fake_unit(skill.namespace, skill.digest)

    units = Units(FakeImages(tmp_path), Limits(), no_interpreter)
    return lambda *backends, choice=ANY: LocalRunner(backends, choice, units)


async def run(runner, placement, **arguments):
    request = GuestRequest("echo", arguments)
    return await runner.run(
        placement, make_skill(), request, timeout_s=30, on_progress=lambda progress: None, on_step=lambda step: None
    )


async def test_a_call_runs_on_the_backend_that_was_named_and_no_other_of_the_same_isolation(runner_of):
    one, two = FakeBackend(name="one"), FakeBackend(name="two")
    runner = runner_of(one, two)
    assert (await runner.place(floor=None, named=None)).backend == "one"
    placement = await runner.place(floor=Isolation.MICROVM, named="two")
    assert (placement.backend, placement.isolation) == ("two", Isolation.MICROVM)
    await run(runner, placement)
    assert (len(one.requests), len(two.requests)) == (0, 1)
    assert [probe.name for probe in await runner.probe()] == ["one", "two"]
    with pytest.raises(UsageError, match="same name"):
        runner_of(one, FakeBackend(name="one"))


async def test_a_guest_of_another_isolation_than_was_agreed_to_gets_nothing(runner_of):
    """The person who was asked saw the isolation of the placement, and the result claims it."""

    class Cheat(FakeBackend):
        @asynccontextmanager
        async def start(self, spec):
            async with super().start(spec) as guest:
                guest.isolation = Isolation.NAMESPACE
                yield guest

    backend = Cheat()
    runner = runner_of(backend)
    with pytest.raises(SandboxBroken, match="'namespace' instead of 'microvm'"):
        await run(runner, await runner.place(floor=None, named=None))
    assert backend.requests == []


async def test_a_reply_tells_its_phases_in_order_and_what_the_guest_says_of_itself(runner_of):
    runner = runner_of(FakeBackend())
    reply = await run(runner, await runner.place(floor=None, named=None), text="ä")
    assert reply.outcome.data == {"text": "ä"}
    assert list(reply.timing) == ["open", "run", "run.import", "close"]
    assert dict(reply.facts) == {"kernel": "0.0-fake", "python": "3.11.7", "backend": "a fake"}


@pytest.mark.parametrize("error", [SkillRaised("no", hint="h"), ZeroDivisionError()])
async def test_what_a_fake_guest_raises_comes_out_as_it_is_and_the_guest_is_gone(runner_of, error):
    async def fail(request, on_progress):
        raise error

    backend = FakeBackend(fail)
    runner = runner_of(backend)
    with pytest.raises(type(error)) as caught:
        await run(runner, await runner.place(floor=None, named=None))
    assert caught.value is error
    assert backend.running == 0


async def test_a_guest_that_dies_is_an_error_of_the_sandbox_with_its_last_words(runner_of):
    class Dying(FakeBackend):
        async def _serve(self, guest):
            guest._hang_up()

    runner = runner_of(Dying())
    with pytest.raises(SandboxBroken, match=r"was lost.*it was a fake") as caught:
        await run(runner, await runner.place(floor=None, named=None))
    assert caught.value.hint == "tell it to live"


async def test_pruning_keeps_the_units_that_are_named(runner_of):
    notes = []
    runner = runner_of(FakeBackend(notes=notes))
    await runner.prune(runner.backends, [fake_unit("demo", "d" * 64)])
    assert notes == ["prune all but 1"]
