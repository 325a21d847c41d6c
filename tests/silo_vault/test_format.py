import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_vault.crypto import Argon2Cost
from silo_vault.format import (
    Argon2,
    Header,
    Malformed,
    UnknownWrap,
    Wrap,
    decode,
    decode_header,
    encode,
    encode_record,
)

MAC_KEY = b"m" * 32

wraps = st.builds(
    Wrap,
    kind=st.sampled_from(["env", "keyring"]),
    key_id=st.binary(min_size=8, max_size=8),
    kdf=st.none()
    | st.builds(
        Argon2,
        salt=st.binary(min_size=16, max_size=16),
        cost=st.builds(Argon2Cost, t=st.integers(1, 16), m_kib=st.integers(128, 1024 * 1024), p=st.integers(1, 16)),
    ),
    nonce=st.binary(min_size=12, max_size=12),
    wrapped_dek=st.binary(min_size=48, max_size=48),
)
headers = st.builds(
    Header,
    vault_id=st.binary(min_size=16, max_size=16),
    generation=st.integers(1, 2**63 - 1),
    seals=st.integers(0, 2**32),
    created=st.just("2026-11-21T10:00:00Z"),
    wraps=st.lists(wraps, min_size=1, max_size=16).map(tuple),
)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
records = st.lists(
    st.builds(
        encode_record,
        texts,
        texts,
        version=st.integers(0, 2**64 - 1),
        modified=st.integers(0, 2**64 - 1),
        nonce=st.binary(min_size=12, max_size=12),
        sealed=st.binary(min_size=17, max_size=60),
    ),
    max_size=6,
    unique_by=lambda record: (record.namespace, record.name),
)


@given(headers, records, st.randoms())
def test_decoding_gives_back_what_was_encoded_in_whatever_order(header, some, random):
    shuffled = list(some)
    random.shuffle(shuffled)
    data = encode(header, shuffled, MAC_KEY)
    document = decode(data)
    assert document.header == header
    assert set(document.records) == set(some)
    assert document.mac == document.expected_mac(MAC_KEY)
    assert encode(document.header, document.records, MAC_KEY) == data
    assert decode_header(data)[::2] == (header, len(some))


def test_a_record_gives_back_its_parts():
    record = encode_record("jwt", "KEY_Ä", version=7, modified=1_800_000_000, nonce=b"n" * 12, sealed=b"s" * 20)
    parts = (record.namespace, record.name, record.version, record.modified, record.nonce, record.sealed)
    assert parts == ("jwt", "KEY_Ä", 7, 1_800_000_000, b"n" * 12, b"s" * 20)


@given(headers, records, st.data())
def test_whatever_is_changed_is_malformed_or_has_another_mac(header, some, data):
    good = encode(header, some, MAC_KEY)
    position = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[position] ^= data.draw(st.integers(1, 255))
    try:
        document = decode(bytes(bad))
    except Malformed:
        return
    assert document.mac != document.expected_mac(MAC_KEY)


@given(st.binary(max_size=300))
def test_any_bytes_at_all_are_refused_as_malformed(data):
    for start in (b"", b"silo-vlt", b"silo-vlt\0\1", b"silo-vlt\0\1\0\0\0\2{}"):
        with pytest.raises(Malformed):
            decode(start + data)


def _header_json() -> dict:
    wrap = Wrap("env", b"k" * 8, Argon2(b"s" * 16, Argon2Cost(3, 65536, 4)), b"n" * 12, b"w" * 48)
    data = encode(Header(b"v" * 16, 1, 0, "2026-11-21T10:00:00Z", (wrap,)), (), MAC_KEY)
    return json.loads(data[14 : decode_header(data)[1]])


def _with_header(text: bytes) -> bytes:
    return b"silo-vlt\0\1" + len(text).to_bytes(4, "big") + text + bytes(4) + bytes(32)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _changed(path: str, value: object) -> bytes:
    header = _header_json()
    *way, last = path.split(".")
    target = header
    for step in way:
        target = target[int(step)] if isinstance(target, list) else target[step]
    target[last] = value
    return _with_header(_canonical(header))


def test_the_header_that_the_cases_below_start_from_is_good():
    assert decode(_with_header(_canonical(_header_json()))).header.wraps


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("generation", 0),
        ("generation", -1),
        ("generation", True),
        ("generation", 1.0),
        ("generation", "1"),
        ("generation", 2**63),
        ("seals", 2**32 + 1),
        ("seals", None),
        ("vault_id", "00" * 15),
        ("vault_id", "AA" * 16),
        ("vault_id", 5),
        ("created", "yesterday"),
        ("created", "2026-11-21T10:00:00+00:00"),
        ("wraps", []),
        ("wraps", {}),
        ("wraps", [1]),
        ("wraps", [{}]),
        ("wraps", [{"kind": "Env\u202e"}]),
        ("wraps.0.wrapped_dek", "00" * 47),
        ("wraps.0.nonce", ""),
        ("wraps.0.kdf", None),
        ("wraps.0.kdf", {}),
        ("wraps.0.kdf.name", "pbkdf2"),
        ("wraps.0.kdf.salt", ""),
        ("wraps.0.kdf.m_kib", 4 * 1024 * 1024),
        ("wraps.0.kdf.m_kib", 31),
        ("wraps.0.kdf.t", 2**31),
        ("wraps.0.kdf.t", 0),
        ("wraps.0.kdf.p", 17),
        ("wraps.0.kdf.p", 0),
    ],
)
def test_a_header_field_out_of_its_bounds_is_refused(path, value):
    with pytest.raises(Malformed, match="is damaged"):
        decode(_changed(path, value))


@pytest.mark.parametrize("path", ["deny", "wraps.0.only_on", "wraps.0.kdf.pepper"])
def test_a_field_that_this_version_does_not_know_is_refused_as_newer(path):
    with pytest.raises(Malformed) as caught:
        decode(_changed(path, 1))
    assert caught.value.newer


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"NaN",
        b"{" * 60_000,
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"9" * 10_000,
        b"\xff",
        b'{"generation":1,"generation":1}',
    ],
)
def test_a_header_that_is_not_the_right_json_is_refused(text):
    with pytest.raises(Malformed):
        decode(_with_header(text))


def test_only_one_spelling_of_a_header_is_accepted():
    header = _header_json()
    text = _canonical(header)
    for other in (json.dumps(header, sort_keys=True).encode(), text + b" ", text.replace(b'"env"', b'"\\u0065nv"')):
        with pytest.raises(Malformed, match="one form"):
            decode(_with_header(other))


def test_a_newer_format_version_is_refused_as_newer():
    with pytest.raises(Malformed, match="version 2") as caught:
        decode(_with_header(_canonical(_header_json())).replace(b"silo-vlt\0\1", b"silo-vlt\0\2"))
    assert caught.value.newer


def test_a_key_of_an_unknown_kind_is_kept_as_it_is():
    """Later versions add kinds. This version must neither fail on them nor lose them when it saves."""
    header = _header_json()
    foreign = {"kind": "vault-transit", "ciphertext": "vault:v1:abc", "mount": {"path": ["transit"]}}
    header["wraps"].append(foreign)
    document = decode(_with_header(_canonical(header)))
    assert document.header.wraps[1] == UnknownWrap("vault-transit", _canonical(foreign))
    again = encode(document.header, document.records, MAC_KEY)
    assert json.loads(again[14 : decode_header(again)[1]]) == header


def test_a_vault_larger_than_a_reader_accepts_is_not_written():
    header = Header(b"v" * 16, 1, 0, "2026-11-21T10:00:00Z", (Wrap("env", b"k" * 8, None, b"n" * 12, b"w" * 48),))
    huge = [
        encode_record("", f"N{i}", version=1, modified=1, nonce=b"n" * 12, sealed=bytes(2 * 1024 * 1024))
        for i in range(33)
    ]
    with pytest.raises(Malformed, match="would grow"):
        encode(header, huge, MAC_KEY)
