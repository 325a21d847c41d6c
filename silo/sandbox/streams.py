"""Reads from the descriptors of a guest without blocking the event loop."""

from __future__ import annotations

import os

import anyio
from anyio.lowlevel import checkpoint

_READ_BYTES = 256 * 1024


async def read_some(descriptor: int) -> bytes:
    """Wait for data and read it; `EOFError` at the end.

    Lets other tasks run each time: otherwise a guest that writes without end would keep the event loop from everything
    else, including its own deadline.
    """
    while True:
        await checkpoint()
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            await anyio.wait_readable(descriptor)
            continue
        except ConnectionResetError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        return data
