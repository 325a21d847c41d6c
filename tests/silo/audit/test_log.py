"""The audit log: it shows every change, survives and notes a crash, and nothing goes on without a record."""

import fcntl
import json
import multiprocessing
import os
import resource
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from silo.audit.log import NO_PREVIOUS, AuditLog, read, verify
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


@pytest.mark.parametrize("tail", [b"nonsense\n", b"{}\n", b"\n", b"x" * 100_000, b"x" * 100_000 + b"\n"])
def test_a_log_whose_end_is_no_record_is_not_continued(tmp_path, tail):
    log = make(tmp_path)
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(tail)
    before = (tmp_path / "audit.jsonl").read_bytes()
    with pytest.raises(AuditBroken) as caught:
        log.append("end", {"call": "next"})
    assert "silo audit verify" in caught.value.hint
    assert (tmp_path / "audit.jsonl").read_bytes() == before


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
