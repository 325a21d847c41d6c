"""Several processes build in one folder: each thing is built once, and leftovers of killed processes are deleted."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import anyio
import pytest

from silo.sandbox.build_cache import BuildCache

PATIENCE_S = 300.0
KILLED = """
import os, signal, sys
from pathlib import Path
from silo.sandbox.build_cache import BuildCache

cache = BuildCache(Path(sys.argv[1]))
with cache.locked(sys.argv[2]):
    (cache.building(sys.argv[2]) / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def cache(tmp_path):
    return BuildCache(tmp_path / "cache")


def build(cache, name):
    with cache.locked(name):
        cache.building(name).rename(cache.folder / name)


def kept(cache):
    return sorted(path.name for path in cache.folder.iterdir())


def test_a_folder_that_is_not_there_holds_nothing_and_is_not_made(cache):
    assert cache.names() == []
    cache.sweep()
    assert not cache.folder.exists()


def test_what_is_discarded_leaves_nothing_and_is_gone_only_once(cache):
    build(cache, "one")
    build(cache, "other")
    assert cache.discard("one")
    assert not cache.discard("one")
    cache.sweep()
    assert kept(cache) == [".lock-other", "other"]


def test_a_file_where_a_folder_belongs_is_discarded_too(cache):
    build(cache, "one")
    (cache.folder / "junk").write_text("x")
    assert cache.discard("junk")
    assert cache.names() == ["one"]


@pytest.mark.parametrize("was_there", [False, True])
def test_what_a_killed_builder_left_is_swept(cache, was_there):
    if was_there:
        build(cache, "one")
    whole = kept(cache) if was_there else []

    async def kill():
        command = [sys.executable, "-c", KILLED, str(cache.folder), "one"]
        with anyio.fail_after(PATIENCE_S):
            return await anyio.run_process(command, check=False)

    done = anyio.run(kill)
    assert done.returncode == -9, done.stderr
    (cache.folder / ".gone-other-0123").mkdir()
    assert len(kept(cache)) == len({*whole, ".lock-one"}) + 2
    cache.sweep()
    assert kept(cache) == whole


def test_what_is_being_built_is_neither_swept_nor_discarded(cache):
    with cache.locked("one"):
        building = cache.building("one")
        cache.sweep()
        assert building.is_dir()
        building.rename(cache.folder / "one")
        assert not cache.discard("one")
    assert cache.names() == ["one"]


def test_who_waited_for_a_lock_that_was_deleted_takes_the_new_one(cache):
    """Each deletes the thing that it built, and the lock's file with it; still, two never build at once."""
    inside = []
    start = Barrier(4)

    def work():
        start.wait(PATIENCE_S)
        for _ in range(100):
            with cache.locked("one"):
                inside.append(1)
                assert len(inside) == 1
                (cache.folder / "one").mkdir(exist_ok=True)
                inside.pop()
            cache.discard("one")

    with ThreadPoolExecutor(max_workers=4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result(PATIENCE_S)


@pytest.mark.anyio
async def test_a_cancelled_wait_leaves_no_lock(cache):
    with anyio.fail_after(PATIENCE_S):
        async with cache.wait_locked("one"), anyio.create_task_group() as tasks:
            started = anyio.Event()

            async def wait():
                started.set()
                async with cache.wait_locked("one"):
                    pytest.fail("two have the lock")

            tasks.start_soon(wait)
            await started.wait()
            tasks.cancel_scope.cancel()
        async with cache.wait_locked("one"):
            pass


def test_two_who_discard_the_same_at_once_both_succeed(cache):
    for number in range(300):
        (cache.folder / f"{number:032}").mkdir(parents=True)
    start = Barrier(2)

    def discard():
        names = cache.names()
        start.wait(PATIENCE_S)
        return sum(cache.discard(name) for name in names)

    with ThreadPoolExecutor(max_workers=2) as pool:
        counts = [done.result(PATIENCE_S) for done in [pool.submit(discard) for _ in range(2)]]
    cache.sweep()
    assert sum(counts) == 300
    assert kept(cache) == []
