"""Reading from the descriptors of a guest without blocking the event loop."""

from __future__ import annotations

import os

import anyio
from anyio.lowlevel import checkpoint

_READ_BYTES = 256 * 1024


async def read_some(descriptor: int) -> bytes:
    """Read what is there, waiting until something is; `EOFError` at the end.

    Gives way to other tasks each time: a guest that writes without end always has something there, and would otherwise
    keep the event loop from everything else, its own deadline included.
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
