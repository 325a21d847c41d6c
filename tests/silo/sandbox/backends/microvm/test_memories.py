"""Copies of templates' memory: bounded by their size and their use, shared, and never of another template."""

import os

import anyio
import pytest

from silo.errors import SandboxBroken
from silo.sandbox.backends.microvm.memories import Memories
from silo.sizes import MIB
from silo.testing import PATIENCE_S

pytestmark = pytest.mark.anyio

COPY_MIB = 2


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def template(tmp_path):
    """Make the memory file of a template: mostly a hole, as real ones are."""

    def make(name, *, fill=b"x"):
        path = tmp_path / name
        with open(path, "wb") as memory:
            memory.write(fill * COPY_MIB * MIB)
            memory.truncate(64 * MIB)
        return path

    return make


async def use(memories, path):
    """Use a copy as a clone does; return the file that it is."""
    async with memories.copy_of(path) as descriptor:
        return os.fstat(descriptor).st_ino


async def test_a_copy_is_kept_and_used_again(template):
    memories = Memories(8 * MIB)
    path = template("a")
    assert await use(memories, path) == await use(memories, path)
    assert memories.size_bytes == COPY_MIB * MIB, "holes take no memory"
    memories.close()
    assert memories.size_bytes == 0


async def test_the_copies_of_any_number_of_templates_stay_within_the_budget(template):
    """Sixteen copies were kept, however large they were: 2.3 GiB for 16 skills of 144 MiB."""
    memories = Memories(3 * COPY_MIB * MIB)
    paths = [template(str(number)) for number in range(10)]
    files = {}
    for path in paths:
        files[path] = await use(memories, path)
        assert memories.size_bytes <= 3 * COPY_MIB * MIB
    assert [await use(memories, path) == files[path] for path in paths[-3:]] == [True] * 3
    await use(memories, paths[-3])  # so the next one to go is paths[-2]
    await use(memories, paths[0])
    assert await use(memories, paths[-3]) == files[paths[-3]]
    assert await use(memories, paths[-2]) != files[paths[-2]]
    memories.close()


@pytest.mark.parametrize("budget_mib", [0, COPY_MIB - 1])
async def test_a_copy_beyond_the_budget_serves_its_clone_and_is_not_kept(template, budget_mib):
    memories = Memories(budget_mib * MIB)
    async with memories.copy_of(template("a", fill=b"y")) as descriptor:
        assert memories.size_bytes == 0
        assert os.pread(descriptor, 2, 0) == b"yy"


async def test_a_copy_that_makes_room_for_another_stays_whole_while_a_clone_starts_from_it(template):
    memories = Memories(COPY_MIB * MIB)
    async with memories.copy_of(template("a", fill=b"a")) as first:
        await use(memories, template("b", fill=b"b"))
        assert memories.size_bytes == COPY_MIB * MIB
        assert os.pread(first, 1, 0) == b"a"
    memories.close()


async def test_a_copy_that_nobody_uses_for_a_quarter_of_an_hour_is_given_back(template, clock):
    memories = Memories(8 * MIB, clock)
    await use(memories, template("a"))
    clock.now = 600.0
    recent = await use(memories, path := template("b"))
    clock.now = 901.0
    async with anyio.create_task_group() as group:
        group.start_soon(memories.forget_unused)
        with anyio.fail_after(PATIENCE_S):
            while memories.size_bytes > COPY_MIB * MIB:
                await anyio.sleep(0.01)
        assert await use(memories, path) == recent
        group.cancel_scope.cancel()
    memories.close()


async def test_calls_that_come_at_once_share_a_copy(template):
    memories = Memories(8 * MIB)
    path = template("a")
    files = []

    async def one():
        files.append(await use(memories, path))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(one)
    assert len(files) == 8
    assert len(set(files)) == 1
    memories.close()


async def test_a_template_that_was_made_anew_is_copied_anew(template, tmp_path):
    """Another process may do that; the old memory with the new devices would be a broken guest."""
    memories = Memories(8 * MIB)
    path = template("a", fill=b"1")
    await use(memories, path)
    template("new", fill=b"2").rename(path)
    async with memories.copy_of(path) as descriptor:
        assert os.pread(descriptor, 1, 0) == b"2"
    memories.close()


async def test_a_template_without_memory_is_an_error_that_says_what_to_do(tmp_path):
    memories = Memories(8 * MIB)
    with pytest.raises(SandboxBroken, match="No such file") as caught:
        await use(memories, tmp_path / "nothing")
    assert "call again" in caught.value.hint
