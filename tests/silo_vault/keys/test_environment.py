import base64
import os
import traceback
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_vault import EnvironmentKey, KeyUnavailable, PassphraseKey, VaultLocked
from silo_vault.crypto import Argon2Cost
from silo_vault.keys.texts import nearly_key, refusal

RAW = bytes(range(224, 256))  # its base64 has digits in which the two alphabets differ
MIXED = b"\xff" * 6 + bytes(range(26))
PHRASE = "five random words in order"
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
    "text", ["correct horse battery staple", "пароль на русском", "x7!Kq0#vLm2p", "\N{HOT BEVERAGE}" + PHRASE]
)
def test_anything_else_is_a_passphrase_and_is_stretched(text):
    wrapped = wrap(text)
    assert wrapped.kdf is not None
    assert (len(wrapped.kdf.salt), wrapped.kdf.cost) == (16, CHEAP)
    assert unwrap(text, wrapped) == DEK


NEARLY_KEYS = [
    (RAW.hex()[:-1], "has 63 hex digits"),
    (RAW.hex() + "0", "has 65 hex digits"),
    (RAW[:31].hex(), "has 62 hex digits"),
    (RAW[:16].hex(), "has 32 hex digits"),
    ("0x" + RAW.hex(), "starts with 0x"),
    ("0X" + RAW.hex(), "starts with 0X"),
    ("".join(f"\\x{octet:02x}" for octet in RAW), r"starts with \\x"),
    (RAW.hex(":"), "other characters between its 64 hex digits"),
    (RAW.hex(" "), "other characters between"),
    (RAW.hex("-", 4), "other characters between"),
    ("123e4567-e89b-12d3-a456-426614174000", "other characters between its 32 hex digits"),
    (f'"{RAW.hex()}"', "quotation marks"),
    (f"'{RAW.hex()}'", "quotation marks"),
    (f'"{RAW.hex()}', "quotation marks"),
    (f"\u201c{RAW.hex()}\u201d", "quotation marks"),
    ('"correct horse battery staple"', "quotation marks"),
    (base64.b64encode(RAW[:31]).decode(), "has 42 base64 digits"),
    (base64.b64encode(RAW + b"\0").decode(), "has 44 base64 digits"),
    (base64.b64encode(RAW[:16]).decode(), "has 22 base64 digits"),
    (base64.b64encode(RAW[:24]).decode(), "has 32 base64 digits"),
    (base64.b64encode(RAW * 2).decode(), "has 86 base64 digits"),
    (base64.b64encode(RAW).decode() + "=", "is not 32 bytes in base64"),
    (base64.b64encode(RAW).decode()[:-2] + "z=", "its last digit is wrong"),
    (base64.b64encode(MIXED).decode().replace("/", "_", 1), "it mixes two alphabets"),
    (f"SILO_MASTER_KEY={RAW.hex()}", "the name of a variable"),
    (f"export SILO_MASTER_KEY={RAW.hex()}", "the name of a variable"),
    ("$(openssl rand -hex 32)", "expression of a shell"),
    ("${SILO_MASTER_KEY}", "expression of a shell"),
    ("`cat key.txt`", "quotation marks"),
    ("`cat key.txt` and more", "expression of a shell"),
    ("%SILO_MASTER_KEY%", "expression of a shell"),
    ("<your key goes here>", "is a placeholder"),
    ("{{ vault.master_key }}", "is a placeholder"),
    ("/run/secrets/silo-master-key", "is a path"),
    ("file:///run/secrets/key", "is a path"),
]


@pytest.mark.parametrize(("text", "reason"), NEARLY_KEYS)
def test_what_nearly_is_a_key_is_refused_with_the_reason_and_never_shown(text, reason):
    """Past bug: 63 hex digits became a passphrase in silence."""
    with pytest.raises(VaultLocked, match=reason) as caught:
        wrap(text)
    assert not isinstance(caught.value, KeyUnavailable)  # after which another key would lock the vault
    assert text not in caught.value.message + caught.value.hint
    assert "openssl rand -hex 32" in caught.value.hint


GUESSABLE = [
    *("x", "secret", "hunter2", "12345678901", "elevenchars"),
    *("zzzzzzzzzzzzzzzzzzzz", "abcdefghijklmnop", "xyzxyzxyzxyz", "123456789012", "passwordpassword"),
    *("Password1234", "changemechangeme", "qwertyuiop123456", "silo-master-key-test"),
]


@pytest.mark.parametrize("text", GUESSABLE)
def test_a_passphrase_that_is_easy_to_guess_is_refused(text):
    """Past bug: `SILO_MASTER_KEY=x` locked a vault."""
    for provider in (EnvironmentKey(text, cost=CHEAP), PassphraseKey(lambda: text, cost=CHEAP)):
        with pytest.raises(VaultLocked, match=r"has [0-9]+ characters?,|different characters") as caught:
            provider.wrap(DEK, vault_id=VAULT_ID, random=os.urandom)
        assert len(text) < 7 or text not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("text", ["x", "hunter2", *(text for text, _ in NEARLY_KEYS)])
def test_a_vault_that_was_locked_with_such_a_text_opens_and_keeps_it_in_a_rotation(text):
    provider = EnvironmentKey(text, cost=CHEAP)
    wrapped = provider.wrap(DEK, vault_id=VAULT_ID, random=os.urandom, is_new=False)
    assert wrapped.kdf is not None
    assert unwrap(text, wrapped) == DEK


@given(st.binary(min_size=32, max_size=32), st.integers(0, 63))
def test_a_key_in_hex_that_lost_or_gained_a_digit_never_becomes_a_passphrase(key, place):
    text = key.hex()
    for changed in (text[:place] + text[place + 1 :], text[:place] + text[place] + text[place:]):
        assert "hex digits" in refusal(changed)


def test_nearly_no_key_in_base64_that_lost_or_gained_a_digit_becomes_a_passphrase():
    """Nothing tells base64 from a passphrase for certain; 1 in 100 may pass."""
    random = Random(1)
    passed = 0
    for _ in range(1000):
        text = base64.urlsafe_b64encode(random.randbytes(32)).decode().rstrip("=")
        place = random.randrange(43)
        for changed in (text[:place] + text[place + 1 :], text[:place] + text[place] + text[place:]):
            passed += refusal(changed) is None
    assert passed <= 20


@given(
    st.lists(st.text("abcdefghijklmnopqrstuvwxyz", min_size=4, max_size=9), min_size=5, max_size=8),
    st.sampled_from(" -_."),
)
def test_five_words_are_never_taken_for_a_key(words, separator):
    assert nearly_key(separator.join(words)) is None or set("".join(words)) <= set("abcdef")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        ("\t\n", "is empty"),
        ("\ufeff", "is empty"),
        ("\ufeff" + RAW.hex(), "byte order mark"),
        (RAW.hex() + "\n", "ends with a line break"),
        (RAW.hex() + "\r\n", "ends with a line break"),
        (" " + RAW.hex(), "starts or ends with white space"),
        (RAW.hex() + "\u00a0", "starts or ends with white space"),
        (RAW.hex()[:9] + "\u200b" + RAW.hex()[9:], r"invisible character \(U\+200B\)"),
        ("pass\nphrase", r"invisible character \(U\+000A\)"),
        ("pass\0phrase", "invisible character"),
        ("\udcff", "invisible character"),
    ],
)
def test_an_empty_key_or_one_with_stray_characters_is_an_error_that_names_them(text, reason):
    """Otherwise a trailing newline would turn a key into a passphrase, and an empty one would mean no encryption."""
    with pytest.raises(VaultLocked, match=reason) as caught:
        wrap(text)
    assert not isinstance(caught.value, KeyUnavailable)
    assert RAW.hex() not in caught.value.message + caught.value.hint


def test_a_variable_that_is_not_set_is_unavailable_and_not_wrong():
    with pytest.raises(KeyUnavailable):
        wrap(None)


def test_the_default_cost_is_the_second_recommended_option_of_rfc_9106():
    wrapped = EnvironmentKey(PHRASE).wrap(DEK, vault_id=VAULT_ID, random=os.urandom)
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
