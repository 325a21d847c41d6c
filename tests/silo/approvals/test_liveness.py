"""Which processes ask: a process that holds a lock lives, and a check of a lock is never mistaken for one."""

import fcntl

import pytest

from silo.approvals.liveness import LivenessLock, is_alive, page_addresses, remove_stale


def test_who_holds_the_lock_lives_until_it_is_released(tmp_path):
    asking = LivenessLock(tmp_path)
    assert is_alive(tmp_path, asking.name)
    remove_stale(tmp_path)
    assert is_alive(tmp_path, asking.name)
    asking.release()
    assert not is_alive(tmp_path, asking.name)
    assert list((tmp_path / "run").iterdir()) == []


def test_who_looks_is_not_taken_for_the_one_who_asks(tmp_path):
    """Two processes check at once after a third was killed: neither may think that it lives."""
    (tmp_path / "run").mkdir()
    name = "0" * 16
    with (tmp_path / "run" / f"asking-{name}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not is_alive(tmp_path, name)


def test_lock_files_of_the_dead_are_swept_away_and_nothing_else(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    asking = LivenessLock(tmp_path)
    for name in ("asking-0000000000000000", "asking-else", "probes.json"):
        (run / name).touch()
    (run / "asking-1111111111111111").symlink_to(run / "probes.json")
    remove_stale(tmp_path)
    assert {path.name for path in run.iterdir()} >= {"probes.json", f"asking-{asking.name}"}
    assert not (run / "asking-0000000000000000").exists()
    asking.release()


def test_a_name_that_is_none_belongs_to_nobody(tmp_path):
    for name in ("", "..", "../run", "0" * 15, "\ud800"):
        assert not is_alive(tmp_path, name)


def test_where_pages_are_served_is_known_as_long_as_their_process_lives(tmp_path):
    one, two = LivenessLock(tmp_path), LivenessLock(tmp_path)
    assert page_addresses(tmp_path) == ()
    one.publish("http://127.0.0.1:40001")
    two.publish("http://127.0.0.1:40002")
    assert page_addresses(tmp_path) == ("http://127.0.0.1:40001", "http://127.0.0.1:40002")
    one.publish("http://127.0.0.1:1")
    two.release()
    assert page_addresses(tmp_path) == ("http://127.0.0.1:1",)
    one.release()
    assert page_addresses(tmp_path) == ()


@pytest.mark.parametrize(
    "text", ["http://evil.example", "http://127.0.0.1:80/q", "http://127.0.0.1:40001\x1b[2J", "\udcff", ""]
)
def test_what_is_no_address_of_a_page_is_not_shown_to_anybody(tmp_path, text):
    asking = LivenessLock(tmp_path)
    (path,) = (tmp_path / "run").iterdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert page_addresses(tmp_path) == ()
    asking.release()
