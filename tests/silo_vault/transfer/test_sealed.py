import json
import time

import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from silo_vault import SecretInvalid, VaultDamaged, VaultError, VaultLocked
from silo_vault.transfer import (
    Entry,
    Export,
    SourceUnreadable,
    from_plain_text,
    needs_passphrase,
    open_sealed,
    seal_to_passphrase,
    seal_to_recipients,
    to_plain_text,
)
from silo_vault.transfer import sealed as module

PASSPHRASE = "correct horse battery staple"
VAULT_ID = "000102030405060708090a0b0c0d0e0f"
EXPORT = Export(
    VAULT_ID,
    "2026-11-25T10:00:00Z",
    (
        Entry("", "API_KEY", "sk-golden-0123456789"),
        Entry("", "UNICODE", "Grüße, мир\n\u202e"),
        Entry("github", "API_KEY", "ghp_golden_0123456789"),
    ),
)

REFUSED: dict[str, tuple[type[VaultError], str]] = {
    "bad-age-v2": (VaultDamaged, "newer version"),
    "bad-armour": (VaultDamaged, "armour"),
    "bad-armour-cut-short": (SourceUnreadable, "not an age file"),
    "bad-changed": (VaultDamaged, "was changed"),
    "bad-cut-short": (VaultDamaged, "cut short"),
    "bad-header-cut-short": (VaultDamaged, "cut short"),
    "bad-empty": (SourceUnreadable, "not an age file"),
    "bad-not-age": (SourceUnreadable, "not an age file"),
    "bad-scrypt-beside-another": (VaultDamaged, "header"),
    "bad-work-factor-23": (VaultDamaged, "work factor of 23"),
    "bad-version-2": (VaultDamaged, "newer program (format version 2)"),
    "bad-version-true": (VaultDamaged, "version is not a number"),
    "bad-unknown-field": (VaultDamaged, "field that this version does not know"),
    "bad-unknown-field-of-secret": (VaultDamaged, "field that this version does not know"),
    "bad-field-missing": (VaultDamaged, "not the JSON"),
    "bad-field-gone": (VaultDamaged, "'created' is missing"),
    "bad-created": (VaultDamaged, "'created'"),
    "bad-vault-id": (VaultDamaged, "'vault_id'"),
    "bad-not-json": (VaultDamaged, "not the JSON"),
    "bad-not-an-export": (VaultDamaged, "does not say"),
    "bad-secrets-no-list": (VaultDamaged, "'secrets'"),
    "bad-secret-no-object": (VaultDamaged, "secret 1 is malformed"),
    "bad-secret-twice": (VaultDamaged, "two secrets of one name"),
    "bad-name": (VaultDamaged, "secret 1: that can't be the name"),
    "bad-namespace": (VaultDamaged, "secret 1: that can't be a namespace"),
    "bad-value-empty": (VaultDamaged, "secret 1: the value for API_KEY is empty"),
    "bad-value-number": (VaultDamaged, "secret 1 is malformed"),
    "bad-value-surrogate": (VaultDamaged, "secret 1: the value for API_KEY is not UTF-8"),
}


@pytest.fixture(scope="module")
def identity(golden) -> str:
    return (golden / "v1-recipient.identity.txt").read_text()


@pytest.fixture(scope="module")
def recipient(identity) -> str:
    return identity.splitlines()[1].removeprefix("# public key: ")


def ssh_pair(key) -> tuple[str, str]:
    """A public key as in `id.pub`, and its private key as `ssh-keygen` writes it."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public.decode() + " somebody@example.org\n", private.decode()


@pytest.mark.parametrize("name", ["v1-passphrase", "v1-passphrase-cheap", "v1-passphrase-armoured"])
def test_a_golden_file_for_a_passphrase_opens(golden, name):
    """pyrage made one of them; the second implementation in `make_golden.py` made two."""
    data = (golden / f"{name}.age").read_bytes()
    assert needs_passphrase(data)
    assert open_sealed(data, passphrase=PASSPHRASE) == EXPORT


@pytest.mark.parametrize("name", ["v1-recipient", "v1-recipient-armoured"])
def test_a_golden_file_for_a_recipient_opens(golden, identity, name):
    data = (golden / f"{name}.age").read_bytes()
    assert not needs_passphrase(data)
    assert open_sealed(data, identities=[identity]) == EXPORT


def test_armour_with_other_line_ends_and_blank_lines_around_it_is_read(golden):
    data = (golden / "v1-passphrase-armoured.age").read_bytes()
    assert open_sealed(b"\r\n" + data.replace(b"\n", b"\r\n") + b"\n", passphrase=PASSPHRASE) == EXPORT


def test_a_golden_plain_text_is_read(golden):
    assert from_plain_text((golden / "v1-plain.json").read_bytes()) == EXPORT


def test_every_bad_golden_file_is_in_the_table(golden):
    assert {path.stem for path in golden.glob("bad-*.age")} == set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_golden_file_is_refused_quickly(golden, identity, name):
    kind, message = REFUSED[name]
    began = time.thread_time()
    with pytest.raises(kind) as caught:
        open_sealed((golden / f"{name}.age").read_bytes(), passphrase=PASSPHRASE, identities=[identity])
    assert type(caught.value) is kind
    assert message in caught.value.message
    assert caught.value.hint
    assert time.thread_time() - began < 20.0  # much less than what a work factor of 23 takes


def test_an_export_sealed_to_a_passphrase_opens_with_it_and_is_hard_to_guess():
    """Once only, as each of the two steps takes seconds; the property below opens cheaper files.

    A work factor of 18 is what the reference implementation of age takes; pyrage's depends on the machine and its load.
    """
    data = seal_to_passphrase(EXPORT, PASSPHRASE)
    assert open_sealed(data, passphrase=PASSPHRASE) == EXPORT
    stanza = data.split(b"\n")[1]
    assert stanza.startswith(b"-> scrypt ")
    assert module.MIN_WORK_FACTOR <= int(stanza.rpartition(b" ")[2]) <= module.MAX_WORK_FACTOR


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE + " ", PASSPHRASE.upper()])
def test_no_other_passphrase_opens_it(golden, passphrase):
    with pytest.raises(VaultLocked, match="passphrase does not open"):
        open_sealed((golden / "v1-passphrase-cheap.age").read_bytes(), passphrase=passphrase)


def test_each_of_several_recipients_opens_it(identity, recipient):
    ed_public, ed_private = ssh_pair(ed25519.Ed25519PrivateKey.generate())
    rsa_public, rsa_private = ssh_pair(rsa.generate_private_key(65537, 2048))
    data = seal_to_recipients(EXPORT, [recipient, ed_public, rsa_public])
    for key in (identity, ed_private, rsa_private):
        assert open_sealed(data, identities=[key]) == EXPORT


def test_one_right_identity_among_others_is_enough(recipient, identity):
    _, other = ssh_pair(ed25519.Ed25519PrivateKey.generate())
    data = seal_to_recipients(EXPORT, [recipient])
    assert open_sealed(data, identities=[other, identity]) == EXPORT
    with pytest.raises(VaultLocked, match="no identity that was given"):
        open_sealed(data, identities=[other])


def test_a_missing_key_is_asked_for_by_its_kind(golden):
    with pytest.raises(VaultLocked, match="sealed to a passphrase"):
        open_sealed((golden / "v1-passphrase-cheap.age").read_bytes(), identities=["AGE-SECRET-KEY-1X"])
    with pytest.raises(VaultLocked, match="sealed to a recipient"):
        open_sealed((golden / "v1-recipient.age").read_bytes(), passphrase=PASSPHRASE)


@pytest.mark.parametrize("passphrase", ["", "7 chars", "äöüßäöü", "elevenchars", "passwordpassword"])
def test_a_short_passphrase_is_refused(passphrase):
    with pytest.raises(SecretInvalid, match="can be guessed"):
        seal_to_passphrase(EXPORT, passphrase)


def test_a_passphrase_that_is_no_text_is_refused(golden):
    with pytest.raises(SecretInvalid, match="not text"):
        seal_to_passphrase(EXPORT, "\udcff" * 8)
    with pytest.raises(SecretInvalid, match="not text"):
        open_sealed((golden / "v1-passphrase-cheap.age").read_bytes(), passphrase="\udcff")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "age1",
        "age1xx",
        "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t",
        "ssh-ed25519 AAAA",
        "ssh-rsa",
        "somebody@example.org",
        "age1\ud800",
    ],
)
def test_what_is_no_recipient_is_refused_by_its_number(recipient, text):
    with pytest.raises(SecretInvalid, match="recipient 2 is malformed"):
        seal_to_recipients(EXPORT, [recipient, text])


def test_another_kind_of_ssh_key_is_refused():
    public, _ = ssh_pair(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(SecretInvalid, match="recipient 1"):
        seal_to_recipients(EXPORT, [public])


def test_a_secret_key_in_place_of_a_recipient_is_told_but_not_shown(identity):
    key = identity.splitlines()[-1]
    with pytest.raises(SecretInvalid, match="that is a secret key") as caught:
        seal_to_recipients(EXPORT, [key])
    assert key not in caught.value.message + caught.value.hint


def test_no_recipient_at_all_is_refused():
    with pytest.raises(SecretInvalid, match="needs a recipient"):
        seal_to_recipients(EXPORT, [])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment",
        "AGE-SECRET-KEY-1X",
        "AGE-PLUGIN-YUBIKEY-1X",
        "-----BEGIN X",
        "\ud800",
        "-----BEGIN \ud800",
    ],
)
def test_what_is_no_identity_is_refused(golden, text):
    with pytest.raises(VaultLocked, match="identity 1 can't be used"):
        open_sealed((golden / "v1-recipient.age").read_bytes(), identities=[text])


def test_an_ssh_key_that_has_a_passphrase_of_its_own_is_refused(golden):
    private = (golden / "identity-ssh-with-passphrase.txt").read_text()
    with pytest.raises(VaultLocked, match="without passphrase"):
        open_sealed((golden / "v1-recipient.age").read_bytes(), identities=[private])


@pytest.mark.parametrize(
    "document",
    [
        Export("", "2026-11-25T10:00:00Z", ()),
        Export(VAULT_ID, "now", ()),
        Export(VAULT_ID, "2026-11-25T10:00:00Z", (Entry("", "lower", "x"),)),
        Export(VAULT_ID, "2026-11-25T10:00:00Z", (Entry("Upper", "A", "x"),)),
        Export(VAULT_ID, "2026-11-25T10:00:00Z", (Entry("", "A", ""),)),
        Export(VAULT_ID, "2026-11-25T10:00:00Z", (Entry("", "A", "x"), Entry("", "A", "y"))),
    ],
)
def test_what_could_not_be_read_again_is_not_written(document, recipient):
    for write in (lambda: seal_to_recipients(document, [recipient]), lambda: to_plain_text(document)):
        with pytest.raises(SecretInvalid):
            write()


def test_what_is_sealed_is_the_canonical_document(golden, identity, recipient):
    backwards = Export(EXPORT.vault_id, EXPORT.created, EXPORT.entries[::-1])
    plaintext = pyrage.decrypt(
        seal_to_recipients(backwards, [recipient]), [pyrage.x25519.Identity.from_str(identity.splitlines()[-1])]
    )
    assert plaintext == (golden / "v1-plain.json").read_bytes()


def test_plain_text_shows_every_value_and_no_control_character():
    text = to_plain_text(EXPORT)
    assert [secret["value"] for secret in json.loads(text)["secrets"]] == [entry.value for entry in EXPORT.entries]
    assert text.replace("\n", "").isprintable()
    assert text.isascii()


def test_a_file_that_is_too_large_is_refused_before_it_is_looked_at():
    for read in (open_sealed, needs_passphrase, from_plain_text):
        with pytest.raises(SourceUnreadable, match="larger"):
            read(bytes(module.MAX_SOURCE_BYTES + 1))


exports = st.builds(
    Export,
    vault_id=st.binary(min_size=16, max_size=16).map(bytes.hex),
    created=st.just("2026-11-25T10:00:00Z"),
    entries=st.lists(
        st.builds(
            Entry,
            namespace=st.just("") | st.from_regex("[a-z][a-z0-9_-]{0,5}", fullmatch=True),
            name=st.from_regex("[A-Z][A-Z0-9_]{0,5}", fullmatch=True),
            value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40),
        ),
        max_size=5,
        unique_by=lambda entry: (entry.namespace, entry.name),
    ).map(lambda entries: tuple(sorted(entries, key=lambda entry: (entry.namespace, entry.name)))),
)


@settings(max_examples=60, deadline=None)
@given(exports, st.text(st.characters(codec="utf-8"), max_size=20))
def test_what_another_program_sealed_to_a_passphrase_is_read(maker, export, passphrase):
    data = maker.age_file(to_plain_text(export).encode(), passphrase, log_n=2)
    assert open_sealed(data, passphrase=passphrase) == export


@settings(max_examples=60, deadline=None)
@given(exports)
def test_what_is_sealed_to_a_recipient_or_written_in_plain_is_read_back(identity, recipient, export):
    assert open_sealed(seal_to_recipients(export, [recipient]), identities=[identity]) == export
    assert from_plain_text(to_plain_text(export).encode()) == export


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from(
        [
            b"",
            b"age-encryption.org/v1\n",
            b"age-encryption.org/v1\n-> scrypt ",
            b"age-encryption.org/v1\n-> X25519 ",
            b"-----BEGIN AGE ENCRYPTED FILE-----\n",
        ]
    ),
)
def test_any_bytes_at_all_are_refused_with_a_typed_error(identity, data, start):
    with pytest.raises((VaultLocked, VaultDamaged, SourceUnreadable)):
        open_sealed(start + data, passphrase="x", identities=[identity])
    with pytest.raises(VaultDamaged):
        from_plain_text(data)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(["v1-recipient", "v1-passphrase-cheap"]))
def test_one_changed_byte_anywhere_is_noticed(golden, identity, data, name):
    good = (golden / f"{name}.age").read_bytes()
    position = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises((VaultLocked, VaultDamaged, SourceUnreadable)):
        open_sealed(bytes(bad), passphrase=PASSPHRASE, identities=[identity])


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["name", "namespace", "value", "x"]), inner, max_size=4)
        ),
    ),
    st.sampled_from(["secrets", "version", "vault_id", "created", "format", "x"]),
)
def test_any_json_in_any_place_is_read_or_refused_with_a_typed_error(maker, content, place):
    try:
        export = open_sealed(maker.age_file(maker.document(**{place: content}), "x", log_n=2), passphrase="x")
    except VaultDamaged:
        return
    assert export.entries == () or place != "secrets"
