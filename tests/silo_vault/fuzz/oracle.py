"""The rules for any input of the parser, shared by the tests in this folder and by `atheris_format.py`."""

from __future__ import annotations

import contextlib

from silo_vault.format import MAC_BYTES, Document, Malformed, decode, decode_header, encode

MAC_KEY = bytes(32)


def check(data: bytes) -> Document | None:
    """Return the decoded file, or None if it is refused with `Malformed`. Other exceptions are raised.

    An accepted file has one encoding: encoding it again gives the same bytes, except for the MAC, whose key is unknown.
    """
    header = None
    with contextlib.suppress(Malformed):
        header = decode_header(data)
    try:
        document = decode(data)
    except Malformed as error:
        _check_message(str(error))
        return None
    assert header == (document.header, len(document.head), len(document.records))
    again = encode(document.header, document.records, MAC_KEY)
    assert again[:-MAC_BYTES] == data[:-MAC_BYTES], "a second encoding of the same vault"
    assert document.mac == data[-MAC_BYTES:]
    for record in document.records:
        sizes = len(record.namespace.encode()), len(record.name.encode())
        assert len(record.nonce) == 12
        assert len(record.sealed) > 16
        assert len(record.encoded) == 2 + sizes[0] + 2 + sizes[1] + 8 + 8 + 12 + len(record.sealed)
        assert record.version >= 0
        assert record.modified >= 0
    return document


def framed(header: bytes, records: bytes = bytes(4)) -> bytes:
    """Return a file with this text as its header and these bytes after it, by default no record."""
    return b"silo-vlt\0\1" + len(header).to_bytes(4, "big") + header + records + bytes(MAC_BYTES)


def _check_message(text: str) -> None:
    assert text.isascii()
    assert text.isprintable(), "a message that could move a cursor"
