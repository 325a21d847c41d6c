"""Promise 7 where no control group can be made: no guest of the namespace backend but one that the user allowed.

The backend is told of a machine without control groups, so these tests are the same everywhere.
"""

import pytest

from silo.errors import SandboxUnavailable, SkillOutOfMemory
from silo.sandbox.backends.namespace.backend import NamespaceBackend
from silo.sandbox.backends.namespace.place import Host
from silo.sandbox.skill.call import open_guest

pytestmark = pytest.mark.anyio


@pytest.fixture
def nowhere(tmp_path):
    return Host(tmp_path / "mountinfo", tmp_path / "cgroup", tmp_path / "runtime")


@pytest.fixture
def backend(nowhere):
    return NamespaceBackend(allow_unlimited=["memory"], host=nowhere)


async def test_without_a_bound_on_memory_no_guest_starts(attacker, nowhere):
    """A past bug: it started, with limits for each process alone, and `silo doctor` only made a note."""
    refusing = NamespaceBackend(host=nowhere)
    probe = await refusing.probe()
    assert not probe.works
    assert "a guest's memory has no limit" in probe.missing[0]
    assert 'allow_unlimited = ["memory"]' in probe.hint
    assert "loginctl enable-linger" in probe.hint
    with pytest.raises(SandboxUnavailable, match="memory has no limit"):
        async with open_guest(refusing, attacker, on_step=lambda _: None):
            raise AssertionError("it started")


async def test_what_the_user_allowed_is_told_and_starts(attack, backend):
    probe = await backend.probe()
    assert probe.works
    assert any("allowed by `sandbox.allow_unlimited`" in note for note in probe.notes)
    assert any("RLIMIT_NPROC" in note for note in probe.notes)
    assert (await attack("look"))["uid"]


async def test_the_reply_of_such_a_call_says_so(attempt):
    assert "memory without a limit" in (await attempt("look")).facts["backend"]


async def test_processes_and_private_memory_still_have_an_end(attack, attempt, attacker):
    """Root's processes too (a past bug): RLIMIT_NPROC does not bind user 0, which no guest is any more."""
    started = await attack("multiply")
    assert 5 < started["processes"] <= attacker.limits.processes
    assert 5 < started["threads"] <= attacker.limits.processes
    with pytest.raises(SkillOutOfMemory):
        await attempt("hoard", where="itself")
