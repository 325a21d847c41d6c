"""Blocking messages over a file descriptor of the guest. The host's counterpart is `silo.sandbox.skill.link`."""

from __future__ import annotations

import os
import threading

from silo.wire.frames import BLOB, JSON, FrameDecoder, WireError, encode_blob
from silo.wire.messages import Message, decode_trusted, encode_message

_READ_BYTES = 32 * 1024
"""The most that a virtio port returns at once. From 128 KiB on, malloc would map and unmap the buffer for each read,
which costs a thousand translated blocks of kernel code in a clone that runs it for the first time."""


class MessageChannel:
    """A two-way stream of frames on one descriptor (a virtio port or a socket)."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._decoder = FrameDecoder()
        self._frames: list[tuple[int, bytes]] = []
        self._sending = threading.Lock()

    def send(self, message: Message, *blobs: bytes) -> None:
        """Send a message and its blobs without a break, even when several threads report progress."""
        with self._sending:
            self._write(encode_message(message))
            for blob in blobs:
                for frame in encode_blob(blob):
                    self._write(frame)

    def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            EOFError: the host closed the channel.
            WireError: the host sent something else than a message.
        """
        kind, payload = self._next_frame()
        if kind != JSON:
            raise WireError("a blob where a message was due")
        return decode_trusted(payload)

    def receive_blob(self, size: int) -> bytes:
        """Wait for `size` bytes that the last message announced."""
        data = bytearray()
        while len(data) < size:
            kind, payload = self._next_frame()
            if kind != BLOB:
                raise WireError("a message where a blob was due")
            data += payload
        if len(data) != size:
            raise WireError("a blob longer than announced")
        return bytes(data)

    def _next_frame(self) -> tuple[int, bytes]:
        while not self._frames:
            data = os.read(self.descriptor, _READ_BYTES)
            if not data:
                raise EOFError
            self._frames.extend(self._decoder.feed(data))
        return self._frames.pop(0)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            # A virtio port takes at most 32 KiB a write, a socket as much as its buffer has room for.
            view = view[os.write(self.descriptor, view) :]
