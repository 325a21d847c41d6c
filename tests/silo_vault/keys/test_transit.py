"""`TransitKey` with a real OpenBao, or with `fake_server` for wrong answers."""

import base64
import os
import secrets
import traceback
from dataclasses import replace

import pytest
from silo_vault import AccessRefused, KeyUnavailable, KeyUnreachable, Secret, Vault, VaultLocked
from silo_vault.format import TransitWrap, decode, transit_context
from silo_vault.keys.base import KeyProvider
from silo_vault.keys.transit import TransitKey

VAULT_ID, OTHER_VAULT = b"v" * 16, b"w" * 16
DEK = b"d" * 32


@pytest.fixture(scope="module")
def mount(bao) -> str:
    return bao.mount("transit")


@pytest.fixture
def name(bao, mount) -> str:
    """A new key on the server."""
    made = f"key-{secrets.token_hex(4)}"
    bao.write(f"{mount}/keys/{made}")
    return made


@pytest.fixture
def key(bao, mount, name, connect) -> TransitKey:
    return TransitKey(connect(bao.address, token=bao.token, transit_mount=mount, transit_key=name))


def wrap(key: TransitKey, vault_id: bytes = VAULT_ID, dek: bytes = DEK) -> TransitWrap:
    return key.wrap(dek, vault_id=vault_id, random=os.urandom)


def test_it_wraps_and_unwraps_and_the_server_alone_has_the_key(key, mount, name):
    provider: KeyProvider = key
    wrapped = wrap(key)
    assert (wrapped.kind, wrapped.mount, wrapped.key) == (provider.kind, mount, name) == ("transit", mount, name)
    assert wrapped.ciphertext.startswith("vault:v1:")
    assert base64.b64encode(DEK).decode() not in wrapped.ciphertext
    assert key.unwrap(wrapped, vault_id=VAULT_ID) == DEK
    assert provider.recheck_s == 900
    key.retire(wrapped, vault_id=VAULT_ID)


def test_a_vault_opens_with_it_in_another_process(key, path, connect, bao, mount, name):
    Vault(path, [key]).put("TOKEN", "the-value-0123456789")
    again = TransitKey(connect(bao.address, token=bao.token, transit_mount=mount, transit_key=name))
    assert Vault(path, [again]).get("TOKEN").reveal() == "the-value-0123456789"
    assert b"the-value" not in path.read_bytes()


def test_the_data_key_of_another_vault_is_not_opened_in_this_one(key, name):
    """Anyone who can write the file but not read the key could otherwise give a vault a data key that they know."""
    with pytest.raises(VaultLocked, match="does not open it") as caught:
        key.unwrap(wrap(key, OTHER_VAULT), vault_id=VAULT_ID)
    assert not isinstance(caught.value, KeyUnavailable)
    assert "another vault" in caught.value.hint


def test_the_wrap_of_another_vault_pasted_into_the_file_does_not_open_it(key, path, folder):
    vault = Vault(path, [key])
    vault.put("TOKEN", "one")
    Vault(folder / "other.silo", [key]).put("TOKEN", "two")
    ours, theirs = (decode(file.read_bytes()).header.wraps[0] for file in (path, folder / "other.silo"))
    path.write_bytes(path.read_bytes().replace(ours.ciphertext.encode(), theirs.ciphertext.encode()))
    with pytest.raises(VaultLocked):
        Vault(path, [key]).get("TOKEN")


def test_a_server_that_answers_with_another_data_key_is_found_out(fake, connect, path):
    """The MAC of the file is valid for one data key only."""
    fake.expect("GET", "auth/token/lookup-self", body={"data": {"ttl": 0}})
    key = TransitKey(connect(fake.address, token="s.x"))
    fake.expect("GET", "transit/keys/silo", body={"data": {"type": "aes256-gcm96", "derived": False}})
    fake.expect("POST", "transit/encrypt/silo", body={"data": {"ciphertext": "vault:v1:" + "A" * 80}})
    Vault(path, [key]).put("TOKEN", "one")
    _, _, _, sent = fake.requests[-1]
    assert base64.b64decode(sent["associated_data"]) == transit_context(
        decode(path.read_bytes()).header.vault_id, "transit", "silo"
    )
    fake.expect("POST", "transit/decrypt/silo", body={"data": {"plaintext": base64.b64encode(b"e" * 32).decode()}})
    with pytest.raises(VaultLocked, match="the key is wrong, or the file was changed"):
        Vault(path, [key]).get("TOKEN")
    fake.expect("POST", "transit/decrypt/silo", body={"data": {"plaintext": sent["plaintext"]}})
    assert isinstance(Vault(path, [key]).get("TOKEN"), Secret)


@pytest.mark.parametrize("plaintext", ["", "AAAA", base64.b64encode(b"x" * 33).decode(), "ü", "*" * 44, None, 7])
def test_an_answer_that_is_no_data_key_is_not_used(fake, connect, plaintext):
    fake.expect("GET", "auth/token/lookup-self", body={"data": {"ttl": 0}})
    fake.expect("POST", "transit/decrypt/silo", body={"data": {"plaintext": plaintext}})
    key = TransitKey(connect(fake.address, token="s.x"))
    with pytest.raises(KeyUnreachable, match="not HashiCorp Vault's"):
        key.unwrap(TransitWrap(b"k" * 8, "transit", "silo", "vault:v1:" + "A" * 80), vault_id=VAULT_ID)


@pytest.mark.parametrize(
    "ciphertext", ["", "vault:v1:", "vault:v1:" + "A" * 5000, "plain:" + "A" * 80, 'vault:v1:"' + "A" * 80]
)
def test_a_ciphertext_that_no_file_could_hold_is_not_taken(fake, connect, ciphertext):
    fake.expect("GET", "auth/token/lookup-self", body={"data": {"ttl": 0}})
    fake.expect("GET", "transit/keys/silo", body={"data": {"type": "aes256-gcm96", "derived": False}})
    fake.expect("POST", "transit/encrypt/silo", body={"data": {"ciphertext": ciphertext}})
    with pytest.raises(KeyUnreachable, match="not HashiCorp Vault's"):
        wrap(TransitKey(connect(fake.address, token="s.x")))


def test_what_was_sealed_before_the_key_was_rotated_still_opens(bao, key, mount, name):
    old = wrap(key)
    bao.write(f"{mount}/keys/{name}/rotate")
    new = wrap(key)
    assert new.ciphertext.startswith("vault:v2:")
    assert new.key_id == old.key_id
    assert key.unwrap(old, vault_id=VAULT_ID) == key.unwrap(new, vault_id=VAULT_ID) == DEK


def test_a_version_that_the_server_no_longer_opens_is_a_clear_error_that_can_be_undone(bao, key, mount, name):
    old = wrap(key)
    bao.write(f"{mount}/keys/{name}/rotate")
    bao.write(f"{mount}/keys/{name}/config", {"min_decryption_version": 2})
    with pytest.raises(KeyUnavailable, match="no longer opens what its version v1 sealed") as caught:
        key.unwrap(old, vault_id=VAULT_ID)
    assert f"bao write {mount}/keys/{name}/config min_decryption_version=1" in caught.value.hint
    bao.write(f"{mount}/keys/{name}/config", {"min_decryption_version": 1})
    assert key.unwrap(old, vault_id=VAULT_ID) == DEK


def test_a_key_that_does_not_exist_is_not_made_and_no_other_key_is_taken(bao, mount, connect, path):
    """`encrypt` would make it if the policy allows that, and a misspelt name would not be noticed."""
    key = TransitKey(connect(bao.address, token=bao.token, transit_mount=mount, transit_key="misspelt"))
    with pytest.raises(VaultLocked, match=r"misspelt .* does not exist") as caught:
        Vault(path, [key]).put("TOKEN", "x")
    assert not isinstance(caught.value, KeyUnavailable)
    assert f"`bao write -f {mount}/keys/misspelt`" in caught.value.hint
    assert bao.ask("GET", f"{mount}/keys/misspelt")[0] == 404
    assert not path.exists()


def test_a_key_that_was_deleted_is_gone_and_one_made_anew_under_its_name_opens_nothing(bao, key, mount, name):
    wrapped = wrap(key)
    bao.write(f"{mount}/keys/{name}/config", {"deletion_allowed": True})
    assert bao.ask("DELETE", f"{mount}/keys/{name}")[0] == 204
    with pytest.raises(KeyUnavailable, match="no longer exists"):
        key.unwrap(wrapped, vault_id=VAULT_ID)
    bao.write(f"{mount}/keys/{name}")
    with pytest.raises(VaultLocked, match="does not open it"):
        key.unwrap(wrapped, vault_id=VAULT_ID)


@pytest.mark.parametrize("body", [{"type": "rsa-2048"}, {"type": "ed25519"}, {"derived": True}])
def test_a_key_of_a_type_that_cannot_authenticate_the_vault_is_refused(bao, mount, connect, body):
    made = f"key-{secrets.token_hex(4)}"
    bao.write(f"{mount}/keys/{made}", body)
    with pytest.raises(VaultLocked, match="can't be used here"):
        wrap(TransitKey(connect(bao.address, token=bao.token, transit_mount=mount, transit_key=made)))


def test_the_file_does_not_decide_what_the_server_is_asked(fake, connect):
    """No request is sent: `fake` expects none."""
    key = TransitKey(connect(fake.address, token="s.x"))
    wrapped = TransitWrap(b"k" * 8, "transit", "silo", "vault:v1:" + "A" * 80)
    for changed in (replace(wrapped, mount="../sys"), replace(wrapped, key="other"), replace(wrapped, mount="x/y")):
        with pytest.raises(KeyUnavailable, match="the vault needs the transit key"):
            key.unwrap(changed, vault_id=VAULT_ID)


def test_changed_ciphertext_does_not_open_and_nothing_shows_a_key(key):
    wrapped = wrap(key)
    flipped = "B" if wrapped.ciphertext[40] == "A" else "A"
    changed = replace(wrapped, ciphertext=wrapped.ciphertext[:40] + flipped + wrapped.ciphertext[41:])
    with pytest.raises(VaultLocked, match="does not open it") as caught:
        key.unwrap(changed, vault_id=VAULT_ID)
    shown = "".join(traceback.format_exception(caught.value)) + caught.value.hint + repr(key)
    assert changed.ciphertext not in shown
    assert base64.b64encode(DEK).decode() not in shown


def test_a_policy_for_just_this_is_enough_and_taking_it_away_is_a_refusal(bao, mount, name, connect):
    rules = "\n".join(
        f'path "{mount}/{what}/{name}" {{ capabilities = ["{may}"] }}'
        for what, may in (("keys", "read"), ("encrypt", "update"), ("decrypt", "update"))
    )
    policy = bao.policy(rules)
    token = bao.write("auth/token/create", {"policies": [policy]})["auth"]["client_token"]
    key = TransitKey(connect(bao.address, token=token, transit_mount=mount, transit_key=name))
    wrapped = wrap(key)
    assert key.unwrap(wrapped, vault_id=VAULT_ID) == DEK
    bao.policy('path "nothing" { capabilities = ["read"] }', name=policy)
    with pytest.raises(AccessRefused):
        key.unwrap(wrapped, vault_id=VAULT_ID)


def test_a_server_that_is_away_is_unreachable(fake, connect):
    fake.expect("GET", "auth/token/lookup-self", 503, {"errors": ["Vault is sealed"]})
    with pytest.raises(KeyUnreachable, match="is sealed"):
        wrap(TransitKey(connect(fake.address, token="s.x")))


def test_locking_forgets_the_token(key, path):
    vault = Vault(path, [key])
    vault.put("TOKEN", "x")
    key.forget()
    with pytest.raises(VaultLocked, match="forgotten"):
        Vault(path, [key]).get("TOKEN")
