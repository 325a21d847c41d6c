"""`learned.json` is private, bounded and shared by processes, and never makes a call fail."""

import json
import logging
import multiprocessing
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.discovery.feedback import Lesson
from silo.discovery.learned import MAX_FILE_BYTES, MAX_PRINCIPALS, MAX_TOOLS, Learned, LearnedFile
from silo.router.learning import MAX_AGE_S, LessonsDamaged

WHO = "mcp:client"
DAY = 24 * 3600.0


class Days:
    def __init__(self):
        self.now = 1_000_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def days():
    return Days()


@pytest.fixture
def file(tmp_path, days):
    return LearnedFile(tmp_path, now=days)


def test_what_was_learned_is_there_after_a_restart_for_whoever_it_was_and_nobody_else(file, tmp_path, days):
    file.learn([Lesson(WHO, "sign a token", "jwt.sign")])
    file.count(WHO, "jwt.sign")
    file.count(WHO, "jwt.sign")
    again = LearnedFile(tmp_path, now=days)
    assert again.examples(WHO) == {"jwt.sign": ("sign a token",)}
    assert again.usage(WHO) == {"jwt.sign": 2}
    assert (again.examples("mcp:other"), again.usage("mcp:other")) == ({}, {})


def test_only_the_owner_can_read_it_and_nothing_else_is_left(file, tmp_path):
    previous = os.umask(0)
    try:
        file.count(WHO, "jwt.sign")
    finally:
        os.umask(previous)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"learned.json", "run"}


def test_what_another_process_has_learned_is_seen(file, tmp_path, days):
    assert file.usage(WHO) == {}
    LearnedFile(tmp_path, now=days).count(WHO, "jwt.sign")
    assert file.usage(WHO) == {"jwt.sign": 1}


def count_many(home, times):
    for _ in range(times):
        LearnedFile(home).count(WHO, "jwt.sign")


def test_processes_that_count_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=count_many, args=(tmp_path, 25)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert LearnedFile(tmp_path).usage(WHO) == {"jwt.sign": 100}


def test_what_is_old_is_forgotten(file, days):
    file.learn([Lesson(WHO, "sign a token", "jwt.sign")])
    file.count(WHO, "jwt.sign")
    days.now += MAX_AGE_S + DAY
    assert (file.examples(WHO), file.usage(WHO)) == ({}, {})
    file.count("mcp:other", "jwt.sign")
    assert WHO not in file.path.read_text()


def test_tools_that_were_removed_are_forgotten(file):
    file.learn([Lesson(WHO, "sign a token", "jwt.sign")])
    file.count(WHO, "jwt.sign")
    file.count(WHO, "table.query")
    file.forget_tools(["jwt.sign"])
    assert file.examples(WHO) == {}
    assert file.usage(WHO) == {"table.query": 1}


def test_clearing_says_whether_there_was_something(file):
    assert not file.clear()
    file.count(WHO, "jwt.sign")
    assert file.clear()
    assert file.usage(WHO) == {}


def test_principals_and_tools_without_end_push_out_the_oldest(file):
    known = Learned()
    for n in range(MAX_PRINCIPALS + 5):
        known = known.taught(Lesson(f"mcp:{n}", "sign a token", "jwt.sign"), float(n)).counted(
            f"mcp:{n}", "a.b", float(n)
        )
    assert list(known.calls) == [f"mcp:{n}" for n in range(5, MAX_PRINCIPALS + 5)]
    assert known.lessons.examples("mcp:0", now=0) == {}
    for n in range(MAX_TOOLS + 5):
        known = known.counted(WHO, f"a.t{n}", 0.0)
    assert len(known.calls[WHO]) == MAX_TOOLS


def test_file_never_grows_beyond_its_bound():
    known = Learned()
    for who in range(4):
        for tool in range(2000):
            known = known.counted(f"mcp:{who}", f"skill_{tool}." + "x" * 500, 0.0)
    data = known.encode()
    assert len(data) <= MAX_FILE_BYTES
    assert list(Learned.decode(data).calls) == [f"mcp:{who}" for who in range(1, 4)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"version": 99}',
        b'{"version": 1, "lessons": {}, "calls": {}}',
        b'{"version": 1, "lessons": {"version": 1, "lessons": {}}, "calls": {"a": {"b": ["x", 1]}}}',
        b'{"version": 1, "lessons": {"version": 1, "lessons": {}}, "calls": {"a": {"b": [1e999, 1]}}}',
        b"[" * 100_000,
        b" " * (MAX_FILE_BYTES + 1),
    ],
)
def test_damaged_file_is_said_and_replaced_and_no_call_fails(file, caplog, content):
    file.path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert file.examples(WHO) == {}
    assert "damaged" in caplog.text
    file.count(WHO, "jwt.sign")
    assert file.usage(WHO) == {"jwt.sign": 1}


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_is_no_file_is_not_opened_and_no_call_fails(file, tmp_path, caplog, kind):
    if kind == "folder":
        file.path.mkdir()
    elif kind == "link":
        (tmp_path / "elsewhere").write_text("{}")
        file.path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(file.path)
    with caplog.at_level(logging.WARNING):
        assert file.usage(WHO) == {}
        file.count(WHO, "jwt.sign")
    assert caplog.text
    if kind == "link":
        assert (tmp_path / "elsewhere").read_text() == "{}"


names = st.text(max_size=8)


@given(st.lists(st.tuples(names, names, st.integers(0, 10**9)), max_size=8))
def test_decoding_what_was_encoded_gives_it_back(events):
    known = Learned()
    for who, tool, at in events:
        known = known.counted(who, tool, float(at)).taught(Lesson(who, "sign a token", tool), float(at))
    assert Learned.decode(known.encode()) == known


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_any_other_content_is_refused(data):
    with pytest.raises(LessonsDamaged):
        Learned.decode(data)
