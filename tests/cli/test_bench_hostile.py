"""`silo bench hostile`: its report. Its figures are only meaningful on a quiet machine, so no test judges them."""

import os

import pytest

from silo.cli.benchmarks.hostile import STALLS, HostileBenchmark, table


def test_the_report_has_every_sample_and_blames_the_guests_for_every_call(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    document = HostileBenchmark(os.environ, seconds=4, on_step=lambda step: None).run()
    assert (document["benchmark"], document["guests"], document["seconds"]) == ("hostile", 8, 4)
    for when in ("without", "beside"):
        for what in ("ping_ms", "ping_ready_ms", "page_ms"):
            found = document[when][what]
            assert found["count"] == len(found["samples"]) > 0
            assert found["p50"] <= found["p99"] <= found["max"] == max(found["samples"])
    assert set(document["outcomes"]) == set(STALLS)
    codes = {code for outcome in document["outcomes"].values() for code in outcome}
    assert codes <= {"ok", "result-invalid", "result-too-large", "timeout", "output-flood"}
    lines = table(document).splitlines()
    assert lines[-1] == "aim: p99 below 50 ms beside them"
    assert len({len(line) for line in lines[:-1]}) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", ["0", "many"])
def test_a_number_that_makes_no_sense_is_a_usage_error(bare_silo, wrong):
    assert bare_silo("bench", "hostile", "--seconds", wrong).status == 2
