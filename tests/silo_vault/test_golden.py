"""Files that every version of silo must open, and files that every version must refuse. They never change."""

import hashlib
import hmac
import json
import struct
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from silo_vault import EnvironmentKey, KeyringKey, PassphraseKey, Vault, VaultDamaged, VaultError, VaultLocked
from silo_vault.format import decode

GOLDEN = Path(__file__).with_name("golden")
RAW_KEY = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
PASSPHRASE = "correct horse battery staple"
SECRETS = {"API_KEY": "sk-golden-0123456789", "GITHUB_TOKEN": "ghp_golden_0123456789", "UNICODE": "Grüße, мир"}

REFUSED: dict[str, tuple[type[VaultError], str]] = {
    "bad-empty": (VaultDamaged, "an empty file is not an empty vault"),
    "bad-not-a-vault": (VaultDamaged, "is not a vault"),
    "bad-magic": (VaultDamaged, "is not a vault"),
    "bad-version-2": (VaultDamaged, "format version 2"),
    "bad-header-cut-short": (VaultDamaged, "its header is longer"),
    "bad-header-longer-than-file": (VaultDamaged, "its header is longer"),
    "bad-header-with-spaces": (VaultDamaged, "one form"),
    "bad-header-unknown-field": (VaultDamaged, "'deny'"),
    "bad-header-generation-raised": (VaultLocked, "the file was changed"),
    "bad-header-of-another-vault": (VaultLocked, "the file was changed"),
    "bad-kdf-4-gib": (VaultDamaged, "'m_kib'"),
    "bad-kdf-passes": (VaultDamaged, "'t'"),
    "bad-kdf-empty-salt": (VaultDamaged, "'salt'"),
    "bad-kdf-unknown": (VaultDamaged, "unknown key derivation"),
    "bad-kdf-cheaper": (VaultLocked, "the key is wrong"),
    "bad-wrap-changed": (VaultLocked, "the key is wrong"),
    "bad-record-cut-short": (VaultDamaged, "within a record"),
    "bad-record-dropped": (VaultLocked, "the file was changed"),
    "bad-records-out-of-order": (VaultDamaged, "out of order"),
    "bad-record-twice": (VaultDamaged, "out of order"),
    "bad-record-of-another-vault": (VaultLocked, "the file was changed"),
    "bad-values-exchanged": (VaultLocked, "the file was changed"),
    "bad-code-zero": (VaultLocked, "the file was changed"),
    "bad-byte-appended": (VaultDamaged, "after its last record"),
    "bad-generation-zero": (VaultDamaged, "'generation'"),
}


class RecordedStore:
    """A keyring with the entry of `v1-keyring.vault`."""

    def get_password(self, service: str, username: str) -> str | None:
        recorded = (GOLDEN / "v1-keyring.txt").read_text().splitlines()
        return recorded[2] if [service, username] == recorded[:2] else None

    def set_password(self, service: str, username: str, password: str) -> None:
        raise AssertionError("opening a vault must not write to the keyring")


def put_in_place(name: str, path: Path) -> None:
    path.touch(mode=0o600)
    path.write_bytes((GOLDEN / f"{name}.vault").read_bytes())


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("v1-raw-key", EnvironmentKey(RAW_KEY)),
        ("v1-passphrase", EnvironmentKey(PASSPHRASE)),
        ("v1-keyring", KeyringKey(RecordedStore())),
    ],
)
def test_a_good_file_opens_and_can_be_written(path, name, provider):
    put_in_place(name, path)
    vault = Vault(path, [provider])
    assert {each: vault.get(each).reveal() for each in vault.names()} == SECRETS
    assert (vault.status().generation, vault.status().created) == (3, "2026-11-21T10:00:00Z")
    vault.put("NEW", "value")
    assert vault.names() == ("API_KEY", "GITHUB_TOKEN", "NEW", "UNICODE")


@pytest.mark.parametrize("provider", [EnvironmentKey(RAW_KEY), PassphraseKey(lambda: PASSPHRASE)])
def test_a_file_with_several_keys_opens_with_each_and_keeps_those_that_are_not_known(path, provider):
    put_in_place("v1-several-keys", path)
    vault = Vault(path, [provider])
    assert {place: secret.reveal() for place, secret in vault.get_all().items()} == {
        ("", "API_KEY"): SECRETS["API_KEY"],
        ("jwt", "API_KEY"): "for jwt alone",
    }
    assert vault.canaries()["DECOY"].reveal() == "a decoy that nobody is given"
    kinds = [slot.kind for slot in vault.status().keys]
    assert kinds == ["env", "passphrase", "transit", "yubikey"]
    before = decode(path.read_bytes()).header.wraps
    vault.put("NEW", "value")
    assert decode(path.read_bytes()).header.wraps == before


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_file_is_refused_quickly_and_stays_as_it_is(path, name):
    put_in_place(name, path)
    before = path.read_bytes()
    key = PASSPHRASE if "kdf" in name else RAW_KEY
    kind, message = REFUSED[name]
    began = time.thread_time()
    for attempt in (
        lambda vault: [vault.get(each) for each in vault.names()],
        lambda vault: (vault.get("API_KEY"), vault.put("API_KEY", "x")),
    ):
        with pytest.raises(kind) as caught:
            attempt(Vault(path, [EnvironmentKey(key)]))
        assert message in caught.value.message
        assert str(path) in caught.value.message
    assert time.thread_time() - began < 20.0  # much less than what 4 GiB or 2^31 passes would take
    assert path.read_bytes() == before


def test_what_the_page_about_the_format_says_is_enough_to_read_a_file():
    """A second reader, written from `docs/reference/vault-format.md` without any code of `silo_vault`."""
    data = (GOLDEN / "v1-raw-key.vault").read_bytes()
    magic, version, length = struct.unpack_from(">8sHI", data)
    assert (magic, version) == (b"silo-vlt", 1)
    head, rest = data[: 14 + length], data[14 + length : -32]
    header = json.loads(head[14:])
    vault_id = bytes.fromhex(header["vault_id"])

    def join(*parts: bytes) -> bytes:
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    def hkdf(key: bytes, purpose: bytes) -> bytes:
        extracted = hmac.digest(vault_id, key, "sha256")
        return hmac.digest(extracted, b"silo-vault v1 " + purpose + b"\x01", "sha256")

    [wrap] = header["wraps"]
    kek = bytes.fromhex(RAW_KEY)
    key_id = hkdf(kek, b"key id")[:8]
    assert key_id.hex() == wrap["key_id"]
    context = join(b"silo-wrap-v1", vault_id, b"env", key_id, b'{"name":"none"}')
    dek = AESGCM(hkdf(kek, b"wrap")).decrypt(bytes.fromhex(wrap["nonce"]), bytes.fromhex(wrap["wrapped_dek"]), context)

    (count,), position = struct.unpack_from(">I", rest), 4
    digests, found = b"", {}
    for _ in range(count):
        (size,) = struct.unpack_from(">I", rest, position)
        record = rest[position + 4 : position + 4 + size]
        position += 4 + size
        digests += hashlib.sha256(record).digest()
        namespace_size = int.from_bytes(record[:2], "big")
        namespace, record = record[2 : 2 + namespace_size], record[2 + namespace_size :]
        name_size = int.from_bytes(record[:2], "big")
        name, record = record[2 : 2 + name_size], record[2 + name_size :]
        stamp, nonce, sealed = record[:8], record[16:28], record[28:]
        context = join(b"silo-rec-v1", vault_id, namespace, name, stamp)
        found[name.decode()] = AESGCM(hkdf(dek, b"records")).decrypt(nonce, sealed, context).decode()
    assert found == SECRETS
    assert position == len(rest)
    assert data[-32:] == hmac.digest(hkdf(dek, b"file mac"), join(b"silo-mac-v1", head, digests), "sha256")


def test_no_golden_file_is_left_out():
    good = {"v1-raw-key", "v1-passphrase", "v1-keyring", "v1-several-keys"}
    assert {file.stem for file in GOLDEN.glob("*.vault")} == good | REFUSED.keys()
