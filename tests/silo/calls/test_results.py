"""A result without secrets stays within the limits that it was checked against."""

import json

import pytest

from silo.calls.results import to_result
from silo.model import File, Isolation
from silo.sandbox.base import Limits
from silo.sandbox.skill.base import Captured, GuestReply
from silo.secrets.redaction import Redactor
from silo.wire.messages import Finished

LIMITS = Limits(log_bytes=30_000, result_bytes=40_000, files_bytes=50_000)
REDACTOR = Redactor({"A_PIN_WITH_A_LONG_NAME": "1234"})


@pytest.mark.parametrize("spare", [0, 5, 3000])
def test_a_short_value_that_stands_everywhere_makes_no_result_larger_than_its_limits(spare):
    def full(size):
        return ("1234 " * size)[: size - spare]

    data = ["1234"] * ((LIMITS.result_bytes - spare) // 7)
    assert len(json.dumps(data, separators=(",", ":"))) <= LIMITS.result_bytes - spare
    reply = GuestReply(
        Finished(full(LIMITS.result_bytes), data, has_data=True),
        files=tuple(File(full(LIMITS.files_bytes // 2).encode(), "text/plain", f"{number}.txt") for number in range(2)),
        stdout=Captured(full(LIMITS.log_bytes).encode(), LIMITS.log_bytes - spare),
    )
    result = to_result(reply, REDACTOR, limits=LIMITS, isolation=Isolation.MICROVM, timing={})
    assert len(result.text) <= LIMITS.result_bytes
    assert len(json.dumps(result.data, separators=(",", ":"))) <= LIMITS.result_bytes
    assert sum(file.size for file in result.files) <= LIMITS.files_bytes
    assert len(result.logs.stdout) <= LIMITS.log_bytes
    assert "1234" not in repr(result)
    assert ("A_PIN_WITH_A_LONG_NAME" in result.text) == (spare > 100)
