"""What every sandbox backend must promise, as a test class: silo's own backends pass it, and so must a third party's.

    class TestMine(SandboxConformance):
        @pytest.fixture
        def backend(self) -> Backend: ...

`make_unit(script, *, limits)` has to be a fixture of the caller's `conftest.py` (silo's own has one): it turns the text
of a script into a `Unit`. Needs pytest, and anyio's plugin for it. For readable failures call
`pytest.register_assert_rewrite` with this module's name before importing it. Attacks on what lies behind the sandbox
(the host's files, its network, secrets) are in `tests/promises`.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import anyio
import pytest

from silo.errors import (
    ArgumentsRefused,
    ResultInvalid,
    ResultTooLarge,
    SandboxBroken,
    SandboxTimeout,
    SecretUndeclared,
    SiloError,
    SkillCrashed,
    SkillExited,
    SkillFailed,
    SkillFlooded,
    SkillImportError,
    SkillOutOfMemory,
    SkillRaised,
    SkillSyntaxError,
)
from silo.model import File
from silo.sandbox.base import Backend, Limits
from silo.sandbox.skill.base import GuestReply, GuestRequest, Unit
from silo.sandbox.skill.call import SkillGuest, open_guest
from silo.sandbox.skill.describe import describe
from silo.sizes import KIB, MIB
from silo.testing import PATIENCE_S
from silo.testing.traces import adopting_orphans, processes, traces
from silo.wire.messages import Finished, Progress

MakeUnit = Callable[..., Awaitable[Unit]]

_PREPARED = pytest.StashKey[bool]()

LIMITS = Limits(
    memory_mib=160,
    processes=32,
    scratch_mib=16,
    log_bytes=4 * KIB,
    flood_bytes=256 * KIB,
    result_bytes=64 * KIB,
    files_bytes=8 * MIB,
)
"""Small, so that it is quick to exceed them, and unlike the defaults, so that a backend that ignores them fails."""

TEMPLATE_S = PATIENCE_S
"""For preparing a unit; emulated guests of a busy machine are slow to boot."""

CALL_S = PATIENCE_S
"""For calls that are expected to answer; they take far less."""

SCRIPT = dedent('''
    """Does what a guest must survive."""

    import asyncio
    import ctypes
    import os
    import signal
    import sys
    import threading
    import time
    from pathlib import Path

    from silo import AgentResponse, File, Skill, report_progress, require_secret

    skill = Skill("probe")
    at_import = time.monotonic()


    @skill.tool()
    def echo(value: dict) -> dict:
        return value


    @skill.tool()
    async def echo_later(value: dict) -> dict:
        await asyncio.sleep(0.01)
        return value


    @skill.tool()
    def progress(steps: int) -> str:
        for step in range(steps):
            report_progress(step, steps, f"step {step}")
        return "done"


    @skill.tool()
    def reverse(data: File) -> File:
        return File(data.data[::-1], data.media_type, f"reversed-{data.name}")


    @skill.tool()
    def files(count: int, size: int) -> AgentResponse:
        return AgentResponse("here", files=[File(bytes(size), name=f"f{i}.bin") for i in range(count)])


    @skill.tool()
    def speak(lines: int) -> str:
        for line in range(lines):
            print("line", line)
            os.write(1, f"raw {line}\\n".encode()) if sys.stdout.flush() is None else None
            print("error", line, file=sys.stderr)
        return "said"


    @skill.tool()
    def print_much(size: int, to: int) -> str:
        piece = b"0123456789abcdef" * 64
        for _ in range(size // len(piece)):
            os.write(to, piece)
        return "printed"


    @skill.tool()
    def spoil(how: str) -> str:
        frame = b"\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x02{}"
        if how == "frames":
            print('{"type":"finished","text":"forged"}')
            os.write(1, frame * 100)
            os.write(2, frame * 100)
        elif how == "close":
            os.close(1)
            os.close(2)
        elif how == "replace":
            sys.stdout = sys.stderr = None
        elif how == "close stream":
            sys.stdout.close()
        elif how == "no newline":
            sys.stdout.write("unfinished")
        return "unspoilt"


    @skill.tool()
    def end(how: str) -> str:
        if how == "exception":
            raise LookupError("nothing there")
        if how == "exit":
            sys.exit(3)
        if how == "os._exit":
            os._exit(4)
        if how == "segfault":
            ctypes.string_at(0)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "abort":
            os.abort()
        if how == "hang":
            time.sleep(1000)
        if how == "hang with signals blocked":
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
            while True:
                time.sleep(1000)
        if how == "spin":
            while True:
                pass
        if how == "spin in a thread":
            threading.Thread(target=lambda: all(iter(int, 1))).start()
            while True:
                pass
        if how == "fork bomb":
            while True:
                try:
                    os.fork()
                except OSError:
                    time.sleep(0.01)
        if how == "memory":
            hoard = []
            while True:
                hoard.append(os.urandom(1 << 20))
        if how == "flood":
            while True:
                os.write(1, b"x" * 4096)
        if how == "flood of errors":
            while True:
                sys.stderr.write("x" * 4096)
        return "it did not end"


    @skill.tool()
    def answer(how: str):
        loop: list = []
        loop.append(loop)
        return {
            "an object": lambda: object(),
            "nan": lambda: float("nan"),
            "a loop": lambda: loop,
            "a key": lambda: {1: 2, (3, 4): 5},
            "deep": lambda: eval("[" * 80 + "]" * 80),
            "text": lambda: "x" * 1_000_000,
            "data": lambda: {"x": ["y" * 100] * 10_000},
            "huge": lambda: "x" * 20_000_000,
        }[how]()


    @skill.tool()
    def secret(name: str) -> int:
        return len(require_secret(name))


    @skill.tool()
    def date(value: int) -> int:
        return value


    @skill.tool()
    def children() -> str:
        """Leave processes behind: one in a session of its own that holds every descriptor, one that ignores signals."""
        for step in range(3):
            if os.fork() == 0:
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                if os.fork() == 0:
                    time.sleep(1000)
                time.sleep(1000)
        return "left"


    def _places():
        return ["/tmp/left", "/dev/shm/left", "/skill/left", "/skill/env/left.py", "/runtime/left", "/usr/left",
                "/left", "/etc/left", "/var/tmp/left", "/run/left", "/dev/left"]


    @skill.tool()
    def leave() -> list[str]:
        written = []
        for place in _places():
            try:
                Path(place).write_text("left")
                written.append(place)
            except OSError:
                pass
        os.environ["LEFT"] = "left"
        os.chdir("/")
        skill.left = True
        sys.modules["left"] = sys
        return written


    @skill.tool()
    def find() -> list[str]:
        found = [place for place in _places() if Path(place).exists()]
        found += ["environment"] if "LEFT" in os.environ else []
        found += ["cwd"] if os.getcwd() != "/tmp" else []
        found += ["memory"] if hasattr(skill, "left") or "left" in sys.modules else []
        return found


    @skill.tool()
    def count() -> int:
        skill.calls = getattr(skill, "calls", 0) + 1
        return skill.calls


    if __name__ == "__main__":
        skill.run()
''')


class SandboxConformance:
    """The promises of `silo.sandbox.base`, and a skill's calls over them.

    A subclass provides the fixture `backend`, its `conftest.py` the fixture `make_unit`.
    """

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    async def unit(self, make_unit: MakeUnit) -> Unit:
        """The unit that most cases call."""
        return await make_unit(SCRIPT, limits=LIMITS)

    @pytest.fixture(autouse=True)
    async def _leaves_nothing(
        self,
        backend: Backend,
        unit: Unit,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        request: pytest.FixtureRequest,
    ) -> AsyncIterator[None]:
        """After each case, no process, descriptor, temporary file, control group or mount has been left."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with adopting_orphans():
            of_class = request.node.getparent(pytest.Class)
            if not of_class.stash.get(_PREPARED, False):
                await call(backend, unit, "count")  # from here on, a backend has everything that it keeps for a unit
                of_class.stash[_PREPARED] = True
            before = traces(tmp_path)
            yield
            assert traces(tmp_path) == before

    # --- its guests ---------------------------------------------------------------------------------------------------

    async def test_a_guest_is_what_its_spec_says(self, backend: Backend, unit: Unit) -> None:
        async with backend.start(unit.spec) as guest, backend.start(unit.spec) as other:
            assert guest.spec == unit.spec
            assert guest.isolation == backend.isolation
            assert guest.streams.keys() == {stream.name for stream in unit.spec.streams}
            assert guest.facts["backend"]
            assert guest.kept is None, "it starts from the beginning"
            assert guest.name != other.name

    async def test_a_guest_that_was_started_from_the_beginning_answers(self, backend: Backend, unit: Unit) -> None:
        async with backend.start(unit.spec) as guest:
            request = GuestRequest("echo", {"value": {"a": 1}})
            reply = await SkillGuest(guest).run(request, deadline=time.monotonic() + TEMPLATE_S, on_progress=_ignore)
        assert finished(reply).data == {"a": 1}
        assert reply.timing["import"] > 0

    async def test_a_guest_that_is_ended_is_gone(self, backend: Backend, unit: Unit) -> None:
        before = processes()
        async with backend.start(unit.spec) as guest:
            assert processes() != before
            ended = await guest.end()
            assert processes() == before
            assert await guest.end() == ended
            assert ended.last_words
            assert ended.hint
            assert not ended.is_out_of_memory

    async def test_a_guest_that_dies_is_an_error_of_the_sandbox(self, backend: Backend, unit: Unit) -> None:
        async with backend.start(unit.spec) as guest:
            await guest.end()
            request = GuestRequest("echo", {"value": {}})
            with pytest.raises(SandboxBroken, match="was lost") as caught:
                await SkillGuest(guest).run(request, deadline=time.monotonic() + CALL_S, on_progress=_ignore)
            assert caught.value.hint

    # --- it answers ---------------------------------------------------------------------------------------------------

    async def test_a_probe_says_that_it_works(self, backend: Backend) -> None:
        probe = await backend.probe()
        assert (probe.name, probe.isolation) == (backend.name, backend.isolation)
        assert (probe.works, probe.missing) == (True, ())
        assert probe.detail

    async def test_a_description_names_every_tool(self, backend: Backend, unit: Unit) -> None:
        described = await describe(backend, unit, deadline=time.monotonic() + TEMPLATE_S, on_step=_ignore)
        assert described.isolation == backend.isolation
        assert described.skill["summary"] == "Does what a guest must survive."
        assert {tool["name"] for tool in described.skill["tools"]} >= {"echo", "echo_later", "end", "find"}

    @pytest.mark.parametrize("tool", ["echo", "echo_later"])
    async def test_sync_and_async_tools_answer(self, backend: Backend, unit: Unit, tool: str) -> None:
        value = {"text": "ä€😀\u0000\n", "numbers": [0, -1, 2**53, 1.5e-300], "nested": {"": [None, True, {}]}}
        reply = await call(backend, unit, tool, value=value)
        assert finished(reply).data == value
        assert reply.facts.keys() >= {"kernel", "python", "backend"}
        assert all(seconds >= 0 for seconds in reply.timing.values())

    async def test_progress_comes_in_order_and_before_the_answer(self, backend: Backend, unit: Unit) -> None:
        seen: list[Progress] = []
        async with open_guest(backend, unit, on_step=_ignore) as sandbox:
            request = GuestRequest("progress", {"steps": 50})
            await sandbox.run(request, deadline=time.monotonic() + CALL_S, on_progress=seen.append)
            assert [(p.progress, p.total, p.message) for p in seen] == [(i, 50, f"step {i}") for i in range(50)]

    async def test_a_tool_may_report_as_fast_as_it_can(self, backend: Backend, unit: Unit) -> None:
        seen: list[Progress] = []
        async with open_guest(backend, unit, on_step=_ignore) as sandbox:
            request = GuestRequest("progress", {"steps": 3000})
            await sandbox.run(request, deadline=time.monotonic() + CALL_S, on_progress=seen.append)
        counts = [one.progress for one in seen]
        assert counts == sorted(set(counts))
        assert counts[0] == 0
        assert counts[-1] == 2999

    @pytest.mark.parametrize("size", [0, 1, 256 * KIB, 3 * MIB + 7])
    async def test_files_go_in_and_come_out_byte_by_byte(self, backend: Backend, unit: Unit, size: int) -> None:
        data = random.Random(size).randbytes(size)  # noqa: S311 - a reproducible pattern
        file = File(data, "image/x-test", "data.bin")
        reply = await call(backend, unit, "reverse", data=file)
        (back,) = reply.files
        assert hashlib.sha256(back.data).digest() == hashlib.sha256(data[::-1]).digest()
        assert (back.media_type, back.name) == ("image/x-test", "reversed-data.bin")

    async def test_a_secret_that_was_not_given_is_refused(self, backend: Backend, unit: Unit) -> None:
        reply = await call(backend, unit, "secret", secrets={"GIVEN": "12345"}, name="GIVEN")
        assert finished(reply).data == 5
        with pytest.raises(SecretUndeclared):
            await call(backend, unit, "secret", secrets={"GIVEN": "12345"}, name="OTHER")

    async def test_arguments_that_do_not_fit_the_types_are_refused(self, backend: Backend, unit: Unit) -> None:
        with pytest.raises(ArgumentsRefused):
            await call(backend, unit, "date", value="no number")

    # --- what it prints -----------------------------------------------------------------------------------------------

    async def test_output_is_captured_in_order(self, backend: Backend, unit: Unit) -> None:
        reply = await call(backend, unit, "speak", lines=20)
        assert reply.stdout.data.decode() == "".join(f"line {i}\nraw {i}\n" for i in range(20))
        assert reply.stderr.data.decode() == "".join(f"error {i}\n" for i in range(20))
        assert not reply.stdout.is_truncated

    @pytest.mark.parametrize("to", [1, 2], ids=["stdout", "stderr"])
    async def test_output_beyond_the_limit_is_dropped_and_counted(self, backend: Backend, unit: Unit, to: int) -> None:
        reply = await call(backend, unit, "print_much", size=128 * KIB, to=to)
        captured, other = (reply.stdout, reply.stderr) if to == 1 else (reply.stderr, reply.stdout)
        assert (len(captured.data), captured.total, captured.is_truncated) == (LIMITS.log_bytes, 128 * KIB, True)
        assert captured.data == (b"0123456789abcdef" * 64) * (LIMITS.log_bytes // 1024)
        assert other.total == 0

    @pytest.mark.parametrize("how", ["frames", "close", "replace", "close stream", "no newline"])
    async def test_what_is_printed_cannot_spoil_the_answer(self, backend: Backend, unit: Unit, how: str) -> None:
        reply = await call(backend, unit, "spoil", how=how)
        assert finished(reply).text == "unspoilt"

    # --- how it may end -----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("how", "kind", "words"),
        [
            ("exception", SkillRaised, "LookupError: nothing there"),
            ("exit", SkillExited, "3"),
            ("os._exit", SkillExited, "4"),
            ("segfault", SkillCrashed, str(int(signal.SIGSEGV))),
            ("kill", SkillCrashed, str(int(signal.SIGKILL))),
            ("abort", SkillCrashed, str(int(signal.SIGABRT))),
            ("memory", SkillOutOfMemory, "memory"),
            ("flood", SkillFlooded, str(LIMITS.flood_bytes)),
            ("flood of errors", SkillFlooded, str(LIMITS.flood_bytes)),
        ],
    )
    async def test_each_way_to_end_without_an_answer_is_an_error_of_its_own(
        self, backend: Backend, unit: Unit, how: str, kind: type[SiloError], words: str
    ) -> None:
        with pytest.raises(kind, match=words) as caught:
            await call(backend, unit, "end", how=how)
        assert type(caught.value) is kind
        assert caught.value.hint

    @pytest.mark.parametrize("how", ["hang", "hang with signals blocked", "spin", "spin in a thread", "fork bomb"])
    async def test_a_call_ends_at_its_deadline(self, backend: Backend, unit: Unit, how: str) -> None:
        started = time.monotonic()
        with pytest.raises(SandboxTimeout):
            await call(backend, unit, "end", deadline_s=0.8, how=how)
        assert 0.7 < time.monotonic() - started < PATIENCE_S / 2  # without the deadline it would take much longer

    @pytest.mark.parametrize("how", ["an object", "nan", "a loop", "deep"])
    async def test_an_answer_that_is_not_json_is_invalid(self, backend: Backend, unit: Unit, how: str) -> None:
        with pytest.raises(ResultInvalid):
            await call(backend, unit, "answer", how=how)

    @pytest.mark.parametrize("how", ["text", "data", "huge"])
    async def test_an_answer_beyond_the_limit_is_too_large(self, backend: Backend, unit: Unit, how: str) -> None:
        with pytest.raises(ResultTooLarge):
            await call(backend, unit, "answer", how=how)

    @pytest.mark.parametrize(("count", "size"), [(1, 9 * MIB), (9, MIB), (33, 1)])
    async def test_files_beyond_the_limit_are_too_large(
        self, backend: Backend, unit: Unit, count: int, size: int
    ) -> None:
        with pytest.raises((ResultTooLarge, ResultInvalid)):
            await call(backend, unit, "files", count=count, size=size)

    @pytest.mark.parametrize(
        ("script", "kind", "words"),
        [
            ("import silo\n)", SkillSyntaxError, "line 2"),
            ("import no_such_module", SkillImportError, "no_such_module"),
            ("import os\nos._exit(6)", SkillExited, "6"),
            ("import time\ntime.sleep(1000)", SandboxTimeout, "in time"),
        ],
        ids=["syntax", "dependency", "exits", "hangs"],
    )
    async def test_a_script_that_cannot_be_used_says_why(
        self,
        backend: Backend,
        make_unit: MakeUnit,
        script: str,
        kind: type[SiloError],
        words: str,
    ) -> None:
        unit = await make_unit(script, limits=LIMITS)
        budget = self.hang_s if "sleep" in script else TEMPLATE_S
        with pytest.raises(kind, match=words):
            await describe(backend, unit, deadline=time.monotonic() + budget, on_step=_ignore)

    hang_s = 6.0
    """How long to wait for a script that hangs at import: longer than a guest takes to reach it."""

    # --- what stays ---------------------------------------------------------------------------------------------------

    async def test_processes_that_a_tool_leaves_behind_end_with_the_call(self, backend: Backend, unit: Unit) -> None:
        before = processes()
        assert finished(await call(backend, unit, "children")).text == "left"
        assert processes() == before

    async def test_nothing_that_a_call_changes_is_seen_by_the_next(self, backend: Backend, unit: Unit) -> None:
        written = finished(await call(backend, unit, "leave")).data
        assert set(written) <= {"/tmp/left", "/dev/shm/left"}  # noqa: S108
        assert "/tmp/left" in written  # noqa: S108
        assert finished(await call(backend, unit, "find")).data == []

    async def test_cancelling_ends_the_guest_before_the_cancellation_leaves(self, backend: Backend, unit: Unit) -> None:
        before = processes()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_swallow, call(backend, unit, "end", how="spin"))
            with anyio.fail_after(PATIENCE_S):
                while processes() == before:  # noqa: ASYNC110 - no event tells of a process
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        assert processes() == before

    async def test_cancelling_at_any_moment_leaves_nothing(self, backend: Backend, unit: Unit) -> None:
        before = traces(None)
        for step in range(16):
            with anyio.move_on_after(0.012 * step):
                await call(backend, unit, "echo", value={})
            assert traces(None) == before

    async def test_calls_at_once_do_not_mix(self, backend: Backend, unit: Unit) -> None:
        answers: dict[int, Any] = {}

        async def one(number: int) -> None:
            seen: list[Progress] = []
            async with open_guest(backend, unit, on_step=_ignore) as sandbox:
                request = GuestRequest("progress", {"steps": number + 1})
                await sandbox.run(request, deadline=time.monotonic() + CALL_S, on_progress=seen.append)
            reply = await call(backend, unit, "echo_later", value={"number": number})
            answers[number] = (len(seen), finished(reply).data)

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(one, number)
        assert answers == {number: (number + 1, {"number": number}) for number in range(4)}

    async def test_every_call_has_a_guest_of_its_own(self, backend: Backend, unit: Unit) -> None:
        before = traces(None)
        counts = [finished(await call(backend, unit, "count")).data for _ in range(30)]
        assert counts == [1] * 30
        assert traces(None) == before
        together: list[int] = []

        async def one() -> None:
            together.append(finished(await call(backend, unit, "count")).data)

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(one)
        assert together == [1] * 10
        assert traces(None) == before


# --- what the cases share ---------------------------------------------------------------------------------------------


async def call(
    backend: Backend,
    unit: Unit,
    tool: str,
    *,
    deadline_s: float = CALL_S,
    secrets: dict[str, str] | None = None,
    **arguments: Any,  # noqa: ANN401 - JSON values and files
) -> GuestReply:
    """Run one call in a fresh guest; the deadline counts from when the guest is open."""
    async with open_guest(backend, unit, on_step=_ignore) as sandbox:
        request = GuestRequest(tool, arguments, secrets or {})
        return await sandbox.run(request, deadline=time.monotonic() + deadline_s, on_progress=_ignore)


def finished(reply: GuestReply) -> Finished:
    """Return the outcome of a call that must have succeeded."""
    assert isinstance(reply.outcome, Finished), reply.outcome
    return reply.outcome


async def _swallow(awaitable: Awaitable[object]) -> None:
    with contextlib.suppress(SkillFailed):
        await awaitable


def _ignore(_: object) -> None:
    """Ignore progress or a step."""
