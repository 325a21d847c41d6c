"""Fakes with behaviour: each keeps its protocol's promises in memory, is scripted by the test, and notes what happens.

All of them can share one list of notes, so that a test can check the order of events:

    notes: list[str] = []
    runner = FakeRunner(notes=notes)
    vault = FakeVault({"KEY": "value"}, notes=notes)
    ...
    assert notes == ["ask Run demo.echo", "get KEY", "open demo", "run echo", "close demo"]

They start no machine or process and write no file. `silo.testing.conformance` checks real backends.
"""

from __future__ import annotations

import asyncio
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from hashlib import sha256
from operator import getitem
from pathlib import Path
from typing import Any, Self

import anyio
from silo_interaction import Answer, NobodyToAsk, Question
from silo_vault import Secret

from silo.catalog.store import SkillStore
from silo.errors import SandboxTimeout, SandboxUnavailable, SkillUnknown
from silo.model import File, Interpreter, Isolation, SecretSpec, Skill, SkillHeader, Tool
from silo.policy.rules import Rule
from silo.providers.skills import Inventory, Skills
from silo.remedies import LIST_SKILLS
from silo.runners.base import Placement
from silo.sandbox.base import Ended, GuestSpec, Image, OnStep, Probe
from silo.sandbox.skill.base import GuestReply, GuestRequest, OnProgress, Unit
from silo.sandbox.skill.link import Wire
from silo.wire.frames import encode_blob
from silo.wire.messages import Booted, Described, FileHead, Finished, Run, Sender, encode_message

Behaviour = Callable[[GuestRequest, OnProgress], Awaitable[GuestReply]]
"""What a fake guest does with a call; it may raise what a `Runner` may raise."""


async def echo(request: GuestRequest, on_progress: OnProgress) -> GuestReply:
    """Answer with the arguments, as a tool that returns them would."""
    return GuestReply(Finished(text="", data=dict(request.arguments), has_data=True), facts={"kernel": "fake"})


class FakeClock:
    """A clock that moves only when the test moves it."""

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


class FakeRunner:
    """A runner whose guests are coroutines. It isolates nothing.

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
        notes: list[str] | None = None,
    ) -> None:
        """Script the runner. It has one backend, whose name is its isolation.

        Args:
            behaviour: what each guest does with its call.
            isolation: the boundary that it claims.
            works: whether it can run anything.
            notes: where to note what happens.
        """
        self._behaviour = behaviour
        self._isolation = isolation
        self._works = works
        self._notes = notes if notes is not None else []
        self.requests: list[GuestRequest] = []
        self.running = 0

    async def place(self, *, floor: Isolation | None, named: str | None) -> Placement:
        """As `Runner.place`."""
        is_enough = floor is None or self._isolation.is_at_least(floor)
        if not (self._works and is_enough and named in (None, self._isolation.value)):
            raise SandboxUnavailable(
                "no backend that is strong enough works here", hint="`silo doctor` says what is missing"
            )
        return Placement(self._isolation.value, self._isolation)

    async def run(
        self,
        placement: Placement,
        skill: Skill,
        request: GuestRequest,
        *,
        timeout_s: float,
        on_progress: OnProgress,
        on_step: OnStep,
    ) -> GuestReply:
        """As `Runner.run`."""
        self._notes += [f"open {skill.namespace}", f"run {request.tool}"]
        self.requests.append(request)
        self.running += 1
        try:
            with anyio.move_on_after(timeout_s):
                reply = await self._behaviour(request, on_progress)
                return replace(reply, timing={"open": 0.0, "run": 0.0, "close": 0.0})
            raise SandboxTimeout(f"{request.tool} reached its deadline", hint="raise timeout_s in the header")
        finally:
            self.running -= 1
            self._notes.append(f"close {skill.namespace}")


class FakeBackend:
    """A backend whose guests are coroutines that speak the real protocol. It isolates nothing.

    A subclass may override `describe`. An exception from `describe` or from the behaviour ends the guest, and is raised
    where the guest was started.

    Attributes:
        requests: every request that a guest got, secrets included.
        running: guests that are open now.
    """

    def __init__(
        self,
        behaviour: Behaviour = echo,
        *,
        isolation: Isolation = Isolation.MICROVM,
        name: str | None = None,
        works: bool = True,
        described: Mapping[str, Any] | None = None,
        notes: list[str] | None = None,
    ) -> None:
        """Script the backend.

        Args:
            behaviour: what each guest does with its call.
            isolation: the boundary that it claims.
            name: default: its isolation.
            works: what a probe finds.
            described: every skill's description of itself.
            notes: where to note what happens.
        """
        self._behaviour = behaviour
        self._isolation = isolation
        self._name = isolation.value if name is None else name
        self._works = works
        self._described = described or {}
        self._notes = notes if notes is not None else []
        self.requests: list[GuestRequest] = []
        self.running = 0

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    @property
    def isolation(self) -> Isolation:
        """The boundary that it claims."""
        return self._isolation

    async def probe(self, *, refresh: bool = False) -> Probe:
        """As `Backend.probe`."""
        if self._works:
            return Probe(self._name, self._isolation, works=True, detail="a fake")
        return Probe(
            self._name,
            self._isolation,
            works=False,
            detail="a fake",
            missing=("it was told not to work",),
            hint="tell it to",
        )

    async def describe(self, spec: GuestSpec) -> Mapping[str, Any]:
        """Return the description of itself that a guest's skill gives."""
        return self._described

    @asynccontextmanager
    async def start(self, spec: GuestSpec) -> AsyncIterator[FakeGuest]:
        """As `Backend.start`."""
        guest = FakeGuest(spec, self._isolation)
        self._notes.append(f"start {spec.name}")
        self.running += 1
        try:
            guest.serve(self._serve(guest))
            yield guest
        except Exception:
            if guest.raised is not None:  # tells more than the end of file that the host has seen
                raise guest.raised from None
            raise
        finally:
            await guest.end()
            guest.close()
            self.running -= 1
            self._notes.append(f"end {spec.name}")

    async def prune(self, keep: Iterable[GuestSpec]) -> list[Path]:
        """As `Backend.prune`; it never prepared anything."""
        self._notes.append(f"prune all but {len(list(keep))}")
        return []

    async def __aenter__(self) -> Self:
        """As `Backend.__aenter__`."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """As `Backend.__aexit__`."""
        self._notes.append("close backend")

    async def _serve(self, guest: FakeGuest) -> None:
        """Be the guest: as `silo.guest.init` and `silo.guest.runner`."""
        control, channel = guest.wire("control"), guest.wire("call")
        await control.send(encode_message(Booted(kernel="0.0-fake", python="3.11.7")))
        described = await self.describe(guest.spec)
        await channel.send(encode_message(Described(dict(described), 0.0, 0.0)))
        await control.message()
        head = await channel.message()
        assert isinstance(head, Run)
        document = json.loads(await _blob(channel, head.document_size))
        files = [File(await _blob(channel, one.size), one.media_type, one.name) for one in head.files]
        for (*way, last), file in zip(document["files"], files, strict=True):
            reduce(getitem, way, document["arguments"])[last] = file
        request = GuestRequest(head.tool, document["arguments"], document["secrets"])
        self._notes.append(f"run {request.tool}")
        self.requests.append(request)
        reply = await self._behaviour(request, lambda progress: guest.write("call", encode_message(progress)))
        guest.write("out", reply.stdout.data + head.marker.encode())
        guest.write("err", reply.stderr.data + head.marker.encode())
        heads = tuple(
            FileHead(file.name or f"file-{number + 1}.bin", file.media_type, file.size)
            for number, file in enumerate(reply.files)
        )
        await channel.send(encode_message(replace(reply.outcome, files=heads)))
        for file in reply.files:
            await channel.send(*encode_blob(file.data))


class FakeGuest:
    """A guest of a `FakeBackend`: a coroutine at the other ends of its streams.

    Attributes:
        raised: what ended the coroutine, if anything did.
    """

    kept: Mapping[str, Any] | None = None

    def __init__(self, spec: GuestSpec, isolation: Isolation) -> None:
        self._pairs = {stream.name: socket.socketpair() for stream in spec.streams}
        self._task: asyncio.Task[None] | None = None
        self._work: Coroutine[Any, Any, None] | None = None
        self.spec = spec
        self.name = f"fake-{spec.name}"
        self.isolation = isolation
        self.facts = {"backend": "a fake"}
        self.streams = {name: ours.fileno() for name, (ours, _) in self._pairs.items()}
        self.raised: BaseException | None = None

    def serve(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the guest's coroutine until it is ended; its streams end if it raises."""

        async def run() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # raised again where the guest was started
                self.raised = error
                self._hang_up()

        self._work = work
        self._task = asyncio.create_task(run())

    def wire(self, stream: str) -> Wire:
        """Return the guest's end of a two-way stream."""
        return Wire(self._pairs[stream][1].fileno(), Sender.HOST)

    def write(self, stream: str, data: bytes) -> None:
        """Write to the guest's end of a stream, at most what a socket takes at once."""
        self._pairs[stream][1].sendall(data)

    async def end(self) -> Ended:
        """As `Guest.end`."""
        if self._task is not None:
            with anyio.CancelScope(shield=True):
                self._task.cancel()
                await asyncio.wait([self._task])
                if self._work is not None:
                    self._work.close()  # for a guest that was ended before it had run at all
        self._hang_up()
        return Ended("it was a fake", is_out_of_memory=False, hint="tell it to live")

    def close(self) -> None:
        """Close the host's ends of its streams."""
        for ours, _ in self._pairs.values():
            ours.close()

    def _hang_up(self) -> None:
        for _, theirs in self._pairs.values():
            theirs.close()


async def _blob(channel: Wire, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += (await channel.frame())[1]
    return bytes(data)


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
            raise SkillUnknown(f"there is no skill {namespace!r}", hint=LIST_SKILLS) from None

    def is_current(self, skill: Skill) -> bool:
        """As `Skills.is_current`."""
        return self._skills.get(skill.namespace) == skill


def described_tool(name: str, **fields: object) -> dict[str, object]:
    """Return how a script in a guest describes a tool without parameters, with some fields changed."""
    return {
        "name": name,
        "description": f"{name.capitalize()}.",
        "input_schema": {"type": "object", "properties": {}, "additionalProperties": False},
        "output_schema": None,
        "require_approval": False,
        "time_to_live": 600,
        "secrets": [],
        "network": None,
        "title": None,
        "read_only": None,
        "destructive": None,
        "idempotent": None,
        **fields,
    }


class FakeImages:
    """Images that are folders with only the staged files; no interpreter is copied."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def base(self, interpreter: Interpreter, on_step: OnStep) -> Image:
        """As `silo.sandbox.image.Images.base`."""
        return self._make("base", sha256(interpreter.version.encode()).hexdigest(), None)

    async def layer(self, digest: str, staged: Path, base: Image, on_step: OnStep) -> Image:
        """As `silo.sandbox.image.Images.layer`; takes `staged` over."""
        return self._make("layer", sha256(f"{digest}{base.digest}".encode()).hexdigest(), staged)

    async def runtime(self, interpreter_version: str) -> Image:
        """As `silo.sandbox.image.Images.runtime`."""
        return self._make("runtime", sha256(interpreter_version.encode()).hexdigest(), None)

    def find(self, kind: str, digest: str) -> Image | None:
        """As `silo.sandbox.image.Images.find`."""
        image = Image(digest, self._folder / f"{kind}-{digest[:32]}" / "tree")
        return image if image.tree.is_dir() else None

    async def renewed_layer(self, digest: str, layer: Image, base: Image) -> Image:
        """As `silo.sandbox.image.Images.renewed_layer`; an empty folder."""
        return self._make("layer", sha256(f"{digest}{base.digest}".encode()).hexdigest(), None)

    def is_current(self, image: Image) -> bool:
        """As `silo.sandbox.image.Images.is_current`, for a host that is never updated."""
        return True

    def interpreter(self, base: Image) -> Path | None:
        """As `silo.sandbox.image.Images.interpreter`; nothing was copied from one."""
        return None

    def successor(self, layer: Image) -> str | None:
        """As `silo.sandbox.image.Images.successor`; no image was replaced."""
        return None

    def replace(self, layer: Image, reference: str) -> None:
        """As `silo.sandbox.image.Images.replace`; forgets it."""

    def renewing(self) -> AbstractAsyncContextManager[None]:
        """As `silo.sandbox.image.Images.renewing`, for one process."""
        return nullcontext()

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
    """Secrets in memory. Every access raises `fails_with`, as with a locked vault."""

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
    """A person who gives prepared answers in order, and then is gone. An exception among the answers is raised.

    Attributes:
        answers: the answers that are left.
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
    """Return a tool, with ordinary values for everything that the test does not give.

    Args:
        name: of the tool.
        skill: its namespace.
        description: what a model reads.
        properties: JSON Schemas of the parameters; without them, the tool takes anything.
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
