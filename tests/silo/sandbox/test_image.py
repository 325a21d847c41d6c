"""Layers that are no longer needed, and leftovers of killed processes beside them."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from silo.sandbox.base import Image
from silo.sandbox.image import Images

pytestmark = pytest.mark.anyio

PATIENCE_S = 300.0
DIGESTS = [f"{number:064x}" for number in range(3)]

# An audit hook (PEP 578) sees the rename that would put the layer in place, or the start of mke2fs.
KILLED = """
import os, signal, sys
from pathlib import Path
import anyio
from silo.sandbox.base import Image
from silo.sandbox.image import Images

images = Images(Path(sys.argv[1]))
base = Image("b" * 64, Path(sys.argv[2]))

def hook(event, arguments):
    if event == sys.argv[3] and ".building-" in str(arguments[0]):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    staged = images.staging()
    (staged / "env").mkdir()
    sys.addaudithook(hook)
    await images.layer("d" * 64, staged, base)

anyio.run(main)
"""


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base" / "usr" / "lib").mkdir(parents=True)
    return Image("b" * 64, tmp_path / "base")


@pytest.fixture
def own(tmp_path):
    return Images(tmp_path / "images")


def stage(images):
    staged = images.staging()
    (staged / "env").mkdir()
    return staged


async def make(images, base, digest):
    return await images.layer(digest, stage(images), base)


def kept(folder):
    return sorted(path.name for path in folder.iterdir())


async def test_only_layers_that_are_not_kept_are_pruned(own, base, tmp_path):
    first, second, _ = [await make(own, base, digest) for digest in DIGESTS]
    for other in ("base-0", "runtime-0"):
        (tmp_path / "images" / other).mkdir()
    gone = own.prune([first.digest, second.digest])
    assert [path.name[:6] for path in gone] == ["layer-"]
    assert own.find("layer", first.digest) == first
    assert own.find("layer", second.digest) == second
    names = [first.tree.parent.name, second.tree.parent.name]
    assert kept(tmp_path / "images") == sorted([*names, *(f".lock-{name}" for name in names), "base-0", "runtime-0"])


async def test_what_a_killed_process_left_is_pruned(own, base, tmp_path):
    kept_layer = await make(own, base, DIGESTS[0])
    before = kept(tmp_path / "images")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "images"), str(base.tree), "os.rename"]
    with anyio.fail_after(PATIENCE_S):
        done = await anyio.run_process(command, check=False)
    assert done.returncode == -9, done.stderr
    stage(own)  # of an install that was killed earlier
    (kept_layer.tree.parent / ".disk.ext4.4711").write_text("half a disk")
    left = kept(tmp_path / "images")
    assert [sum(name.startswith(mark) for name in left) for mark in (".staging-", ".building-", ".lock-")] == [1, 1, 2]
    assert own.prune([kept_layer.digest]) == []
    assert kept(tmp_path / "images") == before
    assert kept(kept_layer.tree.parent) == ["tree"]


async def test_a_layer_that_is_being_built_is_not_pruned(own, base, tmp_path):
    """The process that builds a layer holds its lock; the layer is in no record yet, and may be finished later."""
    is_building, go_on = threading.Event(), threading.Event()

    class Slow(type(base.tree)):
        def __truediv__(self, name):
            is_building.set()
            assert go_on.wait(PATIENCE_S)
            return Path(self) / name

    slow = Image(base.digest, Slow(base.tree))
    with ThreadPoolExecutor(max_workers=1) as pool:
        made = pool.submit(anyio.run, make, own, slow, DIGESTS[0])
        try:
            assert await anyio.to_thread.run_sync(is_building.wait, PATIENCE_S)
            assert own.prune([]) == []
            assert any(name.startswith(".building-") for name in kept(tmp_path / "images"))
        finally:
            go_on.set()
        layer = made.result(PATIENCE_S)
    assert own.find("layer", layer.digest) == layer


async def test_two_who_prune_at_once_both_succeed(own, base, tmp_path):
    for number in range(300):
        (tmp_path / "images" / f"layer-{number:032}").mkdir(parents=True)
    start = threading.Barrier(2)

    def prune():
        start.wait(PATIENCE_S)
        return len(own.prune([]))

    with ThreadPoolExecutor(max_workers=2) as pool:
        counts = [done.result(PATIENCE_S) for done in [pool.submit(prune) for _ in range(2)]]
    assert sum(counts) == 300
    own.prune([])
    assert kept(tmp_path / "images") == []
