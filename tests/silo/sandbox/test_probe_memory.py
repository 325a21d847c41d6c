"""Results of probes are remembered until the machine reboots, and an invalid file counts as absent."""

import json

import pytest

from silo.sandbox.probe_memory import ProbeMemory


def test_an_answer_is_remembered(tmp_path):
    path = tmp_path / "run" / "probes.json"
    ProbeMemory(path).put("a", "1")
    ProbeMemory(path).put("b", "2")
    assert (ProbeMemory(path).get("a"), ProbeMemory(path).get("b"), ProbeMemory(path).get("c")) == ("1", "2", None)
    assert [each.name for each in path.parent.iterdir()] == ["probes.json"]


def test_an_answer_of_another_boot_is_forgotten(tmp_path):
    path = tmp_path / "probes.json"
    ProbeMemory(path).put("a", "1")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "another"}))
    assert ProbeMemory(path).get("a") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"a": 1}', "\x00\xff"])
def test_a_file_that_makes_no_sense_is_as_good_as_none(tmp_path, text):
    path = tmp_path / "probes.json"
    path.write_text(text)
    assert ProbeMemory(path).get("a") is None
    ProbeMemory(path).put("a", "1")
    assert ProbeMemory(path).get("a") == "1"


def test_not_being_able_to_remember_is_no_failure(tmp_path):
    (tmp_path / "file").write_text("")
    ProbeMemory(tmp_path / "file" / "probes.json").put("a", "1")
    assert ProbeMemory(tmp_path / "file" / "probes.json").get("a") is None
