"""The host's end of the conversation with a guest, in cases that need no guest.

`tests/silo/sandbox/backends` shows what real guests do.
"""

import socket
import time

import pytest

from silo.sandbox.base import Limits
from silo.sandbox.skill.base import GuestRequest
from silo.sandbox.skill.failures import FAILURES
from silo.sandbox.skill.link import GuestLink
from silo.wire.messages import Failed, Progress, encode_message

pytestmark = pytest.mark.anyio

PATIENCE_S = 300.0


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def ends():
    """The host's ends of a guest's four streams, and the guest's."""
    pairs = [socket.socketpair() for _ in range(4)]
    names = ("control", "call", "out", "err")
    yield {name: host.fileno() for name, (host, _) in zip(names, pairs, strict=True)}, [guest for _, guest in pairs]
    for pair in pairs:
        for end in pair:
            end.close()


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
