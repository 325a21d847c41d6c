"""Layers that are no longer needed, and leftovers of killed processes beside them."""

import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from silo.sandbox import ext4
from silo.sandbox.base import Image
from silo.sandbox.confined import run_confined_blocking
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
    await images.layer("d" * 64, staged, base, print)

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
    return await images.layer(digest, stage(images), base, print)


def kept(folder):
    return sorted(path.name for path in folder.iterdir())


async def test_only_layers_that_are_not_kept_are_pruned(own, base, tmp_path):
    first, second, _ = [await make(own, base, digest) for digest in DIGESTS]
    for other in ("base-0", "runtime-0"):
        (tmp_path / "images" / other).mkdir()
    gone = own.prune([first.digest, second.digest, "0" * 64])
    assert sorted(path.name[:6] for path in gone) == ["base-0", "layer-"]
    assert own.find("layer", first.digest) == first
    assert own.find("layer", second.digest) == second
    names = [first.tree.parent.name, second.tree.parent.name]
    assert kept(tmp_path / "images") == sorted([*names, *(f".lock-{name}" for name in names), "runtime-0"])


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
    assert kept(kept_layer.tree.parent) == ["sources.json", "tree"]


async def test_a_layer_that_is_being_built_is_not_pruned(own, base, tmp_path):
    """The process that builds a layer holds its lock; the layer is in no record yet, and may be finished later."""
    is_building, go_on = threading.Event(), threading.Event()

    class Slow(type(tmp_path)):
        def rename(self, target):
            is_building.set()
            assert go_on.wait(PATIENCE_S)
            return Path(self).rename(target)

    staged = Slow(tmp_path / "staged")  # not where `prune` looks for abandoned ones
    (staged / "env").mkdir(parents=True)
    with ThreadPoolExecutor(max_workers=1) as pool:
        made = pool.submit(anyio.run, own.layer, DIGESTS[0], staged, base, print)
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


async def test_a_disk_holds_names_that_a_stranger_chose_and_all_of_it_belongs_to_root(own, base, tmp_path):
    """`mke2fs` runs confined: it sees the tree and the disk that it writes, and nothing else of this machine."""
    names = ["-d", "a b", "quote'\"", "line\nbreak", "x" * 255, "ünï", "$(id)", ".hidden"]
    staged = stage(own)
    for name in names:
        (staged / "env" / name).write_text(name)
    (staged / "env" / "link").symlink_to("/etc/shadow")
    layer = await own.layer(DIGESTS[0], staged, base, print)
    disk = await anyio.to_thread.run_sync(own.disk, layer)
    checked = await anyio.run_process([_admin("e2fsck"), "-fn", str(disk)], check=False)
    assert checked.returncode == 0, checked.stdout
    listed = await anyio.run_process([_admin("debugfs"), "-R", "ls -p /env", str(disk)])
    rows = [line.split("/") for line in listed.stdout.decode().splitlines() if line.startswith("/")]
    assert {(row[3], row[4]) for row in rows} == {("0", "0")}
    assert len(rows) == len(names) + 3  # the link, `.` and `..`
    link = await anyio.run_process([_admin("debugfs"), "-R", "stat /env/link", str(disk)])
    assert b'Fast link dest: "/etc/shadow"' in link.stdout


async def test_the_program_that_writes_a_disk_sees_the_tree_and_the_disk_and_nothing_else(own, base, monkeypatch):
    """`test_compile` attacks the confinement itself."""
    seen = []

    def spy(argv, confinement):
        seen.append((Path(argv[0]).name, set(confinement.read.values()), set(confinement.write.values())))
        return run_confined_blocking(argv, confinement)

    monkeypatch.setattr(ext4, "run_confined_blocking", spy)
    layer = await make(own, base, DIGESTS[0])
    disk = await anyio.to_thread.run_sync(own.disk, layer)
    ((program, read, written),) = seen
    assert (program, read, {path.parent for path in written}) == ("mke2fs", {layer.tree}, {disk.parent})


def _admin(name):
    return shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
