"""Which keys open a vault and how that changes: `rekey`, `rotate`, `lock`, and keys that are asked for again."""

import errno
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from silo_vault import (
    AccessRefused,
    EnvironmentKey,
    KeyringKey,
    KeyUnavailable,
    KeyUnreachable,
    PassphraseKey,
    SecretNotFound,
    Vault,
    VaultLocked,
    VaultNotWritten,
)
from silo_vault.crypto import MAX_SEALS, Argon2Cost
from silo_vault.format import UnknownWrap, Wrap, decode, encode
from silo_vault.keys.base import unwrap_under, wrap_under

KEY, NEW = "ab" * 32, "cd" * 32
CHEAP = Argon2Cost(t=1, m_kib=64, p=1)
PATIENCE_S = 300.0
WORDS = "correct horse battery staple"


class Ring:
    """A keyring in memory."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.entries[service, username]


class Remote:
    """A key on another machine, which answers, refuses, or can't be reached."""

    kind = "kv"
    label = "the place far away"
    recheck_s = 60.0

    def __init__(self) -> None:
        self.state: type[VaultLocked] | None = None
        self.asked = 0
        self.hang = lambda: None
        self.retired = 0

    def wrap(self, dek, *, vault_id, random, is_new=True):
        self._answer()
        return wrap_under(b"k" * 32, dek, kind=self.kind, kdf=None, vault_id=vault_id, random=random)

    def unwrap(self, wrap, *, vault_id):
        self._answer()
        assert isinstance(wrap, Wrap)
        return unwrap_under(b"k" * 32, wrap, vault_id=vault_id, label=self.label)

    def retire(self, wrap, *, vault_id):
        self.retired += 1

    def forget(self):
        pass

    def _answer(self) -> None:
        self.asked += 1
        self.hang()
        if self.state is not None:
            raise self.state("the place says no", hint="wait")


def words(text=WORDS):
    return PassphraseKey(lambda: text, cost=CHEAP)


def ids(vault):
    return {slot.kind: slot.key_id for slot in vault.status().keys}


def filled(open_vault):
    vault = open_vault(KEY)
    vault.put("A", "value of A")
    vault.put("B", "value of B", namespace="skill")
    return vault


# --- rekey ------------------------------------------------------------------------------------------------------------


def test_another_key_opens_the_vault_and_no_value_is_sealed_again(open_vault, path):
    vault = filled(open_vault)
    before = decode(path.read_bytes())
    vault.rekey(add=[words()])
    after = decode(path.read_bytes())
    assert after.records == before.records
    assert after.header.seals == before.header.seals
    assert after.header.generation == before.header.generation + 1
    for provider in (EnvironmentKey(KEY), words()):
        assert Vault(path, [provider]).get("A").reveal() == "value of A"
    with pytest.raises(VaultLocked):
        Vault(path, [words("another passphrase")]).get("A")


def test_a_key_that_was_replaced_opens_nothing_any_more(open_vault, path):
    vault = filled(open_vault)
    vault.rekey(add=[EnvironmentKey(NEW)], remove=[ids(vault)["env"]])
    assert Vault(path, [EnvironmentKey(NEW)]).get("B", namespace="skill").reveal() == "value of B"
    with pytest.raises(VaultLocked):
        open_vault(KEY).get("A")


def test_a_keyring_gets_a_new_entry_and_loses_the_old_one_only_when_the_file_is_written(path):
    ring = Ring()
    vault = Vault(path, [KeyringKey(ring)])
    vault.put("A", "1")
    [old] = ring.entries
    vault.rekey(add=[KeyringKey(ring)], remove=[ids(vault)["keyring"]])
    [new] = ring.entries
    assert new != old
    assert Vault(path, [KeyringKey(ring)]).get("A").reveal() == "1"


def test_a_rekey_that_fails_leaves_the_keyring_and_the_file_as_they_were(path):
    ring = Ring()
    vault = Vault(path, [EnvironmentKey(KEY)])
    vault.put("A", "1")
    before = path.read_bytes()
    with pytest.raises(VaultLocked, match="opens the vault already"):
        vault.rekey(add=[KeyringKey(ring), EnvironmentKey(KEY)])
    assert (path.read_bytes(), ring.entries) == (before, {})


@pytest.mark.parametrize(
    ("add", "remove", "error", "match"),
    [
        ([], ["ENV"], VaultLocked, "no key would be left"),
        ([EnvironmentKey(KEY)], [], VaultLocked, "opens the vault already"),
        ([], ["0123456789abcdef"], SecretNotFound, "no key of the vault has the id"),
        ([EnvironmentKey(None)], [], KeyUnavailable, "is not set"),
        ([PassphraseKey(lambda: "short")], [], VaultLocked, "can be guessed"),
        ([PassphraseKey(lambda: None)], [], KeyUnavailable, "no passphrase was given"),
    ],
)
def test_what_would_lock_the_owner_out_is_refused_and_changes_nothing(open_vault, path, add, remove, error, match):
    vault = filled(open_vault)
    before = path.read_bytes()
    remove = [ids(vault)["env"] if key_id == "ENV" else key_id for key_id in remove]
    with pytest.raises(error, match=match):
        vault.rekey(add=add, remove=remove)
    assert path.read_bytes() == before


@pytest.mark.parametrize("first", ["put", "create", "put_all"])
def test_a_first_save_that_fails_leaves_no_entry_in_the_keyring(path, monkeypatch, first):
    """Past bug: each failed attempt left one, because the next attempt is for another vault."""
    ring = Ring()
    vault = Vault(path, [KeyringKey(ring)])
    attempts = {
        "put": lambda: vault.put("A", "1"),
        "put_all": lambda: vault.put_all({("", "A"): "1"}),
        "create": vault.create,
    }

    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "rename", full)
        with pytest.raises(VaultNotWritten):
            attempts[first]()
    assert ring.entries == {}
    attempts[first]()
    assert len(ring.entries) == 1


def test_a_keyring_that_fails_after_it_kept_a_key_keeps_none(path):
    class Moody(Ring):
        def get_password(self, service, username):
            raise ZeroDivisionError

    ring = Moody()
    vault = Vault(path, [KeyringKey(ring), EnvironmentKey(KEY)])
    vault.put("A", "1")  # the next key locks the vault
    assert ring.entries == {}
    with pytest.raises(KeyUnavailable):
        vault.rekey(add=[KeyringKey(ring)])
    assert ring.entries == {}


def test_the_backup_opens_after_a_key_in_a_keyring_was_replaced(path):
    """Past bug: the old entry was gone, and the backup needed it."""
    ring = Ring()
    vault = Vault(path, [KeyringKey(ring)])
    vault.put("A", "1")
    vault.put("A", "2")
    vault.rekey(add=[KeyringKey(ring)], remove=[ids(vault)["keyring"]])
    path.write_bytes(b"damaged")
    vault.restore()
    assert Vault(path, [KeyringKey(ring)]).get("A").reveal() == "2"


@pytest.mark.parametrize("text", ["x", KEY[:-1], f'"{KEY}"'])
def test_a_vault_with_a_weak_key_opens_rotates_and_gets_a_better_key(path, text):
    """Such vaults were made by earlier versions. Nobody is locked out of one."""
    weak = EnvironmentKey(text, cost=CHEAP)
    with pytest.raises(VaultLocked):
        Vault(path, [weak]).put("A", "1")
    assert not path.exists()
    vault = Vault(path, [EnvironmentKey(KEY)])
    vault.put("A", "1")
    document = decode(path.read_bytes())
    dek = vault._unlocker.data_key(document.header)
    wrap = weak.wrap(dek, vault_id=document.header.vault_id, random=os.urandom, is_new=False)
    header = replace(document.header, wraps=(wrap,))
    path.write_bytes(encode(header, document.records, vault._unlocker.keys(document.header, epoch=None).mac))
    path.with_name("credentials.silo.seen").unlink()
    vault = Vault(path, [weak])
    vault.put("B", "2")
    vault.rotate()
    assert vault.get("A").reveal() == "1"
    vault.rekey(add=[EnvironmentKey(NEW)], remove=[ids(vault)["env"]])
    assert Vault(path, [EnvironmentKey(NEW)]).names() == ("A", "B")
    with pytest.raises(VaultLocked):
        Vault(path, [weak]).names()


def test_a_provider_that_does_not_open_what_it_sealed_is_not_trusted(open_vault, path):
    class Liar(Remote):
        def unwrap(self, wrap, *, vault_id):
            return b"x" * 32

    vault = filled(open_vault)
    before = path.read_bytes()
    liar = Liar()
    with pytest.raises(VaultLocked, match="does not give back"):
        vault.rekey(add=[liar])
    assert path.read_bytes() == before
    assert liar.retired == 1  # what it made for the wrap goes as well


def test_without_a_vault_there_is_nothing_to_rekey_or_rotate(open_vault, path):
    for attempt in (open_vault().rekey, open_vault().rotate):
        with pytest.raises(SecretNotFound, match="does not exist"):
            attempt()
    assert not path.exists()


# --- rotate -----------------------------------------------------------------------------------------------------------


def test_a_new_data_key_seals_every_value_anew_and_all_keys_open_it(open_vault, path):
    vault = filled(open_vault)
    vault.rekey(add=[words()])
    before = decode(path.read_bytes())
    vault.rotate(providers=[words()])
    after = decode(path.read_bytes())
    assert {record.sealed for record in after.records}.isdisjoint(record.sealed for record in before.records)
    assert {record.nonce for record in after.records}.isdisjoint(record.nonce for record in before.records)
    assert [record.modified for record in after.records] == [record.modified for record in before.records]
    assert after.header.seals == 2
    for provider in (EnvironmentKey(KEY), words()):
        assert Vault(path, [provider]).get("A").reveal() == "value of A"
        assert Vault(path, [provider]).get("B", namespace="skill").reveal() == "value of B"


def test_the_old_data_key_opens_nothing_of_a_rotated_vault(open_vault, path):
    vault = filled(open_vault)
    header = decode(path.read_bytes()).header
    stolen = EnvironmentKey(KEY).unwrap(header.wraps[0], vault_id=header.vault_id)
    vault.rotate()
    rotated = decode(path.read_bytes()).header
    assert EnvironmentKey(KEY).unwrap(rotated.wraps[0], vault_id=header.vault_id) != stolen


def test_a_rotation_needs_every_key_or_says_which_is_to_be_dropped(open_vault, path):
    vault = filled(open_vault)
    vault.rekey(add=[words()])
    before = path.read_bytes()
    recovery = ids(vault)["passphrase"]
    for providers in ([], [words("not the passphrase")]):
        with pytest.raises(VaultLocked, match=recovery) as caught:
            vault.rotate(providers=providers)
        assert f"--drop {recovery}" in caught.value.hint
        assert path.read_bytes() == before
    vault.rotate(drop=[recovery])
    assert set(ids(vault)) == {"env"}
    assert open_vault(KEY).get("A").reveal() == "value of A"


def test_a_key_of_an_unknown_kind_is_never_dropped_unasked(open_vault, path):
    vault = filled(open_vault)
    document = decode(path.read_bytes())
    foreign = b'{"kind":"yubikey","slot":9}'
    keys = vault._unlocker.keys(document.header, epoch=None)
    header = replace(document.header, wraps=(*document.header.wraps, UnknownWrap("yubikey", foreign)))
    path.write_bytes(encode(header, document.records, keys.mac))
    path.with_name("credentials.silo.seen").unlink()
    with pytest.raises(VaultLocked, match="yubikey") as caught:
        open_vault(KEY).rotate()
    assert "--drop yubikey" in caught.value.hint  # which is what works, below
    open_vault(KEY).rekey(add=[words()])
    assert "yubikey" in ids(vault)
    open_vault(KEY).rotate(drop=["yubikey", ids(vault)["passphrase"]])
    assert set(ids(vault)) == {"env"}


def test_a_data_key_that_has_sealed_enough_is_replaced_by_the_next_save(open_vault, path):
    vault = filled(open_vault)
    document = decode(path.read_bytes())
    keys = vault._unlocker.keys(document.header, epoch=None)
    path.write_bytes(encode(replace(document.header, seals=MAX_SEALS), document.records, keys.mac))
    path.with_name("credentials.silo.seen").unlink()
    before = decode(path.read_bytes())
    assert vault.status().should_rotate
    open_vault(KEY).put("C", "value of C")
    after = decode(path.read_bytes())
    assert after.header.seals == 3
    assert after.header.wraps != before.header.wraps
    assert open_vault(KEY).get("A").reveal() == "value of A"
    assert open_vault(KEY).get("C").reveal() == "value of C"


# --- lock, and asking again -------------------------------------------------------------------------------------------


def test_locking_makes_every_open_vault_forget_its_key(open_vault):
    vault, other = filled(open_vault), open_vault(KEY)
    assert other.get("A").reveal() == "value of A"
    vault.lock()
    for locked in (vault, other):
        with pytest.raises(VaultLocked, match="forgotten when the vault was locked"):
            locked.get("A")
    assert open_vault(KEY).get("A").reveal() == "value of A"  # a new process starts with its key


def test_a_keyring_is_asked_again_after_a_lock(path):
    ring = Ring()
    vault = Vault(path, [KeyringKey(ring)])
    vault.put("A", "1")
    Vault(path, []).lock()
    assert vault.get("A").reveal() == "1"
    ring.entries.clear()
    Vault(path, []).lock()
    with pytest.raises(VaultLocked, match="has no entry"):
        vault.get("A")


def far(path, now, **options):
    remote = Remote()
    vault = Vault(path, [remote], monotonic=lambda: now[0], **options)
    vault.put("A", "1")
    vault.get("A")
    remote.asked = 0
    return vault, remote


def test_a_key_far_away_is_asked_again_when_its_time_is_over(path):
    now = [0.0]
    vault, remote = far(path, now)
    vault.get("A")
    now[0] = 59.9
    vault.get("A")
    assert remote.asked == 0
    now[0] = 60.1
    vault.get("A")
    vault.get("A")
    assert remote.asked == 1


def test_a_refusal_ends_an_open_vault_at_once_even_within_its_grace(path):
    now = [0.0]
    vault, remote = far(path, now, grace_s=3600.0)
    now[0], remote.state = 61.0, AccessRefused
    with pytest.raises(AccessRefused):
        vault.get("A")
    remote.state = KeyUnreachable  # the key that was in memory is not there to fall back to
    with pytest.raises(KeyUnreachable):
        vault.get("A")


def test_out_of_reach_is_bridged_for_the_grace_and_no_longer(path):
    now = [0.0]
    vault, remote = far(path, now, grace_s=100.0)
    now[0], remote.state = 61.0, KeyUnreachable
    assert vault.get("A").reveal() == "1"
    now[0] = 161.0
    with pytest.raises(KeyUnreachable):
        vault.get("A")
    remote.state = None
    assert vault.get("A").reveal() == "1"


def test_without_grace_out_of_reach_is_locked(path):
    now = [0.0]
    vault, remote = far(path, now)
    now[0], remote.state = 61.0, KeyUnreachable
    with pytest.raises(KeyUnreachable):
        vault.get("A")


def test_a_cold_start_opens_with_a_second_key_when_the_first_is_out_of_reach_and_not_when_it_refuses(path):
    now = [0.0]
    vault, remote = far(path, now)
    vault.rekey(add=[words()])
    remote.state = KeyUnreachable
    assert Vault(path, [remote, words()]).get("A").reveal() == "1"
    remote.state = AccessRefused
    with pytest.raises(AccessRefused):
        Vault(path, [remote, words()]).get("A")


def test_a_new_vault_is_not_locked_with_another_key_because_the_first_is_out_of_reach(path):
    remote = Remote()
    remote.state = KeyUnreachable
    with pytest.raises(KeyUnreachable):
        Vault(path, [remote, EnvironmentKey(KEY)]).put("A", "1")
    assert not path.exists()


def test_a_key_that_hangs_costs_one_wait_and_not_one_for_each_reader(path):
    """Reads of many threads, then reads one after the other: each would wait for as long as the server hangs."""
    now = [0.0]
    vault, remote = far(path, now)
    now[0] += 100
    is_asked, go_on = threading.Event(), threading.Event()

    def hang():
        is_asked.set()
        assert go_on.wait(PATIENCE_S)
        now[0] += 30

    remote.state, remote.hang, remote.asked = KeyUnreachable, hang, 0
    with ThreadPoolExecutor(max_workers=8) as pool:
        first = pool.submit(vault.get, "A")
        assert is_asked.wait(PATIENCE_S)
        others = [pool.submit(vault.get, "A") for _ in range(7)]
        # What needs no key does not wait, and the vault can be locked meanwhile.
        assert vault.status().exists
        vault.lock()
        go_on.set()
        assert all(isinstance(one.exception(PATIENCE_S), KeyUnreachable) for one in (first, *others))
    asked = remote.asked
    for _ in range(5):
        with pytest.raises(KeyUnreachable):
            vault.get("A")
    assert remote.asked <= asked + 1
    remote.state, remote.hang = None, lambda: None
    now[0] += 31
    assert vault.get("A").reveal() == "1"


def test_while_a_key_that_hangs_is_bridged_only_one_reader_waits_for_it(path):
    now = [0.0]
    vault, remote = far(path, now, grace_s=3600.0)
    now[0] += 100

    def hang():
        now[0] += 30

    remote.state, remote.hang, remote.asked = KeyUnreachable, hang, 0
    started = now[0]
    for _ in range(5):
        assert vault.get("A").reveal() == "1"
    assert (remote.asked, now[0] - started) == (1, 30)
