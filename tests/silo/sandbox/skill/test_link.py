"""The host's end of the conversation with a guest, in cases that need no guest.

`tests/silo/sandbox/backends` shows what real guests do.
"""

import json
import socket
import time
from contextlib import contextmanager

import pytest

from silo.errors import ResultInvalid
from silo.sandbox.base import Limits
from silo.sandbox.skill.base import GuestRequest
from silo.sandbox.skill.failures import FAILURES
from silo.sandbox.skill.link import GuestLink
from silo.testing.hostile import wrong_messages
from silo.wire.frames import HEADER_BYTES, JSON, encode
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
