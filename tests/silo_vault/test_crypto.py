import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_vault.crypto import (
    KEY_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    Argon2Cost,
    Unauthentic,
    derive,
    join,
    seal,
    stretch,
    unseal,
)

KEY = bytes(range(KEY_BYTES))
NONCE = bytes(range(NONCE_BYTES))


def test_sealing_is_aes_256_gcm():
    """The Galois/Counter Mode of Operation (McGrew, Viega), appendix B, test case 16."""
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    plaintext = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    context = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    sealed = seal(key, bytes.fromhex("cafebabefacedbaddecaf888"), plaintext, context)
    assert sealed.hex() == (
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    )


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_what_was_sealed_opens_and_is_longer_by_the_tag(plaintext, context):
    sealed = seal(KEY, NONCE, plaintext, context)
    assert len(sealed) == len(plaintext) + TAG_BYTES
    assert unseal(KEY, NONCE, sealed, context) == plaintext


@given(st.binary(min_size=1, max_size=40), st.data())
def test_one_changed_bit_anywhere_is_detected(plaintext, data):
    parts = [KEY, NONCE, seal(KEY, NONCE, plaintext, b"context"), b"context"]
    which = data.draw(st.integers(0, 3))
    bit = data.draw(st.integers(0, 8 * len(parts[which]) - 1))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << (bit % 8)
    parts[which] = bytes(changed)
    with pytest.raises(Unauthentic):
        unseal(*parts)


@given(st.lists(st.binary(max_size=6), max_size=5), st.lists(st.binary(max_size=6), max_size=5))
def test_two_lists_of_parts_never_join_to_the_same_bytes(left, right):
    assert (join(*left) == join(*right)) == (left == right)


def test_keys_for_different_purposes_vaults_or_keys_differ():
    vault = os.urandom(16)
    keys = {
        derive(KEY, vault_id=vault, purpose="records"),
        derive(KEY, vault_id=vault, purpose="file mac"),
        derive(KEY, vault_id=bytes(16), purpose="records"),
        derive(bytes(32), vault_id=vault, purpose="records"),
    }
    assert len(keys) == 4


def test_stretching_is_argon2id_version_19():
    """From `src/test.c` of the reference implementation (phc-winner-argon2)."""
    key = stretch(b"password", salt=b"somesalt", cost=Argon2Cost(t=2, m_kib=65536, p=1))
    assert key.hex() == "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"
