"""`KvKey` with a real OpenBao."""

import base64
import os
import traceback

import pytest
from silo_vault import AccessRefused, KeyUnavailable, KeyUnreachable, SecretInvalid, Vault, VaultLocked
from silo_vault.keys.base import KeyProvider
from silo_vault.keys.kv import KvKey

KEK = bytes(range(32))
VAULT_ID = b"v" * 16
DEK = b"d" * 32


@pytest.fixture(params=["1", "2"])
def put(bao, request):
    """Writes the key to a KV engine of either version, and returns its kek_path."""
    mount = bao.mount("kv", version=request.param)

    def write(value: str) -> str:
        if request.param == "2":
            bao.write(f"{mount}/data/silo", {"data": {"kek": value}})
        else:
            bao.write(f"{mount}/silo", {"kek": value})
        return f"{mount}/silo#kek"

    write.mount = mount
    write.version = request.param
    return write


@pytest.fixture
def key(bao, connect):
    return lambda kek_path: KvKey(connect(bao.address, token=bao.token, kek_path=kek_path))


def wrap(key: KvKey):
    return key.wrap(DEK, vault_id=VAULT_ID, random=os.urandom)


@pytest.mark.parametrize("value", [KEK.hex(), base64.b64encode(KEK).decode(), base64.urlsafe_b64encode(KEK).decode()])
def test_a_key_in_hex_or_base64_wraps_and_unwraps(put, key, value):
    provider: KeyProvider = key(put(value))
    wrapped = wrap(provider)
    assert (wrapped.kind, wrapped.kdf, provider.kind, provider.recheck_s) == ("kv", None, "kv", 900)
    assert provider.unwrap(wrapped, vault_id=VAULT_ID) == DEK
    assert key(put(KEK.hex())).unwrap(wrapped, vault_id=VAULT_ID) == DEK
    provider.retire(wrapped, vault_id=VAULT_ID)


def test_a_vault_opens_with_it_in_another_process(put, key, path):
    kek_path = put(KEK.hex())
    Vault(path, [key(kek_path)]).put("TOKEN", "the-value-0123456789")
    assert Vault(path, [key("vault://" + kek_path)]).get("TOKEN").reveal() == "the-value-0123456789"


def test_another_key_or_another_vault_opens_nothing(put, key):
    provider = key(put(KEK.hex()))
    wrapped = wrap(provider)
    with pytest.raises(VaultLocked):
        provider.unwrap(wrapped, vault_id=b"w" * 16)
    put("ff" * 32)
    with pytest.raises(VaultLocked, match="does not open it") as caught:
        provider.unwrap(wrapped, vault_id=VAULT_ID)
    assert wrapped.key_id.hex() in caught.value.hint


@pytest.mark.parametrize("value", ["a passphrase", "00" * 31, "00" * 33, " " + "00" * 32, "00" * 32 + "\n"])
def test_what_is_not_32_bytes_is_no_key_and_is_not_shown(put, key, value):
    """A passphrase is not accepted: anyone who can write a key there can write a random one."""
    with pytest.raises(VaultLocked, match="is not 32 bytes") as caught:
        wrap(key(put(value)))
    shown = "".join(traceback.format_exception(caught.value)) + caught.value.hint
    assert value.strip() not in shown


def test_an_entry_that_does_not_exist_is_not_made_and_no_other_key_is_taken(bao, put, key, path):
    provider = key(f"{put.mount}/silo#kek")
    with pytest.raises(VaultLocked, match="does not exist") as caught:
        Vault(path, [provider]).put("TOKEN", "x")
    assert not isinstance(caught.value, KeyUnavailable)
    assert f"bao kv put -mount={put.mount} silo kek=-" in caught.value.hint
    assert not path.exists()


def test_an_entry_that_was_deleted_is_unavailable_so_that_another_key_may_open_the_vault(bao, put, key):
    provider = key(put(KEK.hex()))
    wrapped = wrap(provider)
    assert bao.ask("DELETE", f"{put.mount}/{'data/' if put.version == '2' else ''}silo")[0] == 204
    with pytest.raises(KeyUnavailable, match="does not exist"):
        provider.unwrap(wrapped, vault_id=VAULT_ID)


def test_the_key_is_asked_for_each_time_and_kept_nowhere(bao, put, connect):
    """So access that was revoked is refused at the next use."""
    policy = bao.policy(f'path "{put.mount}/*" {{ capabilities = ["read"] }}')
    token = bao.write("auth/token/create", {"policies": [policy]})["auth"]["client_token"]
    provider = KvKey(connect(bao.address, token=token, kek_path=put(KEK.hex())))
    wrapped = wrap(provider)
    bao.policy('path "nothing" { capabilities = ["read"] }', name=policy)
    with pytest.raises(AccessRefused):
        provider.unwrap(wrapped, vault_id=VAULT_ID)


def test_a_server_that_is_away_is_unreachable_and_a_forgotten_token_unavailable(fake, connect):
    fake.expect("GET", "auth/token/lookup-self", 503, {"errors": ["Vault is sealed"]})
    provider = KvKey(connect(fake.address, token="s.x", kek_path="secret/silo#kek"))
    with pytest.raises(KeyUnreachable, match="is sealed"):
        wrap(provider)
    provider.forget()
    with pytest.raises(KeyUnavailable, match="forgotten"):
        wrap(provider)


def test_the_settings_must_name_an_entry(connect):
    with pytest.raises(VaultLocked, match="kek_path is not set"):
        KvKey(connect("https://vault", token="s.x"))
    for kek_path in ("secret/silo", "secret#kek", "secret/../silo#kek", "vault://vault://secret/silo#kek"):
        with pytest.raises(SecretInvalid):
            KvKey(connect("https://vault", token="s.x", kek_path=kek_path))


def test_no_repr_shows_the_key(put, key):
    provider = key(put(KEK.hex()))
    wrap(provider)
    assert KEK.hex() not in repr(provider) + provider.label
