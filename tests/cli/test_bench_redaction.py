"""`silo bench redaction`: its report. Its figures are only meaningful on a quiet machine, so no test judges them."""

import pytest

SMALL = ("bench", "redaction", "--size-mib", "1", "--runs", "3")


def test_the_document_has_every_sample_and_each_figure_beside_its_aim(bare_silo):
    found = bare_silo(*SMALL, "--json")
    assert found.status == 0
    document = found.json
    assert (document["benchmark"], document["runs"], document["size_bytes"]) == ("redaction", 3, 1024 * 1024)
    assert document["machine"].keys() >= {"cpu", "cores", "system", "python", "load", "numpy"}
    figures = document["figures"]
    assert figures.keys() >= {"typical", "typical_many", "typical_key", "only", "near", "near_many", "only_pin"}
    for samples in (document["samples_s"], document["samples_cpu_s"]):
        assert samples.keys() == figures.keys()
        assert all(len(times) == 3 and min(times) > 0 for times in samples.values())
    for name, figure in figures.items():
        assert figure["aim"] == 50
        assert figure["holds"] == (figure["mb_per_s"] >= 50) or 49.9 < figure["mb_per_s"] < 50.1
        assert document["result_bytes"][name] <= document["size_bytes"] + 4096
    for name in ("typical", "typical_many", "typical_key", "typical_lines", "random_many", "near", "near_many"):
        assert document["result_bytes"][name] == document["size_bytes"], "there is nothing to remove"
    for name in ("only", "only_percent", "only_pin"):
        assert document["result_bytes"][name] < 100, "markers that touch are one"


def test_the_text_shows_what_was_measured_beside_the_aim(bare_silo):
    found = bare_silo(*SMALL)
    assert found.status == 0
    assert found.out.startswith("1 MiB of each text, median of 3")
    assert "typical text, 50 secrets" in found.out
    assert not bare_silo.home.exists(), "it must not make or touch a vault of the user's"


@pytest.mark.parametrize("wrong", [("--size-mib", "0"), ("--runs", "2"), ("--size-mib", "much")])
def test_a_number_that_makes_no_sense_is_a_usage_error(bare_silo, wrong):
    assert bare_silo("bench", "redaction", *wrong).status == 2
