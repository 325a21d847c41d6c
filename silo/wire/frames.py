"""Frames: length-prefixed, typed pieces of a byte stream. `silo.wire.messages` interprets their payload.

A frame is eight bytes of header and a payload: version (u8), kind (u8), two reserved zero bytes, payload length (u32),
all big-endian. The output of a guest is hostile, so the length is checked before a byte of the payload is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

WIRE_VERSION = 1

JSON = 1
"""A frame whose payload is one UTF-8 JSON object, a message of `silo.wire.messages`."""

BLOB = 2
"""A frame whose payload is a piece of the file that the last message announced."""

MAX_JSON_BYTES = 8 * 1024 * 1024
"""The longest JSON payload. A result's text may be 4 MiB, and JSON escapes can double that."""

BLOB_BYTES = 256 * 1024
"""Size of the pieces of a file. Larger ones gain nothing on a virtio port, smaller ones cost a system call each."""

_HEADER = struct.Struct(">BBHI")
HEADER_BYTES = _HEADER.size


class WireError(ValueError):
    """The other side broke the protocol; the rest of the stream can't be trusted."""


def encode(kind: int, payload: bytes) -> bytes:
    """Return one frame.

    Raises:
        WireError: the payload is longer than its kind may be.
    """
    if len(payload) > _limit(kind):
        raise WireError(f"a frame of kind {kind} may have {_limit(kind)} bytes, not {len(payload)}")
    return _HEADER.pack(WIRE_VERSION, kind, 0, len(payload)) + payload


def encode_blob(data: bytes) -> Iterator[bytes]:
    """Yield the frames that carry `data`; none for empty data."""
    for start in range(0, len(data), BLOB_BYTES):
        yield encode(BLOB, data[start : start + BLOB_BYTES])


class FrameDecoder:
    """Cuts a stream into frames; push the data as it arrives, in pieces of any size, and pull the frames one by one.

    Not reusable after a `WireError`.

    Args:
        max_json_bytes: the longest JSON payload on this stream.
    """

    def __init__(self, max_json_bytes: int = MAX_JSON_BYTES) -> None:
        self._buffer = bytearray()
        self._longest = {JSON: max_json_bytes, BLOB: BLOB_BYTES}

    def push(self, data: bytes) -> None:
        """Take the next bytes. Pull what is whole first: nothing bounds how much may be pushed without."""
        self._buffer += data

    def pull(self) -> tuple[int, bytes] | None:
        """Return `(kind, payload)` of the next frame, or None if it is not yet whole.

        Raises:
            WireError: wrong version, unknown kind, or a payload longer than its kind may be. Raised as soon as the
                header has arrived, before the payload is buffered.
        """
        if len(self._buffer) < HEADER_BYTES:
            return None
        version, kind, reserved, length = _HEADER.unpack_from(self._buffer)
        if version != WIRE_VERSION or reserved:
            raise WireError(f"not a frame of wire version {WIRE_VERSION}")
        if kind not in self._longest:
            raise WireError(f"unknown kind of frame: {kind}")
        if length > self._longest[kind]:
            raise WireError(f"a frame of kind {kind} announces {length} bytes, allowed are {self._longest[kind]}")
        end = HEADER_BYTES + length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            payload = bytes(view[HEADER_BYTES:end])
        del self._buffer[:end]
        return kind, payload

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Push the next bytes, and pull each frame that is now whole; raises as `pull`."""
        self.push(data)
        while (frame := self.pull()) is not None:
            yield frame

    @property
    def is_between_frames(self) -> bool:
        """Whether no part of a frame is left over."""
        return not self._buffer


def _limit(kind: int) -> int:
    if kind == JSON:
        return MAX_JSON_BYTES
    if kind == BLOB:
        return BLOB_BYTES
    raise WireError(f"unknown kind of frame: {kind}")
