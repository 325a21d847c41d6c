"""The store of decisions with many processes, `kill -9` at system calls, and a full disk: nothing is used twice."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from silo_interaction import Answer, Question

from silo.approvals.store import Decisions
from silo.errors import StateUnusable

WORKER = [sys.executable, str(Path(__file__).with_name("store_worker.py"))]
PATIENCE_S = 300.0
PROCESSES, ROUNDS = 8, 40


def put_up(store, key):
    posted, _, _ = store.post(key, Question(key, "test"), subject="s", principal="p", stands_s=600, profile={})
    return posted


def agree(store, key):
    posted = put_up(store, key)
    assert store.decide(posted.id, posted.digest, Answer(True, "yes"), by="test") == "decided"
    return posted


def use_into(found, store, key):
    found.append(store.use(key))


def worker(folder, *arguments, through=()):
    return subprocess.run(
        [*through, *WORKER, str(folder), *arguments],
        stdout=subprocess.PIPE,
        check=False,
        timeout=PATIENCE_S,
        text=True,
    )


@contextmanager
def running(folder, *arguments) -> Iterator[subprocess.Popen[str]]:
    """A worker that has said its first line, which is in `first`."""
    process = subprocess.Popen(
        [*WORKER, str(folder), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)


def strace(folder, calls, *options):
    """A command that runs another and writes some of its system calls on the store's files to a file."""
    paths = [f"--trace-path={folder / name}" for name in ("state.db", "state.db-journal", "")]
    return (
        "strace",
        "--quiet=all",
        "--decode-fds=path",
        *paths,
        f"--trace={calls}",
        *options,
        f"--output={folder}.log",
    )


# --- one yes, many processes ------------------------------------------------------------------------------------------


def test_of_eight_processes_at_once_exactly_one_uses_a_yes(tmp_path):
    store = Decisions(tmp_path)
    processes = [
        subprocess.Popen([*WORKER, str(tmp_path), "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * PROCESSES
        winners = Counter()
        for number in range(ROUNDS):
            agree(store, f"key-{number}")
            for process in processes:
                process.stdin.write(f"key-{number}\n")
                process.stdin.flush()
            answers = [process.stdout.readline() for process in processes]
            assert sorted(answers) == ["none\n"] * (PROCESSES - 1) + ["used\n"]
            winners[answers.index("used\n")] += 1
            assert store.use(f"key-{number}") is None
        assert len(winners) > 1, "there was no race"
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=PATIENCE_S)
        store.close()


def test_of_many_threads_of_two_stores_exactly_one_uses_a_yes(tmp_path):
    stores = [Decisions(tmp_path), Decisions(tmp_path)]
    for number in range(20):
        agree(stores[0], f"key-{number}")
        found = []
        threads = [Thread(target=use_into, args=(found, store, f"key-{number}")) for store in stores * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(found) == 8
        assert len([posted for posted in found if posted is not None]) == 1
    for store in stores:
        store.close()


def test_a_yes_is_worth_one_call_for_each_time_that_it_was_given(tmp_path):
    """Two processes ask the same, a person says yes to both: two calls, and not a third."""
    stores = [Decisions(tmp_path), Decisions(tmp_path)]
    for store in stores:
        agree(store, "a")
    assert [stores[0].use("a") is not None for _ in range(3)] == [True, True, False]
    for store in stores:
        store.close()


def test_first_use_by_many_processes_at_once_makes_one_store(tmp_path):
    processes = [
        subprocess.Popen([*WORKER, str(tmp_path), "post", f"key-{number}"], stdout=subprocess.PIPE, text=True)
        for number in range(PROCESSES)
    ]
    ids = {process.communicate(timeout=PATIENCE_S)[0].split()[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * PROCESSES
    store = Decisions(tmp_path)
    assert {entry.posted.id for entry in store.all(standing=False)} == ids
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "state.db"]
    store.close()


# --- a process that is gone -------------------------------------------------------------------------------------------


def test_a_question_of_a_process_that_was_killed_can_never_be_approved(tmp_path):
    store = Decisions(tmp_path)
    with running(tmp_path, "ask", "a") as asker:
        question_id, digest = asker.stdout.readline().split()
        assert [posted.id for posted in store.waiting()] == [question_id]
        before = store.version()
        assert store.version() == before
        asker.send_signal(signal.SIGKILL)
        asker.wait(PATIENCE_S)
        assert store.version() != before
    assert store.decide(question_id, digest, Answer(True, "yes"), by="test") == "gone"
    assert store.waiting() == []
    assert (store.get(question_id).state, store.get(question_id).reason) == ("withdrawn", "silo ended while it asked")
    assert store.use("a") is None
    put_up(store, "b")
    assert len(list((tmp_path / "run").iterdir())) == 1, "the lock file of the dead was not swept away"
    store.close()


def test_a_yes_outlives_the_process_that_asked(tmp_path):
    store = Decisions(tmp_path)
    with running(tmp_path, "ask", "a") as asker:
        question_id, digest = asker.stdout.readline().split()
        assert store.decide(question_id, digest, Answer(True, "yes"), by="test") == "decided"
    assert store.use("a").id == question_id
    assert store.use("a") is None
    store.close()


FLUSH = "/^(fsync|fdatasync)$"  # which of them depends on how SQLite was built

KILLS = {
    # A change is at least ten writes and five flushes. It takes effect when the journal is deleted at the end.
    "pwrite64": (1, 4, 8, 9, 10),
    FLUSH: (1, 2, 3, 4, 5),
    "unlink": (1,),
    "openat": (2,),
}
POINTS = [(call, nth) for call, numbers in KILLS.items() for nth in numbers]


def test_a_process_killed_while_it_uses_a_yes_has_used_it_or_not(tmp_path):
    store = Decisions(tmp_path)
    kills, lost = 0, 0
    for call, nth in POINTS:
        key = f"{call}-{nth}"
        agree(store, key)
        done = worker(tmp_path, "use", key, through=strace(tmp_path, call, f"--inject={call}:signal=KILL:when={nth}"))
        kills += done.returncode != 0
        again = worker(tmp_path, "use", key).stdout
        assert [done.stdout, again].count("used\n") <= 1
        lost += "used\n" not in (done.stdout, again)
        assert store.use(key) is None
    assert kills > 8
    assert 1 <= lost < kills, "killed before it says so and behind the change, a yes is lost; elsewhere it is not"
    store.close()


def test_a_process_killed_while_it_decides_has_decided_or_not(tmp_path):
    store = Decisions(tmp_path)
    kills, done_before = 0, 0
    for call, nth in POINTS:
        posted = put_up(store, f"{call}-{nth}")
        through = strace(tmp_path, call, f"--inject={call}:signal=KILL:when={nth}")
        done = worker(tmp_path, "decide", posted.id, posted.digest, through=through)
        kills += done.returncode != 0
        state = store.get(posted.id).state
        outcome = store.decide(posted.id, posted.digest, Answer(False, "no"), by="test")
        assert (state, outcome) in (("waiting", "decided"), ("approved", "gone"))
        if done.stdout:
            assert state == "approved"
        done_before += state == "approved"
        assert (store.use(f"{call}-{nth}") is not None) == (state == "approved")
    assert kills > 8
    assert 1 <= done_before < len(POINTS)
    store.close()


@pytest.mark.parametrize("is_first", [True, False])
def test_a_process_killed_while_it_asks_leaves_nothing_that_could_be_approved(tmp_path, is_first):
    kills = 0
    for number, (call, nth) in enumerate([*POINTS[::2], ("/^link", 1)]):
        home = tmp_path / f"home-{number}" if is_first else tmp_path / "home"
        home.mkdir(exist_ok=True)
        store = Decisions(home)
        if not is_first:
            put_up(store, "other")
        done = worker(home, "post", "a", through=strace(home, call, f"--inject={call}:signal=KILL:when={nth}"))
        kills += done.returncode != 0
        for entry in store.all():
            if entry.key == "a":
                pytest.fail(f"it waits: {entry}")
        assert store.use("a") is None
        agree(store, "a")
        assert store.use("a") is not None
        store.close()
    assert kills > 4


# --- a disk that refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calls", "error", "numbers"),
    [
        ("pwrite64", "ENOSPC", (1, 6, 10)),
        (FLUSH, "EIO", (1, 3, 4)),
        ("openat", "EROFS", (1, 2)),
        ("fcntl", "EIO", (6,)),
    ],
)
def test_a_disk_that_refuses_makes_a_use_fail_and_not_happen(tmp_path, calls, error, numbers):
    store = Decisions(tmp_path)
    for nth in numbers:
        key = f"{calls}-{nth}"
        agree(store, key)
        through = strace(tmp_path, calls, f"--inject={calls}:error={error}:when={nth}+")
        done = worker(tmp_path, "use", key, through=through)
        assert (done.returncode, done.stdout) == (7, "state-unusable\n")
        assert store.use(key) is not None, "it was not used, and still stands"
        assert store.use(key) is None
    store.close()


def test_a_full_disk_approves_nothing(tmp_path):
    store = Decisions(tmp_path)
    posted = put_up(store, "a")
    through = strace(tmp_path, "pwrite64", "--inject=pwrite64:error=ENOSPC:when=1+")
    assert worker(tmp_path, "decide", posted.id, posted.digest, through=through).returncode == 7
    assert store.get(posted.id).state == "waiting"
    assert store.use("a") is None
    store.close()


def test_a_used_up_yes_does_not_come_back_after_a_power_cut(tmp_path):
    """The journal that could undo the change is deleted, and the folder flushed, before `use` returns."""
    store = Decisions(tmp_path)
    agree(store, "a")
    done = worker(tmp_path, "use", "a", through=strace(tmp_path, f"unlink,{FLUSH}"))
    assert done.stdout == "used\n"
    calls = Path(f"{tmp_path}.log").read_text().splitlines()
    deleted = next(number for number, line in enumerate(calls) if line.startswith("unlink("))
    home = re.escape(str(tmp_path))
    assert any(re.match(rf"f(data)?sync\(\d+<{home}>\)", line) for line in calls[deleted + 1 :])
    store.close()


def test_a_folder_that_can_not_be_written_is_an_error_with_a_hint():
    store = Decisions(Path("/proc"))
    assert store.use("a") is None
    with pytest.raises(StateUnusable) as caught:
        put_up(store, "a")
    assert "df /proc" in caught.value.hint
    store.close()
