"""The parts of the runner that need no guest. `silo.testing.conformance` has what real guests show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.guest.runner import Reports
from silo.sandbox.streams import Pace
from silo.wire.messages import Progress


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_million_reports_in_a_moment_become_a_hundred_and_the_last():
    sent = []
    reports = Reports(sent.append, Clock())
    for number in range(1_000_000):
        reports.add(number, None, None)
    assert [one.progress for one in sent] == list(range(100))
    reports.end()
    reports.end()
    assert [one.progress for one in sent] == [*range(100), 999_999]


def test_a_report_that_was_sent_is_not_sent_again_at_the_end():
    sent = []
    reports = Reports(sent.append, Clock())
    reports.add(1, 2, "one")
    reports.end()
    assert sent == [Progress(1, 2, "one")]


@given(st.lists(st.floats(0, 0.5), max_size=400))
def test_the_host_never_lets_a_runner_wait_that_leaves_reports_out(pauses):
    """What the runner sends is always within the pace of the host, so that an honest tool is never slowed down."""
    clock, delays = Clock(), []
    pace = Pace(burst=200, per_s=100, clock=clock)
    reports = Reports(lambda report: delays.append(pace.spend()), clock)
    for number, pause in enumerate(pauses):
        clock.now += pause
        for each in range(20):
            reports.add(20 * number + each, None, None)
    reports.end()
    assert not any(delays)


@pytest.mark.parametrize(("burst", "per_s"), [(1, 1), (10, 100), (200, 100)])
def test_a_pace_lets_a_burst_through_and_then_its_rate(burst, per_s):
    clock = Clock()
    pace = Pace(burst=burst, per_s=per_s, clock=clock)
    assert [pace.spend() for _ in range(burst)] == pytest.approx([0.0] * burst, abs=1e-9)
    for number in range(1, 50):
        assert pace.spend() == pytest.approx(number / per_s)
    clock.now += 49 / per_s + burst / per_s
    assert [pace.spend() for _ in range(burst)] == pytest.approx([0.0] * burst, abs=1e-9)
