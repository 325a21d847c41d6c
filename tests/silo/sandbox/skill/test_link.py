"""The host's end of the conversation with a guest, in cases that need no guest.

`tests/silo/sandbox/backends` shows what real guests do.
"""

import contextlib
import importlib.util
import json
import os
import socket
import time
from contextlib import contextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo.cli.benchmarks.hostile import STALLS
from silo.errors import ResultInvalid, ResultTooLarge, SandboxTimeout, SkillFailed
from silo.sandbox.base import Limits
from silo.sandbox.skill.base import GuestReply, GuestRequest
from silo.sandbox.skill.failures import FAILURES
from silo.sandbox.skill.link import GuestLink, Wire
from silo.sandbox.streams import Reader
from silo.testing.hostile import wrong_messages
from silo.wire.frames import BLOB, HEADER_BYTES, JSON, MAX_JSON_BYTES, encode
from silo.wire.messages import (
    MESSAGES,
    Booted,
    Described,
    Exited,
    Failed,
    Finished,
    Held,
    Progress,
    Rehearsed,
    Sender,
    encode_message,
)
from silo.wire.strict_json import WINDOW_BYTES

pytestmark = pytest.mark.anyio

PATIENCE_S = 300.0


@pytest.fixture
def anyio_backend():
    return "asyncio"


@contextmanager
def streams():
    """The host's ends of a guest's four streams, and the guest's."""
    pairs = [socket.socketpair() for _ in range(4)]
    names = ("control", "call", "out", "err")
    try:
        yield {name: host.fileno() for name, (host, _) in zip(names, pairs, strict=True)}, [guest for _, guest in pairs]
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


@pytest.fixture
def ends():
    """As `streams`."""
    with streams() as both:
        yield both


@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), OSError("mine")])
async def test_what_is_raised_on_progress_ends_the_call_and_comes_out_as_it_is(ends, error):
    """The error comes out as it is, not in an exception group."""
    host, (_, call, _, _) = ends
    call.sendall(encode_message(Progress(1)))
    link = GuestLink(host, Limits(), name="demo")

    def complain(progress):
        raise error

    with pytest.raises(type(error)) as caught:
        await link.run(GuestRequest("echo", {}), deadline=time.monotonic() + PATIENCE_S, on_progress=complain)
    assert caught.value is error


@pytest.mark.parametrize("code", sorted(FAILURES))
async def test_each_failure_that_a_guest_reports_is_the_error_of_the_table(ends, code):
    host, (_, call, out, err) = ends
    call.sendall(encode_message(Failed(code, "what happened", "Traceback")))
    err.sendall(b"printed")
    out.close()
    err.close()
    link = GuestLink(host, Limits(), name="demo")
    kind, hint = FAILURES[code]
    with pytest.raises(kind, match="what happened") as caught:
        await link.run(
            GuestRequest("echo", {}), deadline=time.monotonic() + PATIENCE_S, on_progress=lambda progress: None
        )
    error = caught.value
    assert str(error.remedy) == str(hint)
    assert (type(error), error.stderr, error.traceback) == (kind, "printed", "Traceback")


GUEST_MESSAGES = [
    Booted("6.1.0", "3.11.7"),
    Held(1),
    Exited(0, 0),
    Described({}, 0.0, 0.0),
    Rehearsed(),
    Progress(1, 2, "x"),
    Finished("x", {"a": 1}, has_data=True),
    Failed("skill-exception", "x", "y"),
]


def test_every_message_of_a_guest_is_tried_here():
    assert {type(one) for one in GUEST_MESSAGES} == {k for k, form in MESSAGES.items() if form.sender != Sender.HOST}


@pytest.mark.parametrize("message", GUEST_MESSAGES, ids=lambda message: message.TYPE)
async def test_each_wrong_message_is_the_same_clear_failure_of_the_guest(message):
    """A wrong type in `failed.message` became an AttributeError, and that an internal error of silo."""
    body = json.loads(encode_message(message)[HEADER_BYTES:])
    del body["type"]
    is_control = MESSAGES[type(message)].sender is Sender.INIT
    wrong = [(what, data) for what, data in wrong_messages(type(message), body) if len(data) < 100_000]
    for what, payload in wrong:
        with streams() as (host, (control, call, _, _)):
            if not is_control:
                control.sendall(encode_message(Booted("6.1.0", "3.11.7")))
            (control if is_control else call).sendall(encode(JSON, payload))
            link = GuestLink(host, Limits(), name="demo")
            with pytest.raises(ResultInvalid, match=r"^the guest of 'demo' broke the protocol: ") as caught:
                await link.describe(deadline=time.monotonic() + PATIENCE_S)
            assert len(str(caught.value)) < 600, what


# --- what would hold up the event loop --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def stalls():
    """What the guest of `silo bench hostile` sends: first, and then for ever."""
    place = Path(__file__).parents[4] / "examples/bench/hostile_guest/skill.py"
    spec = importlib.util.spec_from_file_location("hostile_guest", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.STALLS


class Work:
    """Counts what happens between two turns of the event loop: bytes read, and reports that were taken."""

    def __init__(self):
        self.turns = self.reports = self.most_reports = 0
        self.is_over = False

    def report(self, progress):
        self.reports += 1
        self.most_reports = max(self.most_reports, self.reports)

    async def watch(self):
        while not self.is_over:
            self.turns += 1
            self.reports = 0
            await anyio.lowlevel.checkpoint()


async def pour(guest, first, again):
    """Write as fast as the host reads, until it hangs up."""
    guest.setblocking(False)
    data = first or again
    with contextlib.suppress(OSError):
        while data:
            view = memoryview(data)
            while view:
                try:
                    view = view[guest.send(view) :]
                except BlockingIOError:
                    await anyio.wait_writable(guest)
            data = again


NAMES = [
    "empty lists", "empty objects", "deep nesting", "nests of sixty", "brackets in a string", "long integers",
    "one long integer", "many keys", "escapes", "lone surrogates", "wide characters", "white space", "half a frame",
    "many reports", "many long reports", "empty pieces", "pieces of a byte", "single bytes",
]  # fmt: skip
ENDLESS = {"half a frame", "many reports", "many long reports"}
REFUSED_BY_SIZE = {"brackets in a string", "wide characters", "long integers"}
VALID = {"escapes", "white space"}


def test_every_stall_of_the_benchmark_is_tried_here(stalls):
    assert list(stalls) == NAMES
    assert {*STALLS} == {*NAMES, "lines", "single characters"}


@pytest.mark.parametrize("name", NAMES)
async def test_what_is_slow_to_parse_leaves_the_event_loop_to_others(ends, stalls, name):
    """8 MiB were parsed in one turn of the event loop, and a burst of small messages likewise.

    Counts turns instead of seconds: while a long message is parsed, there is a turn for each step at least.
    """
    host, (_, call, out, err) = ends
    out.close()
    err.close()
    first, again = stalls[name]()
    link, work = GuestLink(host, Limits(), name="demo"), Work()
    deadline = time.monotonic() + (2.0 if name in ENDLESS else PATIENCE_S)
    outcome = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work.watch)
        tasks.start_soon(pour, call, first, again)
        try:
            outcome = await link.run(GuestRequest("echo", {}), deadline=deadline, on_progress=work.report)
        except SkillFailed as error:
            outcome = error
        work.is_over = True
        tasks.cancel_scope.cancel()
    expected = (
        SandboxTimeout if name in ENDLESS
        else ResultTooLarge if name in REFUSED_BY_SIZE
        else GuestReply if name in VALID
        else ResultInvalid
    )  # fmt: skip
    assert type(outcome) is expected, outcome
    assert work.most_reports <= 1
    if name in {"escapes", "lone surrogates", "wide characters", "white space", "brackets in a string"}:
        assert work.turns >= MAX_JSON_BYTES // WINDOW_BYTES  # a turn for each window of the message


async def test_reports_that_come_too_fast_wait_and_none_is_lost(ends):
    host, (_, call, out, err) = ends
    frames = b"".join(encode_message(Progress(number)) for number in range(230))
    call.sendall(frames + encode_message(Finished("done")))
    out.close()
    err.close()
    seen = []
    link = GuestLink(host, Limits(), name="demo")
    began = time.monotonic()
    await link.run(GuestRequest("echo", {}), deadline=began + PATIENCE_S, on_progress=seen.append)
    assert [one.progress for one in seen] == list(range(230))
    assert time.monotonic() - began >= 0.29  # 30 more than 200, 100 a second


async def test_a_long_message_does_not_hold_up_a_short_one(ends, stalls):
    """A long message of one guest waits for those before it; a failure of another guest does not."""
    host, (_, call, _, _) = ends
    first, _ = stalls["escapes"]()
    tracebacks = encode_message(Failed("skill-exception", "x", "\x00" * 10_000))
    order = []

    async def receive(wire, name):
        await wire.message()
        order.append(name)

    with streams() as (other, (_, other_call, _, _)):
        other_call.sendall(tracebacks)
        long, short = Wire(host["call"], Sender.RUNNER), Wire(other["call"], Sender.RUNNER)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive, long, "long")
            await pour(call, first, b"")  # then the host has nearly all of it
            tasks.start_soon(receive, short, "short")
    assert order == ["short", "long"]


@pytest.mark.parametrize("stream", [2, 3])
async def test_everything_that_is_printed_in_single_characters_is_read(ends, stream):
    host, guest = ends
    link = GuestLink(host, Limits(), name="demo")

    async def drip():
        for _ in range(3000):
            await pour(guest[stream], b"x", b"")
        guest[1].sendall(encode_message(Finished("done")))
        guest[2].close()
        guest[3].close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drip)
        reply = await link.run(
            GuestRequest("echo", {}), deadline=time.monotonic() + PATIENCE_S, on_progress=lambda progress: None
        )
    assert {reply.stdout.total, reply.stderr.total} == {0, 3000}


async def test_single_characters_are_read_in_larger_pieces_after_a_while(ends):
    """A guest that prints one byte at a time cost the host a read for each."""
    (host, (_, _, out, _)), reads = ends, []

    async def drip():
        for _ in range(10_000):
            await pour(out, b"x", b"")
        out.close()

    os.set_blocking(host["out"], False)
    reader = Reader(host["out"])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drip)
        with contextlib.suppress(EOFError):
            while True:
                reads.append(len(await reader.some()))
    assert sum(reads) == 10_000
    assert len(reads) < 2000


# --- a fuzzer with a fixed budget -------------------------------------------------------------------------------------

_BODIES = [json.loads(encode_message(message)[HEADER_BYTES:]) for message in GUEST_MESSAGES]
_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(sorted({key for body in _BODIES for key in body})) | st.text(max_size=4)


@st.composite
def hostile_streams(draw):
    """Frames of messages with some fields exchanged, dropped or added, raw frames, and a few damaged bytes."""
    stream = bytearray()
    for _ in range(draw(st.integers(1, 5))):
        body = dict(draw(st.sampled_from(_BODIES)))
        body.update(draw(st.dictionaries(_KEYS, _JUNK, max_size=2)))
        for key in draw(st.lists(st.sampled_from(sorted(body)), max_size=1)):
            del body[key]
        payload = json.dumps(body, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
        stream += draw(st.sampled_from([encode(JSON, payload), encode(BLOB, payload), payload]))
    for _ in range(draw(st.integers(0, 2))):
        stream[draw(st.integers(0, len(stream) - 1))] = draw(st.integers(0, 255))
    return bytes(stream)


async def _converse(control: bytes, call: bytes) -> None:
    with streams() as (host, (guest_control, guest_call, out, err)):
        out.close()
        err.close()
        guest_control.sendall(control)
        guest_call.sendall(call)
        guest_control.shutdown(socket.SHUT_WR)
        guest_call.shutdown(socket.SHUT_WR)
        link = GuestLink(host, Limits(), name="demo")
        end = time.monotonic() + PATIENCE_S
        for step in (
            lambda: link.describe(deadline=end),
            lambda: link.rehearse(deadline=end),
            lambda: link.run(GuestRequest("echo", {}), deadline=end, on_progress=lambda progress: None),
        ):
            with contextlib.suppress(SkillFailed):
                await step()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hostile_streams(), hostile_streams(), st.booleans())
def test_whatever_a_guest_sends_is_an_answer_or_one_of_silos_errors(control, call, has_booted):
    booted = encode_message(Booted("6.1.0", "3.11.7")) if has_booted else b""
    anyio.run(_converse, booted + control, call)


async def test_an_error_has_all_that_was_kept_of_the_output_and_no_half_character(ends):
    """Redaction must see it whole; what shows it cuts it afterwards."""
    host, (_, call, out, err) = ends
    printed = b"s3cr3t-Value " + b"x" * 20_000 + "ä".encode()[:1]
    out.sendall(printed)
    call.sendall(encode_message(Failed("skill-exception", "what happened")))
    out.close()
    err.close()
    with pytest.raises(FAILURES["skill-exception"][0]) as caught:
        await GuestLink(host, Limits(), name="demo").run(
            GuestRequest("echo", {}), deadline=time.monotonic() + PATIENCE_S, on_progress=lambda progress: None
        )
    assert caught.value.stdout == printed[:-1].decode()
