"""Which backend runs a call: never one below the floor, unless somebody named it."""

import itertools

import pytest

from silo.errors import SandboxUnavailable
from silo.model import Isolation
from silo.runners.choose import BackendChoice, choose, pick
from silo.testing.fakes import FakeBackend

pytestmark = pytest.mark.anyio

KINDS = [Isolation.MICROVM, Isolation.GVISOR, Isolation.NAMESPACE]


async def check_that_both_ways_agree(backends, choice):
    """What calls get is what `silo doctor` says they get, refusals included."""
    outcomes = []
    for way in ("pick", "choose"):
        try:
            one = await pick(backends, choice) if way == "pick" else choose([await b.probe() for b in backends], choice)
            outcomes.append(one.name)
        except SandboxUnavailable as error:
            outcomes.append((error.message, error.hint))
    assert outcomes[0] == outcomes[1]


async def test_every_choice_keeps_every_floor():
    """All combinations of what works, what is configured, what user and skill ask for, and what the call names."""
    some = [None, *KINDS]
    for works in itertools.product([True, False], repeat=3):
        backends = [FakeBackend(isolation=kind, works=it_works) for kind, it_works in zip(KINDS, works, strict=True)]
        for configured, floor, of_skill, named in itertools.product(some, KINDS, some, some):
            choice = BackendChoice(configured, floor)
            if of_skill is None and named is None:
                await check_that_both_ways_agree(backends, choice)
            try:
                picked = await pick(backends, choice, floor=of_skill, named=named)
            except SandboxUnavailable as error:
                assert error.hint  # noqa: PT017 - both ways are right here, and checked
                fitting = [
                    kind
                    for kind, it_works in zip(KINDS, works, strict=True)
                    if it_works
                    and (of_skill is None or kind.is_at_least(of_skill))
                    and (named in (None, kind))
                    and (named is not None or (kind.is_at_least(floor) and configured in (None, kind)))
                ]
                assert fitting == [], (works, configured, floor, of_skill, named)
                continue
            assert works[KINDS.index(picked.isolation)]
            assert of_skill is None or picked.isolation.is_at_least(of_skill)
            assert named is None or picked.isolation is named
            assert named is not None or picked.isolation.is_at_least(floor)
            assert named is not None or configured in (None, picked.isolation)


async def test_of_those_that_work_the_strongest_is_taken():
    backends = [FakeBackend(isolation=kind, works=kind is not Isolation.MICROVM) for kind in KINDS]
    picked = await pick(backends, BackendChoice(None, Isolation.NAMESPACE))
    assert picked.isolation is Isolation.GVISOR


async def test_a_refusal_says_what_is_missing_and_what_else_there_would_be():
    backends = [FakeBackend(isolation=Isolation.MICROVM, works=False), FakeBackend(isolation=Isolation.NAMESPACE)]
    with pytest.raises(SandboxUnavailable, match="it was told not to work") as caught:
        await pick(backends, BackendChoice(None, Isolation.MICROVM))
    assert "tell it to" in caught.value.hint
    assert "--backend namespace" in caught.value.hint


async def test_a_backend_that_this_silo_does_not_have_is_refused():
    with pytest.raises(SandboxUnavailable, match="no backend 'gvisor'"):
        await pick([FakeBackend()], BackendChoice(None, Isolation.MICROVM), named="gvisor")


async def test_two_backends_of_one_isolation_stand_beside_each_other():
    """A backend is named by its name; how strongly it isolates is another matter."""
    one, two = FakeBackend(name="one"), FakeBackend(name="two")
    for configured, named, expected in [(None, None, one), ("two", None, two), (None, "two", two), ("two", "one", one)]:
        assert await pick([one, two], BackendChoice(configured, Isolation.MICROVM), named=named) is expected
    broken = [FakeBackend(name="one", works=False), two]
    assert await pick(broken, BackendChoice(None, Isolation.MICROVM)) is two
    with pytest.raises(SandboxUnavailable, match="no backend 'microvm'") as caught:
        await pick(broken, BackendChoice(None, Isolation.MICROVM), named="microvm")
    assert "one, two" in caught.value.hint
