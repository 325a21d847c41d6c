"""Which processes ask: whoever holds a lock lives, and no look at a lock can be mistaken for one."""

import fcntl

from silo.pipeline.asking import Asking, is_asking, sweep


def test_who_holds_the_lock_lives_until_it_is_released(tmp_path):
    asking = Asking(tmp_path)
    assert is_asking(tmp_path, asking.name)
    sweep(tmp_path)
    assert is_asking(tmp_path, asking.name)
    asking.release()
    assert not is_asking(tmp_path, asking.name)
    assert list((tmp_path / "run").iterdir()) == []


def test_who_looks_is_not_taken_for_the_one_who_asks(tmp_path):
    """Two processes look at once after the third was killed: neither may think that it lives."""
    (tmp_path / "run").mkdir()
    name = "0" * 16
    with (tmp_path / "run" / f"asking-{name}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not is_asking(tmp_path, name)


def test_lock_files_of_the_dead_are_swept_away_and_nothing_else(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    asking = Asking(tmp_path)
    for name in ("asking-0000000000000000", "asking-else", "probes.json"):
        (run / name).touch()
    (run / "asking-1111111111111111").symlink_to(run / "probes.json")
    sweep(tmp_path)
    assert {path.name for path in run.iterdir()} >= {"probes.json", f"asking-{asking.name}"}
    assert not (run / "asking-0000000000000000").exists()
    asking.release()


def test_a_name_that_is_none_belongs_to_nobody(tmp_path):
    for name in ("", "..", "../run", "0" * 15, "\ud800"):
        assert not is_asking(tmp_path, name)
