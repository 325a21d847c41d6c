"""Fixtures of the pipeline's tests: a pipeline made of fakes, with one list of notes in the order of events."""

from dataclasses import dataclass, field, replace
from functools import partial

import anyio
import pytest

from silo.approvals.consent import CHANNELS, Approvals
from silo.approvals.store import Decisions
from silo.audit.log import AuditLog
from silo.calls.files import InputRules
from silo.calls.pipeline import CallPipeline
from silo.catalog.digest import skill_digest
from silo.catalog.lock import Lock
from silo.catalog.store import SkillStore
from silo.model import Call, Caller
from silo.secrets.lease import Secrets
from silo.secrets.sources import Sources, parse_reference
from silo.testing.fakes import FakeClock, FakeRunner, FakeSkills, FakeVault, ScriptedChannel


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@dataclass
class Bench:
    """A pipeline whose parts can be replaced before it is used."""

    folder: object
    skills: list
    notes: list = field(default_factory=list)
    secrets: dict = field(default_factory=dict)
    canaries: dict = field(default_factory=dict)
    mapped: dict = field(default_factory=dict)
    vault_fails_with: Exception | None = None
    answers: list | None = None
    headless: bool = False
    behaviour: object = None
    rules: InputRules = field(default_factory=InputRules)
    runner: FakeRunner | None = None
    channel: ScriptedChannel | None = None
    audit: AuditLog | None = None
    decisions: Decisions | None = None
    page: object = None
    desktop: object = None
    channels: tuple = CHANNELS
    keep: object = None
    timeout_s: float = 300.0

    def pipeline(self):
        extra = {"behaviour": self.behaviour} if self.behaviour else {}
        self.runner = self.runner or FakeRunner(notes=self.notes, **extra)
        vault = FakeVault(self.secrets, canaries=self.canaries, fails_with=self.vault_fails_with, notes=self.notes)
        mapped = {name: parse_reference(text) for name, text in self.mapped.items()}
        if self.answers is not None:
            self.channel = ScriptedChannel(self.answers, notes=self.notes)
        self.audit = self.audit or AuditLog(self.folder, now=FakeClock().now)
        return CallPipeline(
            skills=FakeSkills(*self.skills),
            rules=self.rules,
            approvals=self.approvals(),
            secrets=Secrets(Sources(lambda: vault, mapped=mapped), headless=self.headless),
            runner=self.runner,
            audit=self.audit,
        )

    def approvals(self, **fields):
        self.decisions = self.decisions or Decisions(self.folder)
        return Approvals(
            self.decisions,
            terminal=self.channel,
            page=self.page,
            desktop=self.desktop,
            channels=self.channels,
            headless=self.headless,
            keep=self.keep,
            timeout_s=self.timeout_s,
            **fields,
        )

    async def call(self, tool, arguments=None, on_progress=lambda report: None, **fields):
        call = Call("call-1", tool, arguments or {}, Caller("mcp", "test-client"), **fields)
        return await self.pipeline().run(call, on_progress)


@pytest.fixture
def bench(tmp_path):
    return lambda *skills, **fields: Bench(tmp_path, list(skills), **fields)


LOCK = Lock('version = 1\nrequires-python = ">=3.11"\n', ())


@pytest.fixture
def skill_store(tmp_path):
    return SkillStore(tmp_path / "skills")


@pytest.fixture
def put_skills_async(skill_store):
    """Put skills into the store as an install would, without building; another `version` has another script."""

    async def put_skills(*skills, version=1):
        for skill in skills:
            script = f"# {skill.namespace} {version}".encode()
            digest = skill_digest(script, LOCK.text)
            whole = replace(
                skill,
                digest=digest,
                folder=skill_store.folder_of(skill.namespace, digest),
                installed_at="2026-01-02T03:04:05Z",
            )
            async with skill_store.stage(skill.namespace) as stage:
                stage.commit(whole, script=script, lock=LOCK, manual=None)

    return put_skills


@pytest.fixture
def put_skills(put_skills_async):
    """As `put_skills_async`, for tests without an event loop."""
    return lambda *skills, version=1: anyio.run(partial(put_skills_async, *skills, version=version))
