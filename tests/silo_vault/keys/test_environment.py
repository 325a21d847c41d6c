import base64
import os
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_vault import EnvironmentKey, KeyUnavailable, VaultLocked
from silo_vault.crypto import Argon2Cost

RAW = bytes(range(224, 256))  # its base64 has digits in which the two alphabets differ
VAULT_ID = b"v" * 16
DEK = b"d" * 32
CHEAP = Argon2Cost(t=1, m_kib=64, p=1)


def wrap(text: str | None):
    return EnvironmentKey(text, cost=CHEAP).wrap(DEK, vault_id=VAULT_ID, random=os.urandom)


def unwrap(text: str | None, wrapped) -> bytes:
    return EnvironmentKey(text).unwrap(wrapped, vault_id=VAULT_ID)


SPELLINGS = [
    RAW.hex(),
    RAW.hex().upper(),
    base64.b64encode(RAW).decode(),
    base64.b64encode(RAW).decode().rstrip("="),
    base64.urlsafe_b64encode(RAW).decode(),
    base64.urlsafe_b64encode(RAW).decode().rstrip("="),
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_of_32_bytes_is_the_same_key_and_needs_no_stretching(text):
    wrapped = wrap(text)
    assert wrapped.kdf is None
    assert all(unwrap(other, wrapped) == DEK for other in SPELLINGS)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "correct horse battery staple",
        RAW[:31].hex(),
        (RAW + b"\0").hex(),
        base64.b64encode(RAW[:31]).decode(),
        base64.b64encode(RAW + b"\0").decode(),
        RAW.hex()[:-1],
        "0x" + RAW.hex(),
        "+" * 21 + "-" * 22,  # two alphabets in one
        base64.b64encode(RAW).decode()[:-2] + "z=",  # unused bits are set
        "пароль на русском",
    ],
)
def test_anything_else_is_a_passphrase_and_is_stretched(text):
    wrapped = wrap(text)
    assert wrapped.kdf is not None
    assert (len(wrapped.kdf.salt), wrapped.kdf.cost) == (16, CHEAP)
    assert unwrap(text, wrapped) == DEK


@pytest.mark.parametrize(
    "text", ["", " ", "\t\n", RAW.hex() + "\n", " " + RAW.hex(), "pass\nphrase", "pass\0phrase", "\udcff"]
)
def test_an_empty_key_or_one_with_stray_white_space_is_an_error(text):
    """Otherwise a trailing newline would turn a key into a passphrase, and an empty one would mean no encryption."""
    with pytest.raises(VaultLocked) as caught:
        wrap(text)
    assert not isinstance(caught.value, KeyUnavailable)
    assert RAW.hex() not in caught.value.message + caught.value.hint


def test_a_variable_that_is_not_set_is_unavailable_and_not_wrong():
    with pytest.raises(KeyUnavailable):
        wrap(None)


def test_the_default_cost_is_the_second_recommended_option_of_rfc_9106():
    wrapped = EnvironmentKey("a passphrase").wrap(DEK, vault_id=VAULT_ID, random=os.urandom)
    assert wrapped.kdf.cost == Argon2Cost(t=3, m_kib=64 * 1024, p=4)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_another_key_or_another_vault_opens_nothing(key, other):
    wrapped = wrap(key.hex())
    assert unwrap(key.hex(), wrapped) == DEK
    if other != key:
        with pytest.raises(VaultLocked):
            unwrap(other.hex(), wrapped)
    with pytest.raises(VaultLocked):
        EnvironmentKey(key.hex()).unwrap(wrapped, vault_id=b"w" * 16)


def test_neither_repr_nor_error_shows_the_key():
    key = EnvironmentKey(RAW.hex())
    assert RAW.hex() not in repr(key)
    with pytest.raises(VaultLocked) as caught:
        key.unwrap(wrap("ff" * 32), vault_id=VAULT_ID)
    assert RAW.hex() not in "".join(traceback.format_exception(caught.value, limit=0)) + caught.value.hint


def test_the_error_for_a_wrong_key_tells_the_two_apart_by_id():
    right, wrong = wrap(RAW.hex()), wrap("ff" * 32)
    with pytest.raises(VaultLocked) as caught:
        unwrap(RAW.hex(), wrong)
    assert wrong.key_id.hex() in caught.value.hint
    assert right.key_id.hex() in caught.value.hint
