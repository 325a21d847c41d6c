"""Installing: real header, lock, environment and store; the sandbox is a fake. Nothing runs here, and nothing half-done stays."""

import os
from pathlib import Path

import anyio
import pytest

from silo.catalog.store import SkillStore
from silo.catalog.uv import Uv
from silo.errors import (
    AuditBroken,
    CallDenied,
    FeatureNotYet,
    HeaderInvalid,
    SandboxUnavailable,
    SiloError,
    SkillImportError,
    SkillMetadataInvalid,
    SkillUnknown,
    UsageError,
)
from silo.model import Caller, Isolation
from silo.pipeline.audit import AuditLog, read
from silo.pipeline.install import Installer, Request
from silo.pipeline.units import SkillUnits
from silo.sandbox.base import Limits
from silo.testing.fakes import FakeBackend, FakeChoice, FakeClock, FakeImages

pytestmark = pytest.mark.anyio

HEADER = '''# /// script
# requires-python = ">=3.11"
# dependencies = []
#
# [tool.silo]
# namespace = "demo"
# memory_mib = 128
# {extra}
# ///
"""A demonstration."""

open({marker!r}, "w").write("the script ran on the host")
'''


def said(**changes):
    tool = {
        "name": "echo",
        "description": "Say it again.",
        "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False},
        "output_schema": None,
        "require_approval": False,
        "time_to_live": 600,
        "secrets": None,
        "network": None,
        "title": None,
        "read_only": None,
        "destructive": None,
        "idempotent": None,
    }
    return {"namespace": "demo", "summary": "A demonstration.", "instructions": "How to.", "tools": [tool]} | changes


class Bench:
    def __init__(self, folder):
        self.home = folder / "home"
        self.home.mkdir(mode=0o700)
        self.source = folder / "source"
        self.source.mkdir()
        self.marker = folder / "ran"
        self.notes = []
        self.plans = []
        self.answer = True
        self.backend = FakeBackend(described=said(), notes=self.notes)
        self.store = SkillStore(self.home / "skills")
        self.images = FakeImages(self.home / "images")
        self.write()

    def write(self, extra="", **changes):
        text = HEADER.format(extra=extra, marker=str(self.marker))
        for old, new in changes.items():
            text = text.replace(old, new)
        (self.source / "skill.py").write_text(text)

    async def agree(self, plan):
        self.plans.append(plan)
        self.notes.append("asked")
        return self.answer

    def installer(self):
        return Installer(
            store=self.store,
            images=self.images,
            units=SkillUnits(self.images, Limits()),
            backends=FakeChoice(self.backend),
            uv=Uv({name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}),
            audit=AuditLog(self.home, now=FakeClock().now),
            builtins=self.source / "none",
            now=FakeClock().now,
        )

    async def install(self, **fields):
        request = Request(str(self.source), Path("/"), Caller("cli"), **fields)
        return await self.installer().install(request, agree=self.agree, on_step=lambda step: None)

    def leftovers(self):
        """Everything but the record, locks, and images that any skill may share."""
        found = []
        for path in self.home.rglob("*"):
            name = str(path.relative_to(self.home))
            if path.is_file() and ".locks" not in name and not name.startswith("audit."):
                found.append(name)
            if path.is_dir() and path.name.startswith((".staging-", ".gone-", "layer-", "demo")):
                found.append(name)
        return sorted(found)

    def events(self):
        return [(record.event, record.body["outcome"]) for record in read(self.home)]


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    assert not bench.marker.exists(), "the script ran on the host"


async def test_a_script_becomes_a_skill(bench):
    skill = await bench.install()
    assert skill == bench.store.get("demo")
    assert [tool.id for tool in skill.tools] == ["demo.echo"]
    assert skill.instructions == "How to."
    assert skill.described_by is Isolation.MICROVM
    assert skill.installed_at == "2026-01-02T03:04:05Z"
    unit = await bench.installer().units.of(skill)
    assert (unit.layer.tree / "skill.py").read_bytes() == skill.script.read_bytes()
    assert (unit.layer.tree / "env").is_dir()
    assert unit.limits.memory_mib == 128
    assert bench.notes == ["asked", "describe demo"]
    assert bench.events() == [("install", "begun"), ("install", "ok")]
    assert not list(bench.images.staging().parent.glob(".staging-*/env"))


async def test_a_person_sees_what_will_be_installed(bench):
    await bench.install()
    (plan,) = bench.plans
    assert (plan.namespace, plan.source, plan.replaces) == ("demo", str(bench.source / "skill.py"), None)
    assert plan.digest == bench.store.get("demo").digest
    bench.write(extra="timeout_s = 5")
    await bench.install()
    assert bench.plans[1].replaces == plan.digest
    assert bench.plans[1].warnings


async def test_without_a_yes_nothing_is_built(bench):
    bench.answer = False
    with pytest.raises(CallDenied):
        await bench.install()
    assert bench.notes == ["asked"]
    assert bench.leftovers() == []
    assert bench.events() == [("install", "begun"), ("install", "denied")]


@pytest.mark.parametrize(
    ("described", "error"),
    [
        (said(namespace="other"), SkillMetadataInvalid),
        (said(tools=[]), SkillMetadataInvalid),
        (said(tools=[said()["tools"][0] | {"secrets": ["KEY"]}]), SkillMetadataInvalid),
        (said(tools=[said()["tools"][0] | {"input_schema": {"type": "object", "properties": {"a": {"pattern": "(?!x)"}}}}]), SkillMetadataInvalid),
        ({}, SkillMetadataInvalid),
    ],
)  # fmt: skip
async def test_a_skill_that_says_what_is_not_allowed_leaves_nothing_behind(bench, described, error):
    bench.backend = FakeBackend(described=described)
    with pytest.raises(error):
        await bench.install()
    assert bench.leftovers() == []
    assert bench.events() == [("install", "begun"), ("install", error.code)]


class FailingBackend(FakeBackend):
    def __init__(self, error):
        super().__init__()
        self.error = error

    async def describe(self, unit, *, deadline, on_step):
        raise self.error


@pytest.mark.parametrize("error", [SkillImportError("no module", hint="h"), KeyboardInterrupt(), ZeroDivisionError()])
async def test_whatever_fails_leaves_nothing_behind(bench, error):
    bench.backend = FailingBackend(error)
    with pytest.raises(type(error)):
        await bench.install()
    assert bench.leftovers() == []
    assert len(bench.events()) == 2


async def test_a_failed_update_leaves_the_installed_version_as_it_was(bench):
    before = await bench.install()
    files = bench.leftovers()
    bench.write(extra="timeout_s = 5")
    bench.backend = FailingBackend(SkillImportError("no module", hint="h"))
    with pytest.raises(SkillImportError):
        await bench.install()
    assert bench.store.get("demo") == before
    assert bench.leftovers() == files
    await bench.installer().units.of(before)


async def test_a_failed_repetition_keeps_the_image_that_is_in_use(bench):
    before = await bench.install()
    bench.backend = FailingBackend(SkillImportError("no module", hint="h"))
    with pytest.raises(SkillImportError):
        await bench.install()
    await bench.installer().units.of(before)


async def test_a_cancelled_install_leaves_nothing_behind(bench):
    started = anyio.Event()

    class Hanging(FakeBackend):
        async def describe(self, unit, *, deadline, on_step):
            started.set()
            await anyio.sleep_forever()

    bench.backend = Hanging()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.install)
        with anyio.fail_after(30):
            await started.wait()
        tasks.cancel_scope.cancel()
    assert bench.leftovers() == []
    assert bench.events() == [("install", "begun"), ("install", "interrupted")]


async def test_a_new_version_takes_the_place_of_the_old_one(bench):
    old = await bench.install()
    bench.write(extra="timeout_s = 5")
    new = await bench.install()
    assert new.digest != old.digest
    assert bench.store.list() == (new,)
    assert not old.folder.exists()
    with pytest.raises(SiloError, match="image of the skill 'demo' is gone"):
        await bench.installer().units.of(old)


async def test_two_installs_at_once_both_end_well(bench):
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(bench.install)
    skill = bench.store.get("demo")
    await bench.installer().units.of(skill)
    assert [outcome for _, outcome in bench.events()].count("ok") == 2


async def test_a_skill_can_be_installed_under_another_name(bench):
    await bench.install()
    twin = await bench.install(name="twin")
    assert [tool.id for tool in twin.tools] == ["twin.echo"]
    assert [skill.namespace for skill in bench.store.list()] == ["demo", "twin"]
    await bench.installer().uninstall("demo", caller=Caller("cli"))
    await bench.installer().units.of(twin)  # the two share an image
    for name in ("silo", "a__b", "Upper", "../x", ""):
        with pytest.raises(UsageError):
            await bench.install(name=name)


async def test_uninstalling_takes_everything_away_and_is_recorded(bench):
    skill = await bench.install()
    assert await bench.installer().uninstall("demo", caller=Caller("cli")) == skill
    assert bench.leftovers() == []
    assert bench.events()[-1] == ("uninstall", "ok")
    with pytest.raises(SkillUnknown):
        await bench.installer().uninstall("demo", caller=Caller("cli"))


async def test_if_the_record_can_not_be_written_nothing_is_installed(bench):
    (bench.home / "audit.jsonl").mkdir()
    with pytest.raises(AuditBroken):
        await bench.install()
    assert bench.notes == []
    assert bench.leftovers() == []


async def test_what_this_version_does_not_have_is_refused_before_anybody_is_asked(bench):
    bench.write(extra='network = ["api.example.com"]')
    with pytest.raises(FeatureNotYet):
        await bench.install()
    bench.write(extra='netwrk = ["api.example.com"]')
    with pytest.raises(HeaderInvalid):
        await bench.install()
    assert bench.notes == []


async def test_without_a_sandbox_nobody_is_asked(bench):
    bench.backend = FakeBackend(works=False)
    with pytest.raises(SandboxUnavailable):
        await bench.install()
    assert bench.plans == []


async def test_pruning_keeps_what_installed_skills_need(bench):
    await bench.install()
    await bench.installer().prune((bench.backend,))
    assert bench.notes[-1] == "prune all but 1"
