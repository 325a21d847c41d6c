"""Encodes and decodes `credentials.silo`, format version 1. Pure: no files, keys, clock or randomness.

`docs/reference/vault-format.md` describes the format byte by byte. What is decoded here is not authenticated yet:
`silo_vault.vault` checks the MAC at the end of the file before it uses anything. So every length is checked, and
nothing is guessed. Each vault has exactly one encoding, and every other one is refused.
"""

from __future__ import annotations

import json
import re
import struct
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple, NoReturn, TypeVar

from silo_vault.crypto import KEY_BYTES, MAX_COST, MAX_SEALS, NONCE_BYTES, TAG_BYTES, Argon2Cost, digest, file_mac, join

MAGIC = b"silo-vlt"
VERSION = 1
MAC_BYTES = 32
VAULT_ID_BYTES = 16
KEY_ID_BYTES = 8
SALT_BYTES = 16
MAX_HEADER_BYTES = 64 * 1024
MAX_FILE_BYTES = 64 * 1024 * 1024
"""A vault is read as a whole, so its size is limited. This is a thousand times the size of most vaults."""
MAX_WRAPS = 16
MAX_COUNTER = 2**63 - 1
MAX_DEPTH = 16
"""Maximum nesting of a header. Version 1 needs 4 levels; the rest is for future kinds of keys."""
MAX_DIGITS = 19
"""The digits of `MAX_COUNTER`."""

_PREFIX = struct.Struct(">8sHI")
_COUNT = struct.Struct(">I")
_LENGTH = struct.Struct(">I")
_SHORT = struct.Struct(">H")
_STAMP = struct.Struct(">QQ")
_RECORD_START = struct.Struct(">IH")
_LEAST_REST_BYTES = _STAMP.size + NONCE_BYTES + TAG_BYTES + 1
"""The least size of a record after its texts, with one byte of value. An empty value is never stored."""
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}")
TRANSIT_NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
TRANSIT_CIPHERTEXT = re.compile(r"vault:v[0-9]{1,9}:[A-Za-z0-9+/]{64,1024}={0,2}")
_CREATED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


_T = TypeVar("_T")


class Malformed(Exception):
    """These bytes are not a vault of version 1. The message continues a sentence that starts with the path.

    Attributes:
        newer: whether a newer program may be able to read them.
    """

    def __init__(self, message: str, *, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer


@dataclass(frozen=True)
class Argon2:
    """How the key of a wrap is derived from a passphrase."""

    salt: bytes
    cost: Argon2Cost


@dataclass(frozen=True)
class Wrap:
    """The data key, sealed under one key that opens the vault.

    Attributes:
        kind: which provider holds that key: one of `PLAIN_KINDS`.
        key_id: identifies the key without revealing anything of it; 8 bytes.
        kdf: how the key is derived from a passphrase, or None if the key is 32 random bytes.
    """

    kind: str
    key_id: bytes
    kdf: Argon2 | None
    nonce: bytes
    wrapped_dek: bytes


@dataclass(frozen=True)
class TransitWrap:
    """The data key, encrypted by the transit engine of HashiCorp Vault or OpenBao, with a key that stays on the server.

    Attributes:
        key_id: identifies the transit key; the first 8 bytes of SHA-256 over `join(mount, key)`.
        mount: where the engine is mounted, e.g. `transit`.
        key: the name of its key.
        ciphertext: as the server returned it, e.g. `vault:v1:…`.
    """

    key_id: bytes
    mount: str
    key: str
    ciphertext: str
    kind: str = "transit"


@dataclass(frozen=True)
class UnknownWrap:
    """A wrap of a kind that this version does not know. It is kept unchanged for versions that do."""

    kind: str
    canonical: bytes


AnyWrap = Wrap | TransitWrap | UnknownWrap
PLAIN_KINDS = frozenset({"env", "keyring", "kv", "passphrase"})
KNOWN_KINDS = PLAIN_KINDS | {"transit"}


@dataclass(frozen=True)
class Header:
    """The part of a vault file that can be read without a key.

    Attributes:
        vault_id: 16 random bytes, which never change.
        generation: 1 in a new vault, incremented by each save.
        seals: how many values were sealed under the present data key.
        created: UTC, `YYYY-MM-DDTHH:MM:SSZ`.
    """

    vault_id: bytes
    generation: int
    seals: int
    created: str
    wraps: tuple[AnyWrap, ...]


class Record(NamedTuple):
    """One sealed secret, parsed lazily: a vault may have ten thousand records, and few of them are opened."""

    namespace: str
    name: str
    encoded: bytes
    digest: bytes
    """SHA-256 of `encoded`. The MAC of each file that contains this record covers it."""

    @property
    def version(self) -> int:
        """The generation of the vault in which it was sealed."""
        return self._stamp()[0]

    @property
    def modified(self) -> int:
        """When it was sealed, in seconds since 1970, UTC."""
        return self._stamp()[1]

    @property
    def nonce(self) -> bytes:
        """The nonce under which it is sealed."""
        start = self._sealed_at() - NONCE_BYTES
        return self.encoded[start : start + NONCE_BYTES]

    @property
    def sealed(self) -> bytes:
        """Ciphertext and tag."""
        return self.encoded[self._sealed_at() :]

    def _stamp(self) -> tuple[int, int]:
        version, modified = _STAMP.unpack_from(self.encoded, self._sealed_at() - NONCE_BYTES - _STAMP.size)
        return version, modified

    def _sealed_at(self) -> int:
        names = len(self.namespace.encode()) + len(self.name.encode())
        return 2 * _SHORT.size + names + _STAMP.size + NONCE_BYTES


@dataclass(frozen=True)
class Document:
    """A parsed vault file.

    Attributes:
        head: the bytes of the file before its records.
        records: in ascending order of namespace and name.
        mac: the last 32 bytes.
    """

    head: bytes
    header: Header
    records: tuple[Record, ...]
    mac: bytes

    def find(self, namespace: str, name: str) -> Record | None:
        """Return the record of a secret, or None if there is none."""
        place = (namespace, name)
        index = bisect_left(self.records, place)  # a shorter tuple sorts before a longer one with the same start
        if index < len(self.records) and self.records[index][:2] == place:
            return self.records[index]
        return None

    def expected_mac(self, key: bytes) -> bytes:
        """Return what `mac` must be if nothing was changed."""
        return file_mac(key, self.head, [record.digest for record in self.records])


def record_context(vault_id: bytes, namespace: str, name: str, version: int) -> bytes:
    """Return the context that is authenticated with a value. It then opens only in its own vault, place and version."""
    return join(b"silo-rec-v1", vault_id, namespace.encode(), name.encode(), struct.pack(">Q", version))


def wrap_context(vault_id: bytes, kind: str, key_id: bytes, kdf: Argon2 | None) -> bytes:
    """Return the context that is authenticated with the data key in a wrap."""
    return join(b"silo-wrap-v1", vault_id, kind.encode(), key_id, _canonical(_kdf_to_json(kdf)))


def transit_context(vault_id: bytes, mount: str, key: str) -> bytes:
    """Return the context that a transit engine authenticates with the data key."""
    return join(b"silo-wrap-v1", vault_id, b"transit", mount.encode(), key.encode())


def transit_key_id(mount: str, key: str) -> bytes:
    """Return the id of a transit key."""
    return digest(join(mount.encode(), key.encode()))[:KEY_ID_BYTES]


def encode_record(namespace: str, name: str, *, version: int, modified: int, nonce: bytes, sealed: bytes) -> Record:
    """Return a record; `sealed` is ciphertext and tag."""
    parts = (namespace.encode(), name.encode())
    names = b"".join(_SHORT.pack(len(part)) + part for part in parts)
    encoded = names + _STAMP.pack(version, modified) + nonce + sealed
    return Record(namespace, name, encoded, sha256(encoded).digest())


def encode(header: Header, records: Sequence[Record], mac_key: bytes) -> bytes:
    """Return the vault file with these records, which may be in any order.

    Raises:
        Malformed: the file would be larger than a reader accepts.
    """
    text = _canonical(_header_to_json(header))
    head = _PREFIX.pack(MAGIC, VERSION, len(text)) + text
    ordered = tuple(sorted(records))
    pack = _LENGTH.pack
    pieces = [head, _COUNT.pack(len(ordered))]
    for _, _, encoded, _ in ordered:
        pieces += (pack(len(encoded)), encoded)
    pieces.append(Document(head, header, ordered, b"").expected_mac(mac_key))
    data = b"".join(pieces)
    if len(text) > MAX_HEADER_BYTES or len(data) > MAX_FILE_BYTES:
        raise Malformed(f"would grow to {len(data)} bytes; {MAX_FILE_BYTES} are allowed")
    return data


def decode_header(data: bytes) -> tuple[Header, int, int]:
    """Return the header, where it ends, and how many records the file says it has.

    Raises:
        Malformed: this is not a vault, is a newer one, or has a header that an encoder would not write.
    """
    if not data.startswith(MAGIC):
        raise Malformed("is not a vault" if data else "is empty, and an empty file is not an empty vault")
    if len(data) < _PREFIX.size:
        _refuse("it ends within its first bytes")
    _, version, length = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise Malformed(f"has format version {version}, and this program knows version {VERSION} only", newer=True)
    end = _PREFIX.size + length
    if length > MAX_HEADER_BYTES or end + _COUNT.size > len(data):
        _refuse("its header is longer than it may be")
    text = data[_PREFIX.size : end]
    header = _parse_header(text)
    if _canonical(_header_to_json(header)) != text:
        _refuse("its header is not in the one form that an encoder writes")
    (count,) = _COUNT.unpack_from(data, end)
    return header, end, count


def decode(data: bytes) -> Document:
    """Parse a vault file. The caller has to check its MAC before it uses any of it.

    Raises:
        Malformed: as for `decode_header`; or the records don't fill the file exactly or are out of order.
    """
    header, end, count = decode_header(data)
    position, stop = end + _COUNT.size, len(data) - MAC_BYTES
    unpack, short = _RECORD_START.unpack_from, _SHORT.unpack_from
    make = tuple.__new__  # what `Record(…)` does, without the cost of a Python function
    records: list[Record] = []
    before: tuple[str, str] | None = None
    # One flat loop, because most of the time to open a vault is spent here. Functions would cost a third more.
    for _ in range(count):
        start = position + _LENGTH.size
        if start > stop:
            _refuse("it ends before its last record")
        length, namespace_size = unpack(data, position)  # never beyond the end: the MAC follows
        position = start + length
        if position > stop:
            _refuse("it ends within a record")
        middle = start + _SHORT.size + namespace_size
        if middle + _SHORT.size > position:
            _refuse("a record is too short")
        sealed_at = middle + _SHORT.size + short(data, middle)[0]
        if sealed_at + _LEAST_REST_BYTES > position:
            _refuse("a record is too short")
        try:
            place = data[start + _SHORT.size : middle].decode(), data[middle + _SHORT.size : sealed_at].decode()
        except UnicodeDecodeError:
            _refuse("a name in it is not UTF-8")
        if before is not None and place <= before:
            _refuse("its records are out of order")
        before = place
        encoded = data[start:position]
        records.append(make(Record, (*place, encoded, sha256(encoded).digest())))
    if position != stop:
        _refuse("it does not end after its last record")
    return Document(data[:end], header, tuple(records), data[stop:])


# --- the header as JSON -----------------------------------------------------------------------------------------------


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _header_to_json(header: Header) -> dict[str, object]:
    return {
        "created": header.created,
        "generation": header.generation,
        "seals": header.seals,
        "vault_id": header.vault_id.hex(),
        "wraps": [_wrap_to_json(wrap) for wrap in header.wraps],
    }


def _wrap_to_json(wrap: AnyWrap) -> object:
    if isinstance(wrap, UnknownWrap):
        return json.loads(wrap.canonical)
    if isinstance(wrap, TransitWrap):
        return {
            "ciphertext": wrap.ciphertext,
            "key": wrap.key,
            "key_id": wrap.key_id.hex(),
            "kind": wrap.kind,
            "mount": wrap.mount,
        }
    return {
        "kdf": _kdf_to_json(wrap.kdf),
        "key_id": wrap.key_id.hex(),
        "kind": wrap.kind,
        "nonce": wrap.nonce.hex(),
        "wrapped_dek": wrap.wrapped_dek.hex(),
    }


def _kdf_to_json(kdf: Argon2 | None) -> dict[str, object]:
    if kdf is None:
        return {"name": "none"}
    cost = kdf.cost
    return {"m_kib": cost.m_kib, "name": "argon2id", "p": cost.p, "salt": kdf.salt.hex(), "t": cost.t}


def _parse_header(text: bytes) -> Header:
    try:
        value = json.loads(
            text.decode("ascii"), parse_int=_parse_integer, parse_float=_refuse_number, parse_constant=_refuse_number
        )
    except (ValueError, RecursionError):  # RecursionError: brackets nested a thousand levels deep
        _refuse("its header is not JSON")
    _check_depth(value, MAX_DEPTH)
    fields = _Fields(value, "the header", {"created", "generation", "seals", "vault_id", "wraps"})
    wraps = fields.take("wraps", list)
    if not 1 <= len(wraps) <= MAX_WRAPS:
        _refuse(f"the header has {len(wraps)} keys")
    created = fields.take("created", str)
    if not _CREATED.fullmatch(created):
        _refuse("'created' in the header is not a time")
    return Header(
        vault_id=fields.octets("vault_id", VAULT_ID_BYTES),
        generation=fields.number("generation", 1, MAX_COUNTER),
        seals=fields.number("seals", 0, MAX_SEALS),
        created=created,
        wraps=tuple(_parse_wrap(wrap) for wrap in wraps),
    )


def _parse_integer(text: str) -> int:
    # Python has a limit too, of a few thousand digits, but the environment can change it.
    return int(text) if len(text) <= MAX_DIGITS else _refuse_number(text)


def _refuse_number(text: str) -> NoReturn:
    # A fraction has many spellings, `1e400` becomes an infinity, which can't be written again, and NaN isn't JSON.
    _refuse(f"{text[:20]!a} in its header is not an integer of at most {MAX_DIGITS} digits")


def _check_depth(value: object, levels: int) -> None:
    # Python's own limit depends on its version and on the caller, so a file might be read but not written again.
    if isinstance(value, dict | list):
        if levels == 0:
            _refuse("its header is nested too deep")
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, levels - 1)


def _parse_wrap(value: object) -> AnyWrap:
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        _refuse("a key in the header has no kind")
    if kind not in KNOWN_KINDS:
        return UnknownWrap(kind, _canonical(value))
    if kind == "transit":
        return _parse_transit(value)
    fields = _Fields(value, "a key in the header", {"kdf", "key_id", "kind", "nonce", "wrapped_dek"})
    return Wrap(
        kind=kind,
        key_id=fields.octets("key_id", KEY_ID_BYTES),
        kdf=_parse_kdf(fields.take("kdf", dict)),
        nonce=fields.octets("nonce", NONCE_BYTES),
        wrapped_dek=fields.octets("wrapped_dek", KEY_BYTES + TAG_BYTES),
    )


def _parse_transit(value: object) -> TransitWrap:
    fields = _Fields(value, "a key in the header", {"ciphertext", "key", "key_id", "kind", "mount"})
    return TransitWrap(
        key_id=fields.octets("key_id", KEY_ID_BYTES),
        mount=fields.text("mount", TRANSIT_NAME),
        key=fields.text("key", TRANSIT_NAME),
        ciphertext=fields.text("ciphertext", TRANSIT_CIPHERTEXT),
    )


def _parse_kdf(value: dict[str, Any]) -> Argon2 | None:
    if value.get("name") == "none":
        _Fields(value, "the key derivation", {"name"})
        return None
    fields = _Fields(value, "the key derivation", {"m_kib", "name", "p", "salt", "t"})
    if fields.take("name", str) != "argon2id":
        _refuse("the header names an unknown key derivation")
    p = fields.number("p", 1, MAX_COST.p)
    cost = Argon2Cost(t=fields.number("t", 1, MAX_COST.t), m_kib=fields.number("m_kib", 8 * p, MAX_COST.m_kib), p=p)
    return Argon2(fields.octets("salt", SALT_BYTES), cost)


class _Fields:
    """A JSON object that must have exactly these fields. An unknown one is refused, because it may be a restriction."""

    def __init__(self, value: object, what: str, names: set[str]) -> None:
        if not isinstance(value, dict):
            _refuse(f"{what} is not an object")
        if unknown := sorted(value.keys() - names):
            raise Malformed(f"has {unknown[0][:40]!a} in {what}, which this program does not know", newer=True)
        if missing := sorted(names - value.keys()):
            _refuse(f"{what} lacks {missing[0]!r}")
        self._value = value
        self._what = what

    def take(self, name: str, kind: type[_T]) -> _T:
        """Return the value of `name`, which must have exactly this type (`true` isn't a number)."""
        value = self._value[name]
        if type(value) is not kind:
            _refuse(f"{name!r} in {self._what} is not a {kind.__name__}")
        return value

    def number(self, name: str, least: int, most: int) -> int:
        """Return an integer between two bounds, inclusive."""
        value = self.take(name, int)
        if not least <= value <= most:
            _refuse(f"{name!r} in {self._what} is not between {least} and {most}")
        return value

    def text(self, name: str, pattern: re.Pattern[str]) -> str:
        """Return a text that must match the pattern."""
        value = self.take(name, str)
        if not pattern.fullmatch(value):
            _refuse(f"{name!r} in {self._what} is malformed")
        return value

    def octets(self, name: str, size: int) -> bytes:
        """Return the bytes of a text in hex, which must have this size."""
        text = self.take(name, str)
        if not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", text):
            _refuse(f"{name!r} in {self._what} is not {size} bytes in hex")
        return bytes.fromhex(text)


def _refuse(reason: str) -> NoReturn:
    raise Malformed(f"is damaged: {reason}")
