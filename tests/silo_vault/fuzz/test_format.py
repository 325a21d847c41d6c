"""Gives the parser random input that resembles a vault: changed good files, odd headers, odd records.

Each test has a fixed number of examples, which take some seconds in total. `atheris_format.py` can run without end.
"""

import json
import struct
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

GOLDEN = {file.name: file.read_bytes() for file in sorted(Path(__file__).parent.with_name("golden").glob("*.vault"))}
RAW = GOLDEN["v1-raw-key.vault"]
HEADER_END = 14 + int.from_bytes(RAW[10:14], "big")
MAX_INPUT_BYTES = 64 * 1024

fuzzed = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# --- changed files ----------------------------------------------------------------------------------------------------

odd_bytes = st.sampled_from(
    [struct.pack(">H", value) for value in (0, 1, 65535)]
    + [struct.pack(">I", value) for value in (0, 1, 49, 2**31, 2**32 - 1)]
) | st.binary(max_size=6)
places = st.floats(0, 1, exclude_max=True)  # a fraction of the size, so that it stays valid when a file shrinks
edits = st.lists(
    st.tuples(
        st.sampled_from(["overwrite", "insert", "delete", "repeat", "flip"]), places, st.integers(1, 200), odd_bytes
    ),
    max_size=4,
)


def _edited(data: bytes, changes: Iterable[tuple[str, float, int, bytes]]) -> bytes:
    for how, place, size, new in changes:
        at = int(place * len(data))
        piece = data[at : at + size]
        data = {
            "overwrite": data[:at] + new + data[at + len(new) :],
            "insert": data[:at] + new + data[at:],
            "delete": data[:at] + data[at + size :],
            "repeat": data[:at] + piece + data[at:],
            "flip": data[:at] + bytes(byte ^ 1 << size % 8 for byte in piece[:1]) + data[at + 1 :],
        }[how]
    return data[:MAX_INPUT_BYTES]


@fuzzed
@given(st.sampled_from(sorted(GOLDEN)), edits, st.sampled_from(sorted(GOLDEN)), places)
def test_a_changed_file_is_refused_or_has_its_one_encoding(check, name, changes, other, place):
    data = _edited(GOLDEN[name], changes)
    spliced = data[: int(place * len(data))] + GOLDEN[other][int(place * len(GOLDEN[other])) :]
    for one in (data, spliced):
        event("refused" if check(one) is None else "accepted")


# --- odd headers ------------------------------------------------------------------------------------------------------
# They are built as text, because `json.dumps` can't produce the spellings that matter here.


def _object(fields: dict[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(key)}:{fields[key]}" for key in sorted(fields)) + "}"


def _array(items: list[str]) -> str:
    return "[" + ",".join(items) + "]"


HEADER = RAW[14:HEADER_END].decode()


def _with_wrap(inner: str) -> bytes:
    return HEADER.replace('"wraps":[', f'"wraps":[{{"a":{inner},"kind":"new"}},').encode()


names = st.sampled_from(["kind", "kdf", "name", "a", "ä", "\ud800", ""]) | st.text(max_size=4)
plain = st.one_of(
    st.sampled_from(["null", "true", "0", "-1", "9" * 19, '""', '"\\ud800"', '"\\u007f"', '"\\u0000"', "[]", "{}"]),
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.text(max_size=6).map(json.dumps),
)
odd = st.one_of(
    st.sampled_from(["-0", "1.0", "0.1", "1e5", "1e400", "-1e999", "NaN", "Infinity", "9" * 20, "9" * 640, "9" * 4400]),
    st.sampled_from(['"\\/"', '"\\u00E4"', '"\\udc00\\ud800"', "[" * 990 + "]" * 990]),
    st.floats().map(json.dumps),
    st.integers(2, 2000).map(lambda depth: "[" * depth + "]" * depth),
)
values = st.recursive(
    st.one_of(*[plain] * 6, odd),
    lambda inner: st.lists(inner, max_size=4).map(_array) | st.dictionaries(names, inner, max_size=4).map(_object),
    max_leaves=4,
)


def _hex(size: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=size, max_size=size).map(lambda octets: f'"{octets.hex()}"')


def _fields(**good: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Objects with these fields. Usually all are good; sometimes one is odd, missing or renamed."""
    other = st.dictionaries(st.sampled_from(sorted(good)) | names, odd | values, min_size=1, max_size=1)
    whole = st.fixed_dictionaries(good)
    less = st.builds(
        lambda fields, gone: {key: fields[key] for key in fields if key != gone}, whole, st.sampled_from(sorted(good))
    )
    more = st.builds(lambda fields, changed: fields | changed, whole, other)
    return st.one_of(*[whole] * 10, more, less).map(_object)


def _number(least: int, most: int) -> st.SearchStrategy[str]:
    return st.integers(least, most).map(str)


kdfs = st.just('{"name":"none"}') | _fields(
    m_kib=_number(128, 2**20), name=st.just('"argon2id"'), p=_number(1, 16), salt=_hex(16), t=_number(1, 16)
)
plain_wraps = _fields(
    kdf=kdfs,
    key_id=_hex(8),
    kind=st.sampled_from(['"env"', '"keyring"', '"kv"', '"passphrase"']),
    nonce=_hex(12),
    wrapped_dek=_hex(48),
)
transit_wraps = _fields(
    ciphertext=st.sampled_from(["A", "a/+", "=="]).map(lambda end: f'"vault:v1:{"A" * 80}{end}"'),
    key=st.just('"silo"'),
    key_id=_hex(8),
    kind=st.just('"transit"'),
    mount=st.sampled_from(['"transit"', '"eu/transit"', '"a/b/c"', '"a//b"']),
)
foreign_wraps = st.builds(
    lambda fields, kind: _object({**fields, "kind": kind}),
    st.dictionaries(names, values, max_size=3),
    st.sampled_from(['"new"', '"a-b"', '"a"']),
)
headers = _fields(
    created=st.just('"2026-11-21T10:00:00Z"'),
    generation=_number(1, 2**63 - 1),
    seals=_number(0, 2**32),
    vault_id=_hex(16),
    wraps=st.lists(st.one_of(*[plain_wraps, transit_wraps, foreign_wraps] * 4, values), min_size=1, max_size=3).map(
        _array
    ),
)


@fuzzed
@given(headers)
def test_an_odd_header_is_refused_or_has_its_one_encoding(check, oracle, header):
    document = check(oracle.framed(header.encode()))
    event("refused" if document is None else "accepted")


@fuzzed
@given(odd | values)
def test_an_odd_value_in_an_unknown_kind_of_wrap_is_refused_or_kept(check, oracle, value):
    """Past bug: a number too large for a float became infinity, and writing that raised a ValueError."""
    document = check(oracle.framed(_with_wrap(value)))
    event("refused" if document is None else "accepted")


# --- odd records ------------------------------------------------------------------------------------------------------

texts = st.sampled_from([b"", b"A", b"B", b"jwt", "\uffff".encode(), "\U00010000".encode(), b"\xed\xa0\x80", b"\xff"])
off_by = st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -1, 1, 17, 2**15])


def _record(namespace: bytes, name: bytes, rest: int, wrong: tuple[int, int, int]) -> bytes:
    sizes = [(len(text) + off) % 2**16 for text, off in zip((namespace, name), wrong, strict=False)]
    encoded = sizes[0].to_bytes(2, "big") + namespace + sizes[1].to_bytes(2, "big") + name + bytes(rest)
    return ((len(encoded) + wrong[2]) % 2**32).to_bytes(4, "big") + encoded


records = st.builds(_record, texts, texts, st.sampled_from([45, 45, 46, 300, 44, 0]), st.tuples(off_by, off_by, off_by))


@fuzzed
@given(st.lists(records, max_size=5, unique=True), st.booleans(), off_by)
def test_odd_records_are_refused_or_have_their_one_encoding(check, some, in_order, off):
    some = sorted(some, key=lambda record: record[4:]) if in_order else some
    count = ((len(some) + off) % 2**32).to_bytes(4, "big")
    document = check(RAW[:HEADER_END] + count + b"".join(some) + bytes(32))
    event("refused" if document is None else "accepted")


# --- large input ------------------------------------------------------------------------------------------------------

SPACE = MAX_INPUT_BYTES - 200 - len(HEADER)
LARGE = {
    "array-of-numbers": _with_wrap(_array(["1"] * (SPACE // 2))),
    "array-of-arrays": _with_wrap(_array(["[]"] * (SPACE // 3))),
    "array-of-objects": _with_wrap(_array(["{}"] * (SPACE // 3))),
    "object-of-many-keys": _with_wrap(_object({f"{number:x}": "1" for number in range(SPACE // 9)})),
    "integers-of-640-digits": _with_wrap(_array(["9" * 640] * (SPACE // 641))),
    "integers-of-4300-digits": _with_wrap(_array(["9" * 4300] * (SPACE // 4301))),
    "fractions": _with_wrap(_array(["0.1"] * (SPACE // 4))),
    "escapes": _with_wrap('"' + "\\u0000" * (SPACE // 6) + '"'),
    "mounts": HEADER.replace(
        '"wraps":[',
        f'"wraps":[{{"ciphertext":"","key":"{"a/" * (SPACE // 2)}",'
        f'"key_id":"{"00" * 8}","kind":"transit","mount":"a"}},',
    ).encode(),
    "many-wraps": HEADER.replace('"wraps":[', '"wraps":[' + "{}," * (SPACE // 3)).encode(),
    "quotes": b'"' * SPACE,
    "digits": b"1" * SPACE,
    "open-objects": b'{"a":' * (SPACE // 5),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_header_takes_neither_long_nor_much(check, check_memory, oracle, name):
    data = oracle.framed(LARGE[name])
    assert MAX_INPUT_BYTES // 2 < len(data) <= MAX_INPUT_BYTES
    check(data)
    check_memory(data)


@pytest.mark.parametrize("size", [53, 54, 400])
def test_many_records_take_neither_long_nor_much(check, check_memory, size):
    count = (MAX_INPUT_BYTES - HEADER_END - 36) // size
    some = [_record(b"", f"{number:04}".encode(), size - 12, (0, 0, 0)) for number in range(count)]
    data = RAW[:HEADER_END] + count.to_bytes(4, "big") + b"".join(some) + bytes(32)
    document = check(data)
    assert (document is None) == (size < 57)
    check_memory(data)
