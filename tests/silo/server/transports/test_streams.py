from __future__ import annotations

import os

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.server.transports import streams
from silo.server.transports.streams import LineTooLong, lines, write
from silo.testing import PATIENCE_S

pytestmark = pytest.mark.anyio


@pytest.fixture
def pipe():
    read_fd, write_fd = os.pipe()
    yield read_fd, write_fd
    for descriptor in (read_fd, write_fd):
        try:
            os.close(descriptor)
        except OSError:
            continue


async def collect(fd):
    return [line async for line in lines(fd)]


async def read_all(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with anyio.fail_after(PATIENCE_S):
            return await collect(descriptor)
    finally:
        os.close(descriptor)


@given(content=st.binary(max_size=300))
def test_lines_are_those_of_the_bytes_without_blank_ones(tmp_path_factory, content):
    """Through a regular file, which epoll refuses to watch."""
    path = tmp_path_factory.mktemp("lines") / "in"
    path.write_bytes(content)
    expected = [line for line in content.split(b"\n")[:-1] if line.strip()]
    assert anyio.run(read_all, path) == expected


async def test_line_that_comes_in_pieces_is_one_line(pipe):
    read_fd, write_fd = pipe
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            found = []

            async def reader():
                found.extend(await collect(read_fd))

            tasks.start_soon(reader)
            for piece in (b"a", b"b\nc", b"d\n\n", b"left over"):
                os.write(write_fd, piece)
                await anyio.wait_all_tasks_blocked()
            os.close(write_fd)
    assert found == [b"ab", b"cd"]


async def test_line_that_is_too_long_is_reported_once_and_the_next_one_is_read(tmp_path):
    path = tmp_path / "in"
    path.write_bytes(b"before\n" + bytes(streams.MAX_LINE_BYTES + 10) + b"\nafter\n")
    before, too_long, after = await read_all(path)
    assert before == b"before"
    assert isinstance(too_long, LineTooLong)
    assert after == b"after"


async def test_waiting_reader_can_be_cancelled(pipe):
    with anyio.fail_after(PATIENCE_S), anyio.move_on_after(0.01) as scope:
        await collect(pipe[0])
    assert scope.cancelled_caught


async def test_large_write_waits_for_the_reader_and_arrives_whole(pipe):
    read_fd, write_fd = pipe
    data = os.urandom(300_000).replace(b"\n", b" ")
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:

            async def writer():
                await write(write_fd, data + b"\n")
                os.close(write_fd)

            tasks.start_soon(writer)
            assert await collect(read_fd) == [data]


async def test_write_to_a_reader_that_does_not_read_can_be_cancelled(pipe):
    with anyio.fail_after(PATIENCE_S), anyio.move_on_after(0.05) as scope:
        await write(pipe[1], bytes(1_000_000))
    assert scope.cancelled_caught


async def test_write_to_nobody_is_a_broken_pipe(pipe):
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        await write(pipe[1], b"x")
