"""Frames: any split of a stream gives the same frames, and any bytes give either frames or a `WireError`."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.wire.frames import (
    BLOB,
    BLOB_BYTES,
    HEADER_BYTES,
    JSON,
    MAX_JSON_BYTES,
    FrameDecoder,
    WireError,
    encode,
    encode_blob,
)

frames = st.lists(st.tuples(st.sampled_from([JSON, BLOB]), st.binary(max_size=200)), max_size=8)


@given(frames, st.lists(st.integers(0, 2000), max_size=20))
def test_any_split_of_the_stream_gives_the_same_frames(sent, cuts):
    stream = b"".join(encode(kind, payload) for kind, payload in sent)
    decoder, got = FrameDecoder(), []
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(places):
        got += decoder.feed(stream[start:end])
    assert got == sent
    assert decoder.is_between_frames


@given(st.lists(st.binary(max_size=400), max_size=8))
def test_arbitrary_bytes_are_frames_or_a_wire_error(pieces):
    decoder = FrameDecoder()
    try:
        for piece in pieces:
            for kind, payload in decoder.feed(piece):
                assert kind in (JSON, BLOB)
                assert len(payload) <= MAX_JSON_BYTES
    except WireError:
        pass


@given(st.binary(max_size=3 * BLOB_BYTES))
def test_a_blob_comes_back_whole_and_in_pieces_of_bounded_size(data):
    decoder, got = FrameDecoder(), []
    for frame in encode_blob(data):
        assert len(frame) <= HEADER_BYTES + BLOB_BYTES
        got += decoder.feed(frame)
    assert b"".join(payload for _, payload in got) == data
    assert {kind for kind, _ in got} <= {BLOB}


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">BBHI", 0, JSON, 0, 0),
        struct.pack(">BBHI", 2, JSON, 0, 0),
        struct.pack(">BBHI", 1, 0, 0, 0),
        struct.pack(">BBHI", 1, 3, 0, 0),
        struct.pack(">BBHI", 1, JSON, 1, 0),
        struct.pack(">BBHI", 1, JSON, 0, MAX_JSON_BYTES + 1),
        struct.pack(">BBHI", 1, JSON, 0, 2**32 - 1),
        struct.pack(">BBHI", 1, BLOB, 0, BLOB_BYTES + 1),
    ],
    ids=["version 0", "version 2", "kind 0", "kind 3", "reserved", "json too long", "json 4 GiB", "blob too long"],
)
def test_a_bad_header_is_refused_before_any_payload(header):
    with pytest.raises(WireError):
        list(FrameDecoder().feed(header))


def test_the_longest_payloads_are_taken_and_one_byte_more_is_not():
    for kind, most in ((JSON, MAX_JSON_BYTES), (BLOB, BLOB_BYTES)):
        ((got, payload),) = FrameDecoder().feed(encode(kind, bytes(most)))
        assert (got, len(payload)) == (kind, most)
        with pytest.raises(WireError):
            encode(kind, bytes(most + 1))


def test_a_header_alone_is_not_yet_a_frame():
    decoder = FrameDecoder()
    assert list(decoder.feed(encode(JSON, b"{}")[:HEADER_BYTES])) == []
    assert not decoder.is_between_frames
