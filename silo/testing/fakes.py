"""Fakes that behave: each keeps its protocol's promises in memory, is scripted by the test, and notes what was asked of it.

All of them can share one list of notes, so that a test can state in which order things happened:

    notes: list[str] = []
    backend = FakeBackend(notes=notes)
    vault = FakeVault({"KEY": "value"}, notes=notes)
    ...
    assert notes == ["ask Run demo.echo", "get KEY", "open demo", "run echo", "close demo"]

No machine, process or file is touched. Real backends are held to their promises by `silo.testing.conformance`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import anyio
from silo_interaction import Answer, NobodyToAsk, Question
from silo_vault import Secret

from silo.catalog.store import SkillStore
from silo.errors import SandboxTimeout, SandboxUnavailable, SkillUnknown
from silo.model import Interpreter, Isolation, SecretSpec, Skill, SkillHeader, Tool
from silo.policy.rules import Rule
from silo.providers.skills import Inventory, Skills
from silo.sandbox.base import Description, GuestReply, GuestRequest, Image, OnProgress, OnStep, Probe, Unit
from silo.wire.messages import Finished

Behaviour = Callable[[GuestRequest, OnProgress], Awaitable[GuestReply]]
"""What a fake guest does with a call; raise what a `Sandbox` may raise."""


async def echo(request: GuestRequest, on_progress: OnProgress) -> GuestReply:
    """Answer with the arguments, as a tool that returns them would."""
    return GuestReply(Finished(text="", data=dict(request.arguments), has_data=True), facts={"kernel": "fake"})


class FakeClock:
    """Time that passes only when told to."""

    def __init__(self, now: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds since some moment."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds


class FakeBackend:
    """A backend whose guests are coroutines. It isolates nothing.

    Attributes:
        requests: every request that a guest got, secrets included.
        running: guests that are open now.
    """

    def __init__(
        self,
        behaviour: Behaviour = echo,
        *,
        isolation: Isolation = Isolation.MICROVM,
        works: bool = True,
        described: Mapping[str, Any] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        """Script the backend.

        Args:
            behaviour: what each guest does with its call.
            isolation: the boundary that it claims.
            works: what a probe finds.
            described: what every skill says of itself.
            notes: where to note what happens.
        """
        self._behaviour = behaviour
        self._isolation = isolation
        self._works = works
        self._described = described or {}
        self._notes = notes if notes is not None else []
        self.requests: list[GuestRequest] = []
        self.running = 0

    @property
    def isolation(self) -> Isolation:
        """The boundary that it claims."""
        return self._isolation

    async def probe(self, *, refresh: bool = False) -> Probe:
        """As `Backend.probe`."""
        if self._works:
            return Probe(self._isolation, works=True, detail="a fake")
        return Probe(
            self._isolation, works=False, detail="a fake", missing=("it was told not to work",), hint="tell it to"
        )

    async def describe(self, unit: Unit, *, deadline: float, on_step: OnStep) -> Description:
        """As `Backend.describe`."""
        self._notes.append(f"describe {unit.name}")
        return Description(self._described, self._isolation, {"import": 0.0})

    @asynccontextmanager
    async def open(self, unit: Unit, *, on_step: OnStep) -> AsyncIterator[FakeSandbox]:
        """As `Backend.open`."""
        self._notes.append(f"open {unit.name}")
        self.running += 1
        try:
            yield FakeSandbox(self)
        finally:
            self.running -= 1
            self._notes.append(f"close {unit.name}")

    def prune(self, keep: Iterable[Unit]) -> list[Path]:
        """As `Backend.prune`; it never prepared anything."""
        self._notes.append(f"prune all but {len(list(keep))}")
        return []

    async def __aenter__(self) -> Self:
        """As `Backend.__aenter__`."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """As `Backend.__aexit__`."""
        self._notes.append("close backend")

    async def run(self, request: GuestRequest, on_progress: OnProgress) -> GuestReply:
        """Do what the script says."""
        self._notes.append(f"run {request.tool}")
        self.requests.append(request)
        return await self._behaviour(request, on_progress)


class FakeSandbox:
    """One guest of a `FakeBackend`, for one call."""

    def __init__(self, backend: FakeBackend) -> None:
        self._backend: FakeBackend | None = backend
        self._isolation = backend.isolation

    @property
    def isolation(self) -> Isolation:
        """The boundary that its backend claims."""
        return self._isolation

    async def run(self, request: GuestRequest, *, deadline: float, on_progress: OnProgress) -> GuestReply:
        """As `Sandbox.run`; a second call is a bug of the caller."""
        backend, self._backend = self._backend, None
        assert backend is not None, "a sandbox is for one call"
        with anyio.move_on_after(deadline - time.monotonic()):
            return await backend.run(request, on_progress)
        raise SandboxTimeout(f"{request.tool} reached its deadline", hint="raise timeout_s in the header")


class FakeChoice:
    """Picks from backends in memory: the named one, or the first that works and is strong enough."""

    def __init__(self, *backends: FakeBackend) -> None:
        self._backends = backends

    async def pick(self, *, floor: Isolation | None, named: Isolation | None) -> FakeBackend:
        """As `silo.runners.choose.Sandboxes.pick`."""
        for backend in self._backends:
            if named is not None and backend.isolation is not named:
                continue
            if floor is not None and not backend.isolation.is_at_least(floor):
                continue
            if (await backend.probe()).works:
                return backend
        raise SandboxUnavailable(
            "no backend that is strong enough works here", hint="`silo doctor` says what is missing"
        )


class FakeUnits:
    """Gives every skill a unit of images that exist nowhere."""

    async def of(self, skill: Skill) -> Unit:
        """As `silo.calls.pipeline.Units.of`."""
        return fake_unit(skill.namespace, skill.digest)


class FakeSkills(Skills):
    """Installed skills in memory."""

    def __init__(self, *skills: Skill, rules: Sequence[Rule] = ()) -> None:
        super().__init__(SkillStore(Path("/nowhere")), rules)
        self._skills = {skill.namespace: skill for skill in skills}

    def now(self) -> Inventory:
        """As `Skills.now`."""
        return Inventory(frozenset(), tuple(self._skills[name] for name in sorted(self._skills)))

    def get(self, namespace: str) -> Skill:
        """As `Skills.get`."""
        try:
            return self._skills[namespace]
        except KeyError:
            raise SkillUnknown(f"there is no skill {namespace!r}", hint="`silo list` shows what is installed") from None

    def is_current(self, skill: Skill) -> bool:
        """As `Skills.is_current`."""
        return self._skills.get(skill.namespace) == skill


class FakeImages:
    """Images that are folders, empty but for what was staged; no interpreter is copied."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def base(self, interpreter: Interpreter, on_step: OnStep) -> Image:
        """As `silo.sandbox.image.Images.base`."""
        return self._make("base", sha256(interpreter.version.encode()).hexdigest(), None)

    async def layer(self, digest: str, staged: Path, base: Image) -> Image:
        """As `silo.sandbox.image.Images.layer`; takes `staged` over."""
        return self._make("layer", sha256(f"{digest}{base.digest}".encode()).hexdigest(), staged)

    async def runtime(self, interpreter_version: str) -> Image:
        """As `silo.sandbox.image.Images.runtime`."""
        return self._make("runtime", sha256(interpreter_version.encode()).hexdigest(), None)

    def find(self, kind: str, digest: str) -> Image | None:
        """As `silo.sandbox.image.Images.find`."""
        image = Image(digest, self._folder / f"{kind}-{digest[:32]}" / "tree")
        return image if image.tree.is_dir() else None

    def staging(self) -> Path:
        """As `silo.sandbox.image.Images.staging`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".staging-", dir=self._folder))

    def _make(self, kind: str, digest: str, staged: Path | None) -> Image:
        tree = self._folder / f"{kind}-{digest[:32]}" / "tree"
        if not tree.is_dir():
            tree.parent.mkdir(parents=True)
            if staged is None:
                tree.mkdir()
            else:
                staged.rename(tree)
        return Image(digest, tree)


class FakeVault:
    """Secrets in memory. `fails_with` is raised by every access, as a locked vault does it."""

    def __init__(
        self,
        secrets: Mapping[str, str] | None = None,
        *,
        fails_with: Exception | None = None,
        canaries: Mapping[str, str] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        self._secrets = dict(secrets or {})
        self._canaries = dict(canaries or {})
        self._fails_with = fails_with
        self._notes = notes if notes is not None else []

    def find(self, name: str, namespaces: Sequence[str]) -> Secret | None:
        """As `silo_vault.Vault.find`; a secret that belongs to one skill is under `skill/NAME`."""
        self._notes.append(f"get {name}")
        if self._fails_with is not None:
            raise self._fails_with
        for namespace in namespaces:
            value = self._secrets.get(f"{namespace}/{name}" if namespace else name)
            if value is not None:
                return Secret(name, value)
        return None

    def canaries(self) -> Mapping[str, Secret]:
        """As `silo_vault.Vault.canaries`."""
        if self._canaries and self._fails_with is not None:
            raise self._fails_with
        return {name: Secret(name, value) for name, value in self._canaries.items()}


@dataclass
class ScriptedChannel:
    """A person who gives prepared answers in order, and then is gone; an exception among them is raised.

    Attributes:
        answers: what is left to say.
        asked: the questions so far.
    """

    answers: list[Answer | Exception]
    asked: list[Question] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    async def ask(self, question: Question, *, timeout_s: float) -> Answer:
        """As `silo_interaction.Channel.ask`."""
        self.notes.append(f"ask {question.title}")
        self.asked.append(question)
        if not self.answers:
            raise NobodyToAsk("the person is gone", hint="prepare more answers")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def fake_unit(name: str, digest: str) -> Unit:
    """Return a unit whose images exist nowhere."""
    base, layer, runtime = (Image(f"{kind}-{digest}", Path("/nowhere") / kind) for kind in ("base", "layer", "runtime"))
    return Unit(name, base, layer, runtime)


def make_tool(
    name: str = "echo",
    *,
    skill: str = "demo",
    description: str = "Return what was given.",
    properties: Mapping[str, Any] | None = None,
    required: Sequence[str] = (),
    output_schema: Mapping[str, Any] | None = None,
    require_approval: bool = False,
    secrets: Sequence[str] = (),
    timeout_s: float = 30.0,
) -> Tool:
    """Return a tool with ordinary values where the test does not care.

    Args:
        name: of the tool.
        skill: its namespace.
        description: what a model reads.
        properties: JSON Schemas of the parameters; without them it takes anything.
        required: names of the parameters that must be given.
        output_schema: of the result, or None for any.
        require_approval: whether a person is asked.
        secrets: names of secrets that it gets.
        timeout_s: how long a call may take.
    """
    schema: dict[str, Any] = {"type": "object"}
    if properties is not None:
        schema |= {"properties": dict(properties), "required": list(required), "additionalProperties": False}
    return Tool(
        skill=skill,
        name=name,
        description=description,
        input_schema=schema,
        output_schema=output_schema,
        require_approval=require_approval,
        time_to_live_s=600,
        secrets=tuple(secrets),
        timeout_s=timeout_s,
    )


def make_skill(*tools: Tool, namespace: str = "demo", require_approval: bool = False) -> Skill:
    """Return an installed skill whose header declares what its tools ask for.

    Args:
        tools: its tools; one `echo` if there is none.
        namespace: its name.
        require_approval: whether its header asks a person before every call.
    """
    mine: Iterable[Tool] = tools or (make_tool(skill=namespace),)
    names = sorted({name for tool in mine for name in tool.secrets})
    header = SkillHeader(
        namespace=namespace,
        requires_python=">=3.11",
        secrets={name: SecretSpec(name) for name in names},
        require_approval=require_approval,
    )
    return Skill(
        namespace=namespace,
        digest="d" * 64,
        header=header,
        tools=tuple(mine),
        folder=Path("/nowhere/skills") / namespace,
        source=f"builtin:{namespace}",
        instructions=None,
        installed_at="2026-01-02T03:04:05Z",
        image="fake",
        described_by=Isolation.MICROVM,
    )
