"""The host's end of the conversation with a skill in a guest: bounded, strict, and the same for every backend.

A guest has four streams (`silo.sandbox.skill.base.STREAMS`). This module speaks `silo.wire` over them, counts the
guest's output, and returns a `GuestReply` or raises one of `silo.errors`. It doesn't start or end guests.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import anyio
import anyio.abc
from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from silo.errors import (
    ResultInvalid,
    ResultTooLarge,
    SandboxLost,
    SandboxTimeout,
    SkillCrashed,
    SkillExited,
    SkillFailed,
    SkillFlooded,
    SkillImportError,
    SkillMetadataInvalid,
    SkillOutOfMemory,
    SkillSyntaxError,
)
from silo.model import File
from silo.remedies import Remedy
from silo.sandbox.base import Limits
from silo.sandbox.skill.base import Captured, GuestReply, GuestRequest, OnProgress
from silo.sandbox.skill.failures import FAILURES
from silo.sandbox.streams import Pace, Reader
from silo.wire.frames import BLOB, BLOB_BYTES, JSON, MAX_JSON_BYTES, FrameDecoder, WireError, encode_blob
from silo.wire.messages import (
    MAX_CONTROL_BYTES,
    Booted,
    Described,
    Exited,
    Failed,
    FileHead,
    Finished,
    Held,
    Hold,
    Message,
    Progress,
    Received,
    Rehearse,
    Rehearsed,
    Resume,
    Run,
    Sender,
    check,
    encode_message,
    steps_to_message,
)
from silo.wire.strict_json import WINDOW_BYTES, Steps, finish

T = TypeVar("T")

_LAST_WORDS_S = 0.25
"""How long to wait for the answer after the guest's init reported the end of the skill's process."""

_EMPTY_DOCUMENT = b'{"arguments": {}, "secrets": {}}'

_REPORTS_AT_ONCE = 200
_REPORTS_PER_S = 100
"""How many reports of progress a call takes at once, and how many a second after that; the guest waits meanwhile.
silo's own side in the guest sends fewer (`silo.guest.runner`)."""

_AT_ONCE_BYTES = WINDOW_BYTES // 4
"""The longest message that is parsed on the event loop. A thread would take longer than parsing does."""

_SHORT_BYTES = 128 * 1024
"""Every message but a description or a result is shorter. It does not wait for longer ones."""


class _Turns:
    """Lets one short message and one long message be parsed at a time, in the order of their arrival."""

    def __init__(self) -> None:
        self.short = anyio.Lock()
        self.long = anyio.Lock()
        self.threads = CapacityLimiter(2)


_turns: RunVar[_Turns] = RunVar("silo.sandbox.skill.link.turns")
"""One for each event loop, because the event loop and the interpreter's lock are what all its guests share."""


@dataclass
class _Sink:
    """Keeps the start of what a guest prints, counts the rest, and notices the end marker."""

    keep: int
    flood: int
    marker: bytes = b""
    data: bytearray = field(default_factory=bytearray)
    total: int = 0
    ended: anyio.Event = field(default_factory=anyio.Event)
    _tail: bytes = b""

    def feed(self, data: bytes) -> None:
        self.total += len(data)
        if len(self.data) < self.keep + len(self.marker):
            self.data += data[: self.keep + len(self.marker) - len(self.data)]
        self._tail = (self._tail + data)[-len(self.marker) :] if self.marker else b""
        if self.marker and self._tail == self.marker:
            self.total -= len(self.marker)
            self.ended.set()
        elif self.total > self.flood:
            raise _Flooded

    def captured(self) -> Captured:
        return Captured(bytes(self.data[: min(self.keep, self.total)]), self.total)


class _Flooded(Exception):
    """The guest printed more than `Limits.flood_bytes`."""


class _Died(Exception):
    """The skill's process ended, as init reports."""

    def __init__(self, exited: Exited) -> None:
        super().__init__(exited)
        self.exited = exited


class Wire:
    """Messages and blobs on one non-blocking descriptor, strictly parsed. Fake guests use it for the other end.

    Args:
        descriptor: the descriptor.
        sender: who is at the other end.
        longest: how many bytes a message may have.
    """

    def __init__(self, descriptor: int, sender: Sender, *, longest: int = MAX_JSON_BYTES) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self._sender = sender
        self._reader = Reader(descriptor)
        self._decoder = FrameDecoder(longest)

    async def send(self, *frames: bytes) -> None:
        """Send frames (`silo.wire.frames`); `EOFError` if the other end is closed."""
        for frame in frames:
            view = memoryview(frame)
            while view:
                try:
                    view = view[os.write(self.descriptor, view) :]
                except BlockingIOError:
                    await anyio.wait_writable(self.descriptor)
                except (BrokenPipeError, ConnectionResetError) as error:
                    raise EOFError from error

    async def frame(self) -> tuple[int, bytes]:
        """Wait for the next frame; return its kind and its payload."""
        while (frame := self._decoder.pull()) is None:
            self._decoder.push(await self._reader.some())
        return frame

    async def receive(self) -> Received:
        """Wait for the next frame, which must be a message, and parse it."""
        kind, payload = await self.frame()
        if kind != JSON:
            raise WireError("a blob where a message was due")
        steps = steps_to_message(payload, self._sender)
        return finish(steps) if len(payload) <= _AT_ONCE_BYTES else await _in_turn(steps, len(payload))

    async def message(self) -> Message:
        """Wait for the next message, as `receive`."""
        return (await self.receive()).message


async def _in_turn(steps: Steps[T], size: int) -> T:
    """Take the steps in a thread, when it is this message's turn among those of all guests of this event loop.

    A thread that parses holds the interpreter's lock for up to a step, so several threads would keep the event loop
    from it several times as long. A long message is finished before the next begins, because Python's garbage collector
    stops everything for as long as there are lists and objects to scan.
    """
    try:
        turns = _turns.get()
    except LookupError:
        turns = _Turns()
        _turns.set(turns)
    ended: list[T] = []

    def step() -> None:
        try:
            next(steps)
        except StopIteration as end:
            ended.append(end.value)

    async with turns.short if size <= _SHORT_BYTES else turns.long:
        while not ended:
            await to_thread.run_sync(step, limiter=turns.threads)
    return ended[0]


class GuestLink:
    """The conversation with one guest, from its boot (or its restore) to the one call that it serves.

    Args:
        streams: the host's ends; their opener closes them.
        limits: the limits for the guest's output.
        name: the name of the skill, for messages.
    """

    def __init__(self, streams: Mapping[str, int], limits: Limits, *, name: str) -> None:
        self._limits = limits
        self._name = name
        self._control = Wire(streams["control"], Sender.INIT, longest=MAX_CONTROL_BYTES)
        self._call = Wire(streams["call"], Sender.RUNNER)
        printed = (streams["out"], streams["err"])
        for descriptor in printed:
            os.set_blocking(descriptor, False)
        self._printed = tuple(Reader(descriptor) for descriptor in printed)
        self._out = _Sink(limits.log_bytes, limits.flood_bytes)
        self._err = _Sink(limits.log_bytes, limits.flood_bytes)
        self.facts: dict[str, str] = {}

    async def describe(self, *, deadline: float) -> Described:
        """Wait until the guest has booted, imported its skill and described it.

        Raises: as `silo.sandbox.skill.describe.describe`.
        """
        with self._deadline(deadline, f"importing the skill '{self._name}'"):
            booted = await self._guarded(self._boot, is_control=True)
            self.facts.update(kernel=booted.kernel, python=booted.python)
            answer = await self._guarded(self._call.message)
        if isinstance(answer, Described):
            return answer
        if isinstance(answer, Failed):
            raise self._failure(answer)
        raise self._lost(f"a {answer.TYPE} message where the skill's description was due")

    async def _boot(self) -> Booted:
        message = await self._control.message()
        if not isinstance(message, Booted):
            raise WireError(f"a {message.TYPE} message where 'booted' was due")
        return message

    async def hold(self, *, deadline: float) -> int:
        """Let the guest's skill stand still until `resume`; return the guest's clock, in nanoseconds since the epoch.

        Raises:
            SandboxTimeout, SandboxLost, SkillFailed: the guest does not answer, or its skill has ended.
        """

        async def exchange() -> Message:
            await self._control.send(encode_message(Hold()))
            return await self._control.message()

        with self._deadline(deadline, f"stopping the guest of '{self._name}'"):
            answer = await self._guarded(exchange, is_control=True)
        if isinstance(answer, Exited):
            raise self._reason(_Died(answer))
        if not isinstance(answer, Held):
            raise self._lost(f"a {answer.TYPE} message where 'held' was due")
        return answer.realtime_ns

    async def resume(self, hostname: str) -> None:
        """Tell a guest its entropy, clock and name, and let it run. Does not wait: the call queues behind it.

        Raises:
            SandboxLost: the guest is gone.
        """
        message = Resume(entropy=secrets.token_hex(64), realtime_ns=time.time_ns(), hostname=hostname)
        check(message)
        try:
            await self._control.send(encode_message(message))
        except EOFError:
            raise self._lost("it was gone before it could be resumed") from None

    async def rehearse(self, *, deadline: float) -> None:
        """Let the guest do what a call does once, so that the real call is faster."""

        async def exchange() -> Message:
            await self._call.send(encode_message(Rehearse(len(_EMPTY_DOCUMENT))), *encode_blob(_EMPTY_DOCUMENT))
            return await self._call.message()

        with self._deadline(deadline, f"rehearsing the skill '{self._name}'"):
            answer = await self._guarded(exchange)
        if not isinstance(answer, Rehearsed):
            raise self._lost(f"a {answer.TYPE} message where 'rehearsed' was due")

    async def run(self, request: GuestRequest, *, deadline: float, on_progress: OnProgress) -> GuestReply:
        """Send the call and wait for its answer (see `silo.sandbox.skill.call.SkillGuest.run`)."""
        marker = secrets.token_hex(16)
        for sink in (self._out, self._err):
            sink.marker = marker.encode()
        parts, given = request.document()
        document = json.dumps(parts, allow_nan=False).encode()
        head = Run(
            request.tool,
            len(document),
            marker,
            tuple(FileHead(file.name or f"file-{i}", file.media_type, file.size) for i, file in enumerate(given)),
        )
        check(head)
        pace = Pace(burst=_REPORTS_AT_ONCE, per_s=_REPORTS_PER_S)

        async def exchange() -> tuple[Finished | Failed, tuple[File, ...]]:
            await self._call.send(encode_message(head), *encode_blob(document))
            for file in given:
                await self._call.send(*encode_blob(file.data))
            while True:
                received = await self._call.receive()
                message = received.message
                if isinstance(message, Progress):
                    on_progress(message)
                    await pace.wait()
                elif isinstance(message, Failed):
                    await self._logs_end()
                    return message, ()
                elif isinstance(message, Finished):
                    files = await self._files(message, received.sizes)
                    await self._logs_end()
                    return message, files
                else:
                    raise WireError(f"a {message.TYPE} message in the middle of a call")

        with self._deadline(deadline, f"the call of '{self._name}.{request.tool}'"):
            outcome, files = await self._guarded(exchange)
        if isinstance(outcome, Failed):
            raise self._failure(outcome)
        return GuestReply(outcome, files, self._out.captured(), self._err.captured(), facts=dict(self.facts))

    async def _files(self, finished: Finished, sizes: Mapping[str, int]) -> tuple[File, ...]:
        """Receive the files that a result announced; refuse too many bytes before reading them."""
        total = sum(head.size for head in finished.files)
        if total > self._limits.files_bytes:
            raise self._failed(
                ResultTooLarge,
                f"the files of the result have {total} bytes, allowed are {self._limits.files_bytes}",
                "return fewer or smaller files",
            )
        # A structured result is sent twice, as text and as data, so the limit is for each of them. Data counts as the
        # guest wrote it: encoding it again would hold up the event loop.
        for part in ("text", "data"):
            size = sizes.get(part, 0)
            if size > self._limits.result_bytes:
                raise self._failed(
                    ResultTooLarge,
                    f"the {part} of the result has {size} bytes, allowed are {self._limits.result_bytes}",
                    "return less, or return a file",
                )
        received = []
        for head in finished.files:
            data = bytearray()
            while len(data) < head.size:
                kind, payload = await self._call.frame()
                if kind != BLOB or len(payload) != min(BLOB_BYTES, head.size - len(data)):
                    raise WireError(
                        "a result's file must have the size that was announced, "
                        f"in pieces of {BLOB_BYTES} bytes and a last one of what is left"
                    )
                data += payload
            received.append(File(bytes(data), head.media_type, head.name))
        return tuple(received)

    async def _logs_end(self) -> None:
        """Wait briefly until everything that the skill printed has been read: the skill may have broken its output."""
        with anyio.move_on_after(1.0):
            await self._out.ended.wait()
            await self._err.ended.wait()

    async def _guarded(self, exchange: Callable[[], Awaitable[T]], *, is_control: bool = False) -> T:
        """Run `exchange` while reading the guest's output and watching whether it lives.

        Three tasks run at once, and the first to end decides: the exchange answers; init reports a death; the guest
        floods its output. After a death the exchange gets a moment more, because its answer may be on the way.
        """
        answer: list[T] = []
        failure: list[BaseException] = []

        async def do(group: anyio.abc.TaskGroup) -> None:
            try:
                answer.append(await exchange())
            except EOFError as error:
                failure.append(error)
                await anyio.sleep(_LAST_WORDS_S)  # init may be about to say why
            except (WireError, SkillFailed) as error:
                failure.append(error)
            except Exception as error:  # from the caller's `on_progress`: it ends the call, and is raised unchanged
                failure.insert(0, error)
            group.cancel_scope.cancel()

        async def drain(printed: Reader, sink: _Sink, group: anyio.abc.TaskGroup) -> None:
            try:
                while True:
                    sink.feed(await printed.some())
            except EOFError:
                return
            except _Flooded as error:
                failure.insert(0, error)
                group.cancel_scope.cancel()

        async def watch(group: anyio.abc.TaskGroup) -> None:
            reason: Exception = EOFError()
            try:
                message = await self._control.message()
                if isinstance(message, Exited):
                    reason = _Died(message)
            except EOFError:
                pass
            except WireError as error:
                reason = error
            failure.insert(0, reason)
            await anyio.sleep(_LAST_WORDS_S)
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for printed, sink in zip(self._printed, (self._out, self._err), strict=True):
                group.start_soon(drain, printed, sink, group)
            if not is_control:  # else the next message on the control channel is the answer
                group.start_soon(watch, group)
            group.start_soon(do, group)
        if answer:
            return answer[0]
        first = failure[0]
        if isinstance(first, _Flooded | _Died | WireError | EOFError):
            raise self._reason(first)
        raise first

    def _reason(self, error: BaseException) -> SkillFailed:
        """Return the error of `silo.errors` for a conversation that broke off."""
        if isinstance(error, _Flooded):
            return self._failed(
                SkillFlooded,
                f"the skill '{self._name}' printed more than {self._limits.flood_bytes} bytes and was ended",
                "print less; return large results as files",
            )
        if isinstance(error, _Died):
            status, killed = error.exited.status, error.exited.oom_kills
            if killed:
                return self._failed(
                    SkillOutOfMemory,
                    f"the skill '{self._name}' needed more than the guest's {self._limits.memory_mib} MiB of memory",
                    "raise `memory_mib` in the skill's header, or give it less to do",
                )
            if status < 0:
                return self._failed(
                    SkillCrashed,
                    f"the skill '{self._name}' was ended by signal {-status}",
                    "look at what it printed; a native library of its environment may be at fault",
                )
            return self._failed(
                SkillExited,
                f"the skill '{self._name}' exited with status {status} instead of answering",
                "return a value from the tool instead of calling os._exit",
            )
        if isinstance(error, WireError):
            return self._failed(
                ResultInvalid,
                f"the guest of '{self._name}' broke the protocol: {error}",
                "a skill must not touch silo's own descriptors; report this if it does not",
            )
        return self._lost("it exited without a reply")

    def _failure(self, failed: Failed) -> SkillFailed:
        """Return the error for the code that the guest reports."""
        if failed.code == "skill-exception" and failed.message.startswith("MemoryError"):
            return self._reason(_Died(Exited(status=-9, oom_kills=1)))
        kind, hint = FAILURES[failed.code]
        where = (
            f"the skill '{self._name}': " if kind in (SkillSyntaxError, SkillImportError, SkillMetadataInvalid) else ""
        )
        return self._failed(kind, where + failed.message, hint, traceback=failed.traceback)

    def _failed(self, kind: type[SkillFailed], message: str, hint: str | Remedy, *, traceback: str = "") -> SkillFailed:
        out, err = self._out.captured(), self._err.captured()
        return kind(
            message,
            hint=hint,
            stdout=_decoded(out.data),
            stderr=_decoded(err.data),
            traceback=traceback,
        )

    def _lost(self, reason: str) -> SkillFailed:
        return self._failed(
            SandboxLost,
            f"the guest of '{self._name}' was lost: {reason}",
            "call again; if it happens twice, `silo doctor` says whether the sandbox works",
        )

    @contextlib.contextmanager
    def _deadline(self, deadline: float, what: str) -> Iterator[None]:
        budget = max(0.0, deadline - time.monotonic())
        try:
            with anyio.fail_after(budget):
                yield
        except TimeoutError:
            raise self._failed(
                SandboxTimeout,
                f"{what} did not end in time and was stopped",
                "raise `timeout_s` in the skill's header, or give it less to do",
            ) from None


def _decoded(printed: bytes) -> str:
    """Return what was printed as text, whole: a cut before redaction would hide the rest of a secret from it.

    A character that a limit or the guest's end has cut in two is dropped, so that the text ends with what was printed.
    """
    return codecs.getincrementaldecoder("utf-8")("replace").decode(printed)
