from __future__ import annotations

import json
import math

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.model import ProgressReport
from silo.server.protocol.progress import MAX_WAITING, ProgressRelay, grown, relayed
from silo.testing import PATIENCE_S

numbers = st.floats() | st.integers(-(10**6), 10**6)
reports = st.builds(ProgressReport, numbers, st.none() | numbers, st.none() | st.text(alphabet=st.characters()))


@given(st.lists(reports, max_size=30))
def test_progress_strictly_grows_and_is_json(sequence):
    last = -math.inf
    for report in sequence:
        sent = grown(report, last)
        if sent is not None:
            assert sent.progress > last
            assert sent.total is None or sent.total >= sent.progress
            json.dumps([sent.progress, sent.total], allow_nan=False)
            (sent.message or "").encode()
            last = sent.progress


def test_report_that_is_too_low_keeps_its_message():
    sent = grown(ProgressReport(0, 1, "booting"), 5)
    assert sent.message == "booting"
    assert sent.progress > 5


def test_report_without_message_or_growth_is_dropped():
    assert grown(ProgressReport(5), 5) is None


@pytest.mark.anyio
async def test_everything_waiting_is_sent_before_the_result():
    sent = []

    async def send(progress, total, message):
        await anyio.lowlevel.checkpoint()
        sent.append(message)

    relay = ProgressRelay(send)
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relay.forward)
            for number in range(3):
                relay.add(ProgressReport(number, 3, str(number)))
            relay.finish()
    assert sent == ["0", "1", "2"]


@pytest.mark.anyio
async def test_flood_of_reports_keeps_the_latest_and_stays_bounded():
    sent = []

    async def send(progress, total, message):
        sent.append(progress)

    relay = ProgressRelay(send)
    for number in range(10_000):
        relay.add(ProgressReport(number))
    relay.finish()
    with anyio.fail_after(PATIENCE_S):
        await relay.forward()
    assert len(sent) == MAX_WAITING
    assert sent[-1] == 9999


@pytest.mark.anyio
async def test_work_in_two_steps_is_one_growing_progress_and_its_error_comes_out_as_it_is():
    sent = []

    async def send(progress, total, message):
        sent.append(progress)

    async def work(on_progress):
        for _ in range(2):
            on_progress(ProgressReport(0, None, "asking"))
            on_progress(ProgressReport(1, None, "waiting"))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await relayed(send, work)
    assert len(sent) == 4
    assert sent == sorted(set(sent))
