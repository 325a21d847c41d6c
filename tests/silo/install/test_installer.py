"""Installing with a real header, lock, environment and store, in a fake sandbox. Nothing runs or stays half-done."""

import os
import sys
from pathlib import Path

import anyio
import pytest

from silo.audit.log import AuditLog, read
from silo.catalog.store import SkillStore
from silo.catalog.uv import Uv
from silo.errors import (
    ApprovalRequired,
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
from silo.install.grants import Grants
from silo.install.installer import Installer, InstallRequest
from silo.model import Caller, Isolation
from silo.runners.choose import BackendChoice
from silo.runners.local import LocalRunner
from silo.runners.units import SkillUnits
from silo.sandbox.base import Limits
from silo.sandbox.build import BuildSandbox
from silo.sandbox.image import Images
from silo.secrets.sources import Sources
from silo.testing import PATIENCE_S
from silo.testing.fakes import FakeBackend, FakeClock, FakeImages, described_tool

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
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False}
    tool = described_tool("echo", description="Say it again.", input_schema=schema, secrets=None)
    return {"namespace": "demo", "summary": "A demonstration.", "instructions": "How to.", "tools": [tool]} | changes


async def no_interpreter(executable):
    return None


def nothing():
    raise AssertionError("the vault was opened")


async def nobody_is_there(question, caller, tell):
    raise ApprovalRequired("nobody", hint="h")


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
        units = SkillUnits(self.images, Limits(), no_interpreter)
        return Installer(
            store=self.store,
            images=self.images,
            prune_images=Images(self.home / "images").prune,
            units=units,
            runner=LocalRunner([self.backend], BackendChoice(None, Isolation.MICROVM), units),
            uv=Uv({name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}),
            audit=AuditLog(self.home, now=FakeClock().now),
            grants=Grants(self.store, (), Sources(file=nothing), lambda: (), lambda: ()),
            confirm=nobody_is_there,
            provisioned={},
            build_sandbox=BuildSandbox(),
            builtins=self.source / "none",
            now=FakeClock().now,
        )

    async def install(self, **fields):
        request = InstallRequest(str(self.source), Path("/"), Caller("cli"), **fields)
        return await self.installer().install(request, agree=self.agree, on_step=lambda step: None)

    def leftovers(self):
        """Everything except the record, locks, and images that skills may share."""
        found = []
        for path in self.home.rglob("*"):
            name = str(path.relative_to(self.home))
            if path.is_file() and ".locks" not in name and not name.startswith("audit."):
                found.append(name)
            if path.is_dir() and path.name.startswith((".staging-", ".building-", ".gone-", "layer-", "demo")):
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
    unit = await bench.installer().units.built(skill)
    assert (unit.layer.tree / "skill.py").read_bytes() == skill.script.read_bytes()
    assert (unit.layer.tree / "env").is_dir()
    assert unit.limits.memory_mib == 128
    assert bench.notes == ["asked", "start demo", "end demo", "prune all but 1"]
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


UNCHECKABLE = {"type": "object", "properties": {"a": {"pattern": "(?!x)"}}}


@pytest.mark.parametrize(
    ("described", "error"),
    [
        (said(namespace="other"), SkillMetadataInvalid),
        (said(tools=[]), SkillMetadataInvalid),
        (said(tools=[said()["tools"][0] | {"secrets": ["KEY"]}]), SkillMetadataInvalid),
        (said(tools=[said()["tools"][0] | {"input_schema": UNCHECKABLE}]), SkillMetadataInvalid),
        ({}, SkillMetadataInvalid),
    ],
)
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

    async def describe(self, spec):
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
    await bench.installer().units.built(before)


async def test_a_failed_repetition_keeps_the_image_that_is_in_use(bench):
    before = await bench.install()
    bench.backend = FailingBackend(SkillImportError("no module", hint="h"))
    with pytest.raises(SkillImportError):
        await bench.install()
    await bench.installer().units.built(before)


async def test_a_cancelled_install_leaves_nothing_behind(bench):
    started = anyio.Event()

    class Hanging(FakeBackend):
        async def describe(self, spec):
            started.set()
            await anyio.sleep_forever()

    bench.backend = Hanging()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.install)
        with anyio.fail_after(PATIENCE_S):
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
        await bench.installer().units.built(old)


async def test_two_installs_at_once_both_end_well(bench):
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(bench.install)
    skill = bench.store.get("demo")
    await bench.installer().units.built(skill)
    assert [outcome for _, outcome in bench.events()].count("ok") == 2


class Meeting(FakeBackend):
    """Two installs are described at once before the first of them fails; the second goes on when the first is over."""

    def __init__(self, *, second):
        super().__init__(described=said())
        self.second = second
        self.both = anyio.Event()
        self.first_is_over = anyio.Event()

    async def describe(self, spec):
        if spec.name == "first":
            await self.both.wait()
            raise SkillImportError("no module", hint="h")
        self.both.set()
        await self.first_is_over.wait()
        assert spec.mounts["/skill"].tree.is_dir(), "the other install took the layer away"
        if self.second is not None:
            raise self.second
        return await super().describe(spec)


async def install_both(bench):
    """Install one script under two names at once; return the error of each."""
    errors = {}

    async def install(name):
        try:
            await bench.install(name=name)
        except SiloError as error:
            errors[name] = error
        if name == "first":
            bench.backend.first_is_over.set()

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for name in ("first", "second"):
                tasks.start_soon(install, name)
    return errors


async def test_an_install_that_fails_takes_nothing_from_another_of_the_same_script(bench):
    bench.backend = Meeting(second=None)
    assert {name: error.code for name, error in (await install_both(bench)).items()} == {"first": "skill-import-error"}
    await bench.installer().units.built(bench.store.get("second"))


async def test_of_two_installs_that_fail_at_once_each_says_why_and_nothing_stays(bench):
    bench.backend = Meeting(second=SkillMetadataInvalid("no tools", hint="h"))
    errors = await install_both(bench)
    assert {name: error.code for name, error in errors.items()} == {
        "first": "skill-import-error",
        "second": "skill-metadata-invalid",
    }
    assert bench.leftovers() == []


async def test_an_install_that_is_cancelled_takes_nothing_from_another_of_the_same_script(bench):
    began = {"first": anyio.Event(), "second": anyio.Event()}
    first_is_over = anyio.Event()
    cancelled = anyio.CancelScope()

    class Waiting(FakeBackend):
        async def describe(self, spec):
            began[spec.name].set()
            await first_is_over.wait()
            assert spec.mounts["/skill"].tree.is_dir(), "the other install took the layer away"
            return await super().describe(spec)

    async def first():
        with cancelled:
            await bench.install(name="first")
        first_is_over.set()

    async def second():
        await bench.install(name="second")

    bench.backend = Waiting(described=said())
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            tasks.start_soon(second)
            for event in began.values():
                await event.wait()
            cancelled.cancel()
    assert cancelled.cancelled_caught
    assert [skill.namespace for skill in bench.store.list()] == ["second"]
    await bench.installer().units.built(bench.store.get("second"))


@pytest.mark.parametrize("way", ["prune", "uninstall", "install"])
async def test_nothing_is_pruned_while_an_install_is_under_way(bench, way):
    """The files that the install has built are in no record yet; it prunes when it ends."""
    await bench.install(name="other")
    bench.write(extra="timeout_s = 5")  # another script, so another layer

    class Meddling(FakeBackend):
        async def describe(self, spec):
            bench.backend, meddler = FakeBackend(described=said(), notes=notes), bench.installer()
            if way == "prune":
                await meddler.prune()
            elif way == "uninstall":
                await meddler.uninstall("other", caller=Caller("cli"))
            else:
                await bench.install(name="third")
            assert not [note for note in notes if note.startswith("prune")]
            assert spec.mounts["/skill"].tree.is_dir()
            return await super().describe(spec)

    notes = []
    bench.backend = Meddling(described=said(), notes=bench.notes)
    skill = await bench.install()
    await bench.installer().units.built(skill)
    layers = {name.split("/")[1] for name in bench.leftovers() if name.startswith("images/layer-")}
    assert len(layers) == (1 if way == "uninstall" else 2)
    assert bench.notes[-1].startswith("prune all but")


KILLED = """
import os, signal, sys
import anyio
from datetime import UTC, datetime
from pathlib import Path
from silo.audit.log import AuditLog
from silo.catalog.store import SkillStore
from silo.catalog.uv import Uv
from silo.install.grants import Grants
from silo.install.installer import Installer, InstallRequest
from silo.model import Caller, Isolation
from silo.runners.choose import BackendChoice
from silo.runners.local import LocalRunner
from silo.runners.units import SkillUnits
from silo.sandbox.base import Limits
from silo.sandbox.image import Images
from silo.secrets.sources import Sources
from silo.testing.fakes import FakeBackend, FakeImages

home, source, when = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
images = FakeImages(home / "images")
now = lambda: datetime.now(UTC)

async def no_interpreter(executable):
    return None

async def agree(*plan):
    return True

units = SkillUnits(images, Limits(), no_interpreter)
installer = Installer(
    store=SkillStore(home / "skills"), images=images, prune_images=Images(home / "images").prune,
    units=units, runner=LocalRunner([FakeBackend()], BackendChoice(None, Isolation.MICROVM), units),
    uv=Uv(dict(os.environ)), audit=AuditLog(home, now=now), provisioned={}, confirm=agree, build_sandbox=None,
    grants=Grants(SkillStore(home / "skills"), (), Sources(file=dict), tuple, tuple), builtins=home / "none", now=now,
)

def on_step(step):
    if step.startswith(when):
        os.kill(os.getpid(), signal.SIGKILL)

request = InstallRequest(source, Path("/"), Caller("cli"), name="killed")
anyio.run(lambda: installer.install(request, agree=agree, on_step=on_step))
"""


@pytest.mark.parametrize(
    ("when", "left"),
    [("building the image", "images/.staging-"), ("running the script", "images/layer-")],
)
async def test_what_a_killed_install_left_is_deleted_by_the_next_of_any_skill(bench, when, left):
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [sys.executable, "-c", KILLED, str(bench.home), str(bench.source), when]
    with anyio.fail_after(PATIENCE_S):
        done = await anyio.run_process(command, check=False, env=environ)
    assert done.returncode == -9, done.stderr
    assert any(name.startswith(left) for name in bench.leftovers()), bench.leftovers()
    assert list((bench.home / "skills" / ".staging").iterdir())
    bench.write(extra="timeout_s = 5")
    skill = await bench.install()
    await bench.installer().units.built(skill)
    mine = ("images/base-", "images/runtime-", f"images/layer-{skill.image.rsplit('/', 1)[1][:32]}", "skills/demo")
    assert [name for name in bench.leftovers() if not name.startswith(mine)] == []
    assert list((bench.home / "skills" / ".staging").iterdir()) == []


async def test_a_skill_can_be_installed_under_another_name(bench):
    await bench.install()
    twin = await bench.install(name="twin")
    assert [tool.id for tool in twin.tools] == ["twin.echo"]
    assert [skill.namespace for skill in bench.store.list()] == ["demo", "twin"]
    await bench.installer().uninstall("demo", caller=Caller("cli"))
    await bench.installer().units.built(twin)  # the two share an image
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
    await bench.installer().prune()
    assert bench.notes[-1] == "prune all but 1"
