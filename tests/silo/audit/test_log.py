"""The audit log: it shows every change, survives and notes a crash, and nothing goes on without a record."""

import fcntl
import hashlib
import json
import multiprocessing
import os
import resource
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo.audit.log import MAX_RECORD_BYTES, NO_PREVIOUS, AuditLog, read, verify
from silo.errors import AuditBroken
from silo.testing import PATIENCE_S
from silo.testing.fakes import FakeClock

GOLDEN = Path(__file__).parent / "golden"
PATH_BOUND = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def make(folder, count=5):
    log = AuditLog(folder, now=FakeClock().now)
    for number in range(count):
        log.append("end", {"call": f"call-{number}", "outcome": "ok"})
    return log


def lines(folder):
    return (folder / "audit.jsonl").read_bytes().splitlines(keepends=True)


def test_the_format_is_that_of_the_golden_file(tmp_path):
    log = AuditLog(tmp_path, now=FakeClock().now)
    log.append(
        "call",
        {"call": "c1", "tool": "jwt.sign", "arguments": {"names": ["claims"], "sha256": "ab"}, "secrets": ["KEY"]},
    )
    log.append("end", {"call": "c1", "tool": "jwt.sign", "outcome": "ok", "duration_ms": 12})
    log.append("refused", {"call": "c2", "tool": "ä\n\u202e", "outcome": "tool-unknown", "duration_ms": 0})
    assert (tmp_path / "audit.jsonl").read_text() == (GOLDEN / "audit-v1.jsonl").read_text()
    assert verify(tmp_path).records == 3


def test_a_fresh_log_is_whole_and_private(tmp_path):
    assert verify(tmp_path).records == 0
    old = os.umask(0)
    try:
        make(tmp_path)
    finally:
        os.umask(old)
    found = verify(tmp_path)
    assert (found.records, found.recoveries) == (5, ())
    assert found.head == json.loads(lines(tmp_path)[-1])["hash"]
    assert json.loads(lines(tmp_path)[0])["prev"] == NO_PREVIOUS
    for name in ("audit.jsonl", "audit.head"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def broken(folder):
    try:
        verify(folder)
    except AuditBroken:
        return True
    return False


@PATH_BOUND
@given(position=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_any_changed_byte_is_found(tmp_path, position, byte):
    make(tmp_path) if not (tmp_path / "audit.jsonl").exists() else None
    good = (tmp_path / "audit.jsonl").read_bytes()
    position %= len(good)
    changed = good[:position] + bytes([byte]) + good[position + 1 :]
    (tmp_path / "audit.jsonl").write_bytes(changed)
    assert broken(tmp_path) == (changed != good)
    (tmp_path / "audit.jsonl").write_bytes(good)


@PATH_BOUND
@given(st.lists(st.integers(0, 4), max_size=7))
def test_any_dropped_repeated_or_moved_line_is_found(tmp_path, order):
    make(tmp_path) if not (tmp_path / "audit.jsonl").exists() else None
    good = lines(tmp_path)
    (tmp_path / "audit.jsonl").write_bytes(b"".join(good[number] for number in order))
    assert broken(tmp_path) == (order != [0, 1, 2, 3, 4])
    (tmp_path / "audit.jsonl").write_bytes(b"".join(good))


def test_a_line_that_was_rewritten_with_a_fresh_hash_is_found(tmp_path):
    make(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    AuditLog(other, now=FakeClock().now).append("end", {"call": "forged", "outcome": "ok"})
    (tmp_path / "audit.jsonl").write_bytes(b"".join([lines(other)[0], *lines(tmp_path)[1:]]))
    with pytest.raises(AuditBroken, match=r"line 2 .* does not follow"):
        verify(tmp_path)


@PATH_BOUND
@given(st.integers(1, 200))
def test_a_torn_last_line_is_cut_off_and_noted(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("torn")
    log = make(folder)
    data = (folder / "audit.jsonl").read_bytes()
    last = len(lines(folder)[-1])
    (folder / "audit.jsonl").write_bytes(data[: len(data) - min(cut, last - 1)])
    assert broken(folder)
    log.append("end", {"call": "next", "outcome": "ok"})
    found = verify(folder)
    assert found.records == 6
    assert [record.event for record in read(folder)][-2:] == ["recovered", "end"]
    (recovered,) = found.recoveries
    assert recovered.body["torn_bytes"] == last - min(cut, last - 1)
    assert recovered.body["lost_records"] == 1


def test_lines_that_vanished_from_the_end_are_noted_by_the_next_record(tmp_path):
    log = make(tmp_path)
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines(tmp_path)[:2]))
    with pytest.raises(AuditBroken, match="ends at record 2, and record 5 had been written"):
        verify(tmp_path)
    log.append("end", {"call": "next", "outcome": "ok"})
    assert [record.body["lost_records"] for record in verify(tmp_path).recoveries] == [3]


def test_a_log_that_was_deleted_is_noted_too(tmp_path):
    log = make(tmp_path)
    (tmp_path / "audit.jsonl").unlink()
    log.append("end", {"call": "next", "outcome": "ok"})
    assert [record.body["lost_records"] for record in verify(tmp_path).recoveries] == [5]


# --- after a crash ----------------------------------------------------------------------------------------------------


def recoveries(folder):
    return [record.body for record in verify(folder).recoveries]


TAILS = [
    b"nonsense\n",
    b"{}\n",
    b"\n",
    b"\0" * 4096,
    b"x" * 100_000,
    b"x" * 100_000 + b"\n",
    b"y\n" * 100_000,
    b"\0" * 300_000 + b"\n\0",
]


@pytest.mark.parametrize("tail", TAILS, ids=range(len(TAILS)))
@pytest.mark.parametrize("count", [0, 5])
def test_whatever_a_crash_left_is_set_aside_and_reported(tmp_path, tail, count):
    """A power cut may leave zeros, or pieces of several records. Past fault: a person had to move the file."""
    log = make(tmp_path, count)
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(tail)
    (tmp_path / "audit.jsonl").chmod(0o600)
    assert broken(tmp_path)
    log.append("end", {"call": "next"})
    (said,) = recoveries(tmp_path)
    assert (said["torn_bytes"], said["lost_records"]) == (len(tail), 0)
    assert said["torn_sha256"] == hashlib.sha256(tail).hexdigest()
    saved = tmp_path / said["saved_as"]
    assert saved.read_bytes() == tail
    assert saved.stat().st_mode & 0o777 == 0o600
    assert [record.event for record in read(tmp_path)][count:] == ["recovered", "end"]


@pytest.mark.parametrize("long", [False, True])
def test_a_writer_that_is_killed_at_any_byte_of_its_record_stops_nobody(tmp_path_factory, long):
    """Past fault: torn after a long record, the log was not continued, because the search began inside that record."""
    folder = tmp_path_factory.mktemp("killed")
    log = make(folder, 2)
    if long:
        log.append("end", {"call": "long", "facts": ["x" * 100] * 590})
        assert len(lines(folder)[-1]) > 60_000
    before = (folder / "audit.jsonl").read_bytes()
    head = (folder / "audit.head").read_bytes()
    log.append("end", {"call": "torn", "facts": ["y" * 100] * (400 if long else 2)})
    record = lines(folder)[-1]
    for left in range(0, len(record), 997 if long else 1):
        (folder / "audit.jsonl").write_bytes(before + record[:left])
        (folder / "audit.head").write_bytes(head)
        log.append("end", {"call": "next", "outcome": "ok"})
        found = [(one.event, one.body.get("torn_bytes", one.body.get("call"))) for one in read(folder)][-2:]
        assert found[-1] == ("end", "next")
        assert (("recovered", left) in found) == (left > 0)
        verify(folder)


def test_a_recovery_that_is_interrupted_is_reported_in_full_by_the_next(tmp_path):
    log = make(tmp_path)
    tail = b"z" * 5000
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(tail)
    size = (tmp_path / "audit.jsonl").stat().st_size
    log.append("end", {"call": "next"})
    # As if it was killed after the record of the repair, before the rest of the torn end was cut off.
    repair = lines(tmp_path)[5]
    start = size - len(tail)
    torn = (tmp_path / "audit.jsonl").read_bytes()[:start] + repair + tail[len(repair) :]
    (tmp_path / "audit.jsonl").write_bytes(torn)
    log.append("end", {"call": "last"})
    assert [said["torn_bytes"] for said in recoveries(tmp_path)] == [5000, 5000 - len(repair)]


def test_a_torn_end_that_can_not_be_copied_is_cut_off_all_the_same(tmp_path):
    log = make(tmp_path)
    tail = b"torn"
    (tmp_path / f"audit.jsonl.torn-{hashlib.sha256(tail).hexdigest()[:16]}").symlink_to(tmp_path / "elsewhere")
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(tail)
    log.append("end", {"call": "next"})
    assert [(said["torn_bytes"], said["saved_as"]) for said in recoveries(tmp_path)] == [(4, None)]
    assert not (tmp_path / "elsewhere").exists()


def test_writers_that_are_killed_leave_a_log_that_goes_on(tmp_path):
    def child():
        while True:
            make(tmp_path, 3)

    context = multiprocessing.get_context("fork")
    for _ in range(10):
        size = (tmp_path / "audit.jsonl").stat().st_size if (tmp_path / "audit.jsonl").exists() else 0
        process = context.Process(target=child)
        process.start()
        deadline = time.monotonic() + PATIENCE_S
        while not (tmp_path / "audit.jsonl").exists() or (tmp_path / "audit.jsonl").stat().st_size <= size:
            assert time.monotonic() < deadline
        process.kill()
        process.join(PATIENCE_S)
        AuditLog(tmp_path, now=FakeClock().now).append("end", {"call": "after"})
        assert [record.body["call"] for record in read(tmp_path)][-1] == "after"
        verify(tmp_path)


def test_a_torn_end_is_called_one_by_verify(tmp_path):
    log = make(tmp_path)
    data = (tmp_path / "audit.jsonl").read_bytes()
    (tmp_path / "audit.jsonl").write_bytes(data[:-10])
    with pytest.raises(AuditBroken, match=r"line 5 .* and the log ends there") as caught:
        verify(tmp_path)
    assert "the next record sets it aside" in caught.value.hint
    log.append("end", {"call": "next"})
    verify(tmp_path)


# --- long facts -------------------------------------------------------------------------------------------------------

ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300) | st.sampled_from([b"x", object()]),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=300) | st.integers(), inner, max_size=5)
    ),
    max_leaves=30,
)


@PATH_BOUND
@given(st.dictionaries(st.text(min_size=1, max_size=9).map("x".__add__), ODD, max_size=6), st.integers(1, 400))
def test_whatever_a_record_says_it_is_written_and_fits(tmp_path_factory, body, times):
    folder = tmp_path_factory.mktemp("odd")
    AuditLog(folder, now=FakeClock().now).append("end", {"call": "c", **body, "much": [body] * times})
    (line,) = lines(folder)
    assert len(line) <= MAX_RECORD_BYTES
    assert verify(folder).records == 1


@pytest.mark.parametrize(
    "names",
    [["\U0001f600" * 200] * 64, ["\ud800" * 200] * 64, ["x" * 1_000_000], [f"n{i}" for i in range(100_000)]],
    ids=["emoji", "surrogates", "long", "many"],
)
def test_what_is_cut_is_marked(tmp_path, names):
    """Past fault: a call with names of 200 emoji left no record, because it was too long."""
    AuditLog(tmp_path, now=FakeClock().now).append("end", {"call": "c", "outcome": "ok", "names": names, "n": 1})
    (record,) = read(tmp_path)
    assert (record.body["call"], record.body["outcome"], record.body["n"]) == ("c", "ok", 1)
    assert record.body["shortened"] is True
    assert "…" in record.body["names"][-1]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_log_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path, mode):
    log = make(tmp_path)
    (tmp_path / "audit.jsonl").chmod(mode)
    with pytest.raises(AuditBroken) as caught:
        log.append("end", {})
    assert "chmod 600" in caught.value.hint


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditBroken):
        AuditLog(tmp_path, now=FakeClock().now).append("end", {})
    assert (tmp_path / "elsewhere").read_text() == ""


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path):
    def child(results):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = (tmp_path / "audit.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))  # a part of a line still fits
        try:
            AuditLog(tmp_path, now=FakeClock().now).append("end", {"call": "next"})
        except AuditBroken as error:
            results.put(error.code)

    make(tmp_path)
    before = (tmp_path / "audit.jsonl").read_bytes()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=child, args=(results,))
    process.start()
    assert results.get(timeout=PATIENCE_S) == "audit-broken"
    process.join(10)
    assert (tmp_path / "audit.jsonl").read_bytes() == before
    assert verify(tmp_path).records == 5


def test_many_processes_write_one_chain(tmp_path):
    def child():
        make(tmp_path, 25)

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=child) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert verify(tmp_path).records == 100
    assert verify(tmp_path).recoveries == ()


def test_who_waits_for_the_lock_goes_on_when_its_holder_ends(tmp_path):
    log = make(tmp_path)
    held = os.open(tmp_path / "audit.jsonl", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    writer = threading.Thread(target=log.append, args=("end", {"call": "late"}))
    writer.start()
    os.close(held)
    writer.join(5)
    assert verify(tmp_path).records == 6


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5).map("x".__add__), st.text(max_size=20) | st.integers() | st.none(), max_size=4
    )
)
@PATH_BOUND
def test_a_record_is_one_line_of_ascii_whatever_it_says(tmp_path_factory, body):
    folder = tmp_path_factory.mktemp("log")
    record = AuditLog(folder, now=FakeClock().now).append("end", body)
    (line,) = lines(folder)
    assert line.isascii()
    assert all(byte >= 0x20 for byte in line[:-1])
    assert list(read(folder)) == [record]
