"""Makes the golden files beside this script, once for each version of the format: `make_golden.py FOLDER`.

A golden file never changes: later versions of silo must open the good ones and refuse the bad ones as they are. The
script stays to show how they were made, and as a base for the next version. The same code gives the same bytes.
"""

import base64
import hashlib
import struct
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from silo_vault import EnvironmentKey, KeyProvider, KeyringKey, PassphraseKey, Vault
from silo_vault.crypto import Argon2Cost
from silo_vault.format import (
    Argon2,
    TransitWrap,
    UnknownWrap,
    Wrap,
    decode,
    decode_header,
    encode,
    encode_record,
    transit_key_id,
)

RAW_KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
PASSPHRASE = "correct horse battery staple"
SECRETS = {"API_KEY": "sk-golden-0123456789", "GITHUB_TOKEN": "ghp_golden_0123456789", "UNICODE": "Grüße, мир"}


class Counter:
    """Random bytes that are the same in each run."""

    def __init__(self, seed: str) -> None:
        self._seed, self._calls = seed, 0

    def __call__(self, size: int) -> bytes:
        self._calls += 1
        return hashlib.shake_128(f"{self._seed} {self._calls}".encode()).digest(size)


class MemoryStore:
    """A keyring in memory. `test_golden.py` fills one with the entry from `v1-keyring.txt`."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.entries[service, username]


class Server:
    """Replaces a transit engine. Only this object opens what it wrapped; the file has the form of a real ciphertext."""

    kind = "transit"
    label = "a transit key"
    recheck_s = None

    def __init__(self) -> None:
        self.dek = b""

    def wrap(self, dek: bytes, *, vault_id: bytes, random: Counter) -> TransitWrap:
        self.dek = dek
        ciphertext = f"vault:v1:{base64.b64encode(random(60)).decode()}"
        return TransitWrap(transit_key_id("transit", "silo"), "transit", "silo", ciphertext)

    def unwrap(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> bytes:
        return self.dek

    def retire(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> None: ...

    def forget(self) -> None: ...


def make_several() -> bytes:
    """A vault with three keys and one of an unknown kind, with a secret of a skill and a decoy."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "credentials.silo"
        vault = Vault(path, [EnvironmentKey(RAW_KEY)], random=Counter("several"), clock=lambda: 1_795_255_200.0)
        vault.put_all({("", "API_KEY"): SECRETS["API_KEY"], ("jwt", "API_KEY"): "for jwt alone"})
        vault.add_canary("DECOY", "a decoy that nobody is given")
        vault.rekey(add=[PassphraseKey(lambda: PASSPHRASE, cost=Argon2Cost(t=2, m_kib=1024, p=2)), Server()])
        document, keys = vault._authentic(path.read_bytes())
        unknown = UnknownWrap("yubikey", b'{"kind":"yubikey","slots":[9,{"pin":true}]}')
        header = replace(document.header, wraps=(*document.header.wraps, unknown))
        return encode(header, document.records, keys.mac)


def make(seed: str, provider: KeyProvider) -> tuple[Vault, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        vault = Vault(
            Path(folder) / "credentials.silo", [provider], random=Counter(seed), clock=lambda: 1_795_255_200.0
        )
        for name, value in SECRETS.items():
            vault.put(name, value)
        return vault, vault.path.read_bytes()


def with_header(data: bytes, old: bytes, new: bytes) -> bytes:
    """The file with a part of its JSON header replaced, and the length of the header corrected."""
    _, end, _ = decode_header(data)
    text = data[14:end]
    assert old in text
    text = text.replace(old, new)
    return data[:10] + struct.pack(">I", len(text)) + text + data[end:]


def main(folder: Path) -> None:
    vault, raw = make("raw", EnvironmentKey(RAW_KEY))
    _, other = make("other", EnvironmentKey(RAW_KEY))
    _, phrase = make("passphrase", EnvironmentKey(PASSPHRASE, cost=Argon2Cost(t=2, m_kib=1024, p=2)))
    store = MemoryStore()
    _, ring = make("keyring", KeyringKey(store))

    document, keys = vault._authentic(raw)
    first, second, third = document.records
    foreign = decode(other).records[0]
    as_if = {"version": first.version, "modified": first.modified}
    exchanged = [
        encode_record("", first.name, **as_if, nonce=second.nonce, sealed=second.sealed),
        encode_record("", second.name, version=second.version, modified=1, nonce=first.nonce, sealed=first.sealed),
        third,
    ]
    header, end, _ = decode_header(raw)
    [wrap] = decode(phrase).header.wraps
    assert isinstance(wrap.kdf, Argon2)
    salt = wrap.kdf.salt.hex().encode()

    def records_as(*records: bytes) -> bytes:
        """The file with these records between its old header and its old MAC."""
        body = b"".join(struct.pack(">I", len(record)) + record for record in records)
        return raw[:end] + struct.pack(">I", len(records)) + body + raw[-32:]

    files = {
        "v1-raw-key": raw,
        "v1-passphrase": phrase,
        "v1-keyring": ring,
        "v1-several-keys": make_several(),
        "bad-empty": b"",
        "bad-not-a-vault": b"API_KEY=sk-golden-0123456789\n",
        "bad-magic": b"Silo-vlt" + raw[8:],
        "bad-version-2": raw[:8] + b"\0\2" + raw[10:],
        "bad-header-cut-short": raw[:100],
        "bad-header-longer-than-file": raw[:10] + b"\0\0\xff\xff" + raw[14:],
        "bad-header-with-spaces": with_header(raw, b'"generation":3', b'"generation": 3'),
        "bad-header-unknown-field": with_header(raw, b'"generation":3', b'"deny":[],"generation":3'),
        "bad-header-generation-raised": with_header(raw, b'"generation":3', b'"generation":4'),
        "bad-header-of-another-vault": decode(other).head + raw[end:],
        "bad-kdf-4-gib": with_header(phrase, b'"m_kib":1024', b'"m_kib":4194304'),
        "bad-kdf-passes": with_header(phrase, b'"t":2', b'"t":2147483648'),
        "bad-kdf-empty-salt": with_header(phrase, b'"salt":"' + salt, b'"salt":"'),
        "bad-kdf-unknown": with_header(phrase, b"argon2id", b"sha256"),
        "bad-kdf-cheaper": with_header(phrase, b'"m_kib":1024', b'"m_kib":512'),
        "bad-wrap-changed": with_header(raw, header.wraps[0].wrapped_dek.hex().encode(), b"00" * 48),
        "bad-record-cut-short": raw[:-60],
        "bad-record-dropped": records_as(first.encoded, third.encoded),
        "bad-records-out-of-order": records_as(second.encoded, first.encoded, third.encoded),
        "bad-record-twice": records_as(first.encoded, first.encoded, second.encoded, third.encoded),
        "bad-record-of-another-vault": encode(header, [foreign, second, third], keys.mac),
        "bad-values-exchanged": encode(header, exchanged, keys.mac),
        "bad-code-zero": raw[:-32] + bytes(32),
        "bad-byte-appended": raw + b"\0",
        "bad-generation-zero": encode(replace(header, generation=0), document.records, keys.mac),
    }
    for name, data in files.items():
        (folder / f"{name}.vault").write_bytes(data)
    [((service, username), key)] = store.entries.items()
    (folder / "v1-keyring.txt").write_text(f"{service}\n{username}\n{key}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
