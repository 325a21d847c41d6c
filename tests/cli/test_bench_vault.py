"""`silo bench vault`: its report. Its figures are only meaningful on a quiet machine, so no test judges them."""

import statistics

import pytest

SMALL = ("bench", "vault", "--secrets", "30", "--runs", "3")


def test_the_document_has_every_sample_and_each_figure_beside_its_aim(bare_silo):
    found = bare_silo(*SMALL, "--json")
    assert found.status == 0
    document = found.json
    assert (document["benchmark"], document["runs"], document["secrets"]) == ("vault", 3, 30)
    assert document.keys() >= {"at", "machine", "silo", "size_bytes", "samples_s", "samples_kib", "median_s", "figures"}
    assert document["machine"].keys() >= {"cpu", "cores", "system", "python", "load", "cryptography", "openssl"}

    variants = {"open_and_read", "open_and_read_passphrase", "argon2id", "add", "fsync"}
    assert document["samples_s"].keys() == document["median_s"].keys() == variants
    for name, samples in document["samples_s"].items():
        assert len(samples) == 3
        assert statistics.median(samples) == document["median_s"][name] > 0
    assert all(len(samples) == 3 for samples in document["samples_kib"].values())

    figures = document["figures"]
    aims = {name: figure["aim"] for name, figure in figures.items()}
    assert aims == {
        "open_and_read_ms": 50,
        "add_beyond_fsync_ms": 30,
        "sealed_again": 0,
        "memory_mib": 50,
    }
    assert figures["sealed_again"]["measured"] == 0
    for figure in figures.values():
        assert figure["holds"] == (figure["measured"] <= figure["aim"])


def test_the_text_shows_what_was_measured_beside_the_aim_and_nothing_is_left_behind(bare_silo, tmp_path, monkeypatch):
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    found = bare_silo(*SMALL)
    assert found.status == 0
    assert found.out.startswith("30 secrets, ")
    assert "memory of a process that reads one" in found.out
    assert "50 MiB" in found.out
    assert "Argon2id at its default cost" in found.out
    assert list(place.iterdir()) == []
    assert not bare_silo.home.exists(), "it must not make or touch a vault of the user's"


@pytest.mark.parametrize("wrong", [("--secrets", "0"), ("--runs", "2"), ("--secrets", "many")])
def test_a_number_that_makes_no_sense_is_a_usage_error(bare_silo, wrong):
    assert bare_silo("bench", "vault", *wrong).status == 2
