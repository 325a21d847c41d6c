"""Promises 5 and 6: before policy and a person agree, nothing is unlocked and no guest starts; no answer means denial.

`tests/silo/calls/test_pipeline.py` shows the order of all steps with fakes. Here it is the whole runtime, with a vault
that can't be opened unnoticed, and real backends that would leave a process.
"""

import os

import pytest
from silo_interaction import Answer

from silo.audit.log import read
from silo.errors import ApprovalRequired, ArgumentsInvalid, CallDenied, SiloError, ToolUnknown, VaultLocked
from silo.model import Isolation
from silo.runtime import Runtime
from silo.testing.fakes import FakeBackend, FakeImages, ScriptedChannel

pytestmark = pytest.mark.anyio

SCRIPT = """\
# /// script
# requires-python = ">=3.11"
# [tool.silo]
# namespace = "guarded"
# [tool.silo.secrets.KEY]
# ///
"""

TOOL = {
    "name": "act",
    "description": "Act.",
    "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False},
    "output_schema": None,
    "require_approval": True,
    "time_to_live": 600,
    "secrets": ["KEY"],
    "network": None,
    "title": None,
    "read_only": None,
    "destructive": None,
    "idempotent": None,
}


async def agree(plan):
    return True


@pytest.fixture
async def make(tmp_path):
    (tmp_path / "skill.py").write_text(SCRIPT)
    environ = {name: os.environ[name] for name in ("PATH", "HOME")}
    notes: list[str] = []
    backend = FakeBackend(
        isolation=Isolation.MICROVM,
        described={"namespace": "guarded", "summary": "", "instructions": None, "tools": [TOOL]},
        notes=notes,
    )

    def make(**fields):
        # There is no key, so opening the vault fails with an error.
        fields = {"environ": environ} | fields
        return Runtime(home=tmp_path / "home", backends=[backend], images=FakeImages(tmp_path / "images"), **fields)

    make.notes = notes
    make.environ = environ
    async with make() as silo:
        await silo.install(str(tmp_path / "skill.py"), agree=agree)
    notes.clear()
    return make


@pytest.mark.parametrize(
    ("channel", "headless", "tool", "arguments", "kind"),
    [
        (None, False, "guarded.act", {}, ApprovalRequired),
        (None, True, "guarded.act", {}, ApprovalRequired),
        ([Answer(True, "yes")], True, "guarded.act", {}, ApprovalRequired),
        ([Answer(False, "no")], False, "guarded.act", {}, CallDenied),
        ([], False, "guarded.act", {"n": "x"}, ArgumentsInvalid),
        ([], False, "guarded.act", {"m": 1}, ArgumentsInvalid),
        ([], False, "guarded.other", {}, ToolUnknown),
    ],
    ids=[
        "nobody to ask",
        "headless",
        "headless with somebody there",
        "no",
        "wrong type",
        "unknown argument",
        "no such tool",
    ],
)
async def test_a_call_that_may_not_run_opens_no_vault_and_starts_no_guest(
    make, channel, headless, tool, arguments, kind
):
    channel = None if channel is None else ScriptedChannel(channel)
    async with make(channel=channel, environ=make.environ | ({"SILO_HEADLESS": "1"} if headless else {})) as silo:
        with pytest.raises(kind) as caught:
            await silo.call(tool, arguments)
        assert not isinstance(caught.value, VaultLocked)
        assert not (silo.home / "credentials.silo").exists()
        assert make.notes == []
        assert list(read(silo.home))[-1].event == "refused"
        assert not (headless and channel is not None and channel.asked)
    make.notes.clear()


async def test_after_a_yes_the_vault_is_opened_and_without_its_key_still_no_guest_starts(make):
    """Shows that the test above would notice it."""
    channel = ScriptedChannel([Answer(True, "yes")])
    async with make(channel=channel) as silo:
        with pytest.raises(SiloError) as caught:
            await silo.call("guarded.act", {})
        assert caught.value.code in ("vault-locked", "secret-missing")
        assert make.notes == []
    assert [question.title for question in channel.asked] == ["Run guarded.act", "Type in KEY for guarded"]
