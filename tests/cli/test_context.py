"""How the work of a command ends on signals, in this process. `test_process` tests whole commands."""

import signal
import threading

import anyio
import pytest
from anyio.lowlevel import checkpoint

from silo.cli.context import EndedBySignal, run_until_signal
from silo.errors import Interrupted

PATIENCE_S = 300.0


def send(number):
    """Send the signal to this thread, so that it has arrived when this returns."""
    signal.pthread_kill(threading.get_ident(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_work_and_gives_its_number(number):
    async def work():
        with anyio.fail_after(PATIENCE_S):
            send(number)
            await anyio.sleep_forever()

    with pytest.raises(EndedBySignal) as caught:
        run_until_signal(work)
    assert caught.value.exit_status == 128 + number
    assert signal.getsignal(number) is signal.SIG_DFL


def test_ctrl_c_cancels_the_work_and_is_an_interruption():
    async def work():
        with anyio.fail_after(PATIENCE_S):
            send(signal.SIGINT)
            await anyio.sleep_forever()

    with pytest.raises(Interrupted):
        run_until_signal(work)


def test_a_second_signal_does_not_cut_the_clean_up_short():
    """The end of a session sends SIGHUP and SIGTERM; a shutdown sends SIGTERM to processes that already got SIGHUP."""
    cleaned_up = []

    async def work():
        try:
            with anyio.fail_after(PATIENCE_S):
                send(signal.SIGTERM)
                await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                for number in (signal.SIGHUP, signal.SIGTERM):
                    send(number)
                    for _ in range(5):  # turns of the event loop, in which it notices
                        await checkpoint()
                cleaned_up.append(True)

    with pytest.raises(EndedBySignal) as caught:
        run_until_signal(work)
    assert caught.value.exit_status == 128 + signal.SIGTERM
    assert cleaned_up
