# /// script
# requires-python = ">=3.11"
#
# [tool.silo]
# namespace = "bench_hostile_guest"
# timeout_s = 3
# ///
"""The guest that `silo bench hostile` measures against: it writes to silo's own channel what would hold up the host."""

import os
import sys
from collections.abc import Callable

from silo import Skill
from silo.wire.frames import BLOB, JSON, MAX_JSON_BYTES, encode
from silo.wire.messages import FileHead, Finished, encode_message

skill = Skill("bench_hostile_guest")

_DATA = '{"type":"finished","text":"","has_data":true,"data":'
_TEXT = '{"type":"finished","text":"'
_REPORT = '{"type":"progress","progress":1,"message":"'

Stream = tuple[bytes, bytes]
"""What a guest sends first, and what it then sends for ever."""


def filled(before: str, unit: str, after: str) -> bytes:
    """Return the frame of a message of the longest length, filled with a unit."""
    room = MAX_JSON_BYTES - len((before + after).encode())
    return encode(JSON, (before + unit * (room // len(unit.encode())) + after).encode())


def many_keys() -> Stream:
    """Return one object with 700,000 keys."""
    return encode(JSON, (_DATA + "{" + ",".join(f'"{number:x}":0' for number in range(700_000)) + "}}").encode()), b""


def files(size: int, piece: bytes) -> Stream:
    """Return a result with a file in the smallest pieces."""
    return encode_message(Finished("", files=(FileHead("x", "text/plain", size),))), encode(BLOB, piece) * 8192


STALLS: dict[str, Callable[[], Stream]] = {
    "empty lists": lambda: (filled(_DATA + "[", "[],", "0]}"), b""),
    "empty objects": lambda: (filled(_DATA + "[", "{},", "0]}"), b""),
    "deep nesting": lambda: (filled(_DATA, "[", "}"), b""),
    "nests of sixty": lambda: (filled(_DATA + "[", "[" * 60 + "0" + "]" * 60 + ",", "0]}"), b""),
    "brackets in a string": lambda: (filled(_DATA + '"', "[", '"}'), b""),
    "long integers": lambda: (filled(_DATA + "[", "9" * 4300 + ",", "0]}"), b""),
    "one long integer": lambda: (filled(_DATA, "9", "}"), b""),
    "many keys": many_keys,
    "escapes": lambda: (filled(_TEXT, "\\u0041", '"}'), b""),
    "lone surrogates": lambda: (filled(_TEXT, "\\ud83d", '"}'), b""),
    "wide characters": lambda: (filled(_TEXT, "a\U0001f600", '"}'), b""),
    "white space": lambda: (filled(_DATA, " ", "0}"), b""),
    "half a frame": lambda: (filled(_DATA + "[", "[],", "0]}")[: MAX_JSON_BYTES // 2], b""),
    "many reports": lambda: (b"", encode(JSON, b'{"type":"progress","progress":1}') * 1000),
    "many long reports": lambda: (b"", encode(JSON, (_REPORT + "\\u0041" * 1000 + '"}').encode()) * 100),
    "empty pieces": lambda: files(9, b""),
    "pieces of a byte": lambda: files(2**24, b"x"),
    "single bytes": lambda: (encode(JSON, b'{"type":"progress","progress":1}'), b" "),
}
"""What holds up a host that parses as fast as it can, by name."""


@skill.tool()
def stall(how: str) -> None:
    """Send silo something that it should not wait for."""
    frame = sys._getframe()
    while "channel" not in frame.f_locals:
        assert frame.f_back is not None
        frame = frame.f_back
    descriptor: int = frame.f_locals["channel"].descriptor

    def say(data: bytes) -> None:
        while data:
            data = data[os.write(descriptor, data) :]

    if how == "lines":
        while True:
            os.write(1, b"\n" * 4096)
    if how == "single characters":
        while True:
            os.write(2, b"x")
    first, again = STALLS[how]()
    say(first)
    while again:
        say(again)
    os.read(descriptor, 1)
