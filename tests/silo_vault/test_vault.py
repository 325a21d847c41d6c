import os
import stat
import struct
import threading
import traceback
from pathlib import Path

import pytest
from silo_vault import (
    EnvironmentKey,
    KeyringKey,
    Secret,
    SecretInvalid,
    SecretNotFound,
    Vault,
    VaultDamaged,
    VaultError,
    VaultLocked,
)
from silo_vault.crypto import Argon2Cost
from silo_vault.format import Document, decode, encode, encode_record
from silo_vault.secret import MAX_VALUE_BYTES
from silo_vault.storage import VaultFiles

KEY = "00112233445566778899aabbccddeeff" * 2
OTHER_KEY = "ff" * 32


def test_a_secret_comes_back_in_another_process(open_vault):
    open_vault().put("TOKEN", "grüße")
    assert open_vault().get("TOKEN").reveal() == "grüße"


@pytest.mark.parametrize("value", [b"\xff\x00\xfe", os.urandom(4096), b"\x00", b"x" * MAX_VALUE_BYTES])
def test_binary_and_long_values_come_back_also_after_a_rotation(open_vault, value):
    open_vault().put("STORE", value)
    open_vault().rotate()
    assert open_vault().get("STORE").reveal_bytes() == value


def test_text_that_is_no_text_is_refused(open_vault):
    """A value that a person typed, or that came as text, is never binary."""
    with pytest.raises(SecretInvalid):
        open_vault().put("TOKEN", "a\0b")


def test_neither_value_nor_key_stands_in_any_file(open_vault, folder):
    vault = open_vault()
    vault.put("TOKEN", "first-value-0123456789")
    vault.put("TOKEN", "second-value-0123456789")
    everything = b"".join(file.read_bytes() for file in folder.iterdir())
    assert len(everything) > 500
    for hidden in (b"first-value", b"second-value", KEY.encode(), bytes.fromhex(KEY)):
        assert hidden not in everything


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_all_files_and_a_new_folder_are_for_their_owner_only_under_any_umask(tmp_path, mask):
    vault = Vault(tmp_path / "home" / "credentials.silo", [EnvironmentKey(KEY)])
    before = os.umask(mask)
    try:
        vault.put("TOKEN", "one")
        vault.put("TOKEN", "two")
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in vault.path.parent.iterdir()}
    assert modes == dict.fromkeys((f"credentials.silo{ending}" for ending in ("", ".bak", ".lock", ".seen")), 0o600)
    assert stat.S_IMODE(vault.path.parent.stat().st_mode) == 0o700


def test_names_are_sorted_and_values_replaced(open_vault):
    vault = open_vault()
    for name in ("B", "A", "C", "A"):
        vault.put(name, f"value of {name}")
    assert vault.names() == ("A", "B", "C")
    assert open_vault().names() == ("A", "B", "C")


def test_names_are_listed_without_a_key_and_without_decoys(open_vault, path):
    vault = open_vault()
    assert vault.listed() == ()
    vault.put("TOKEN", "value")
    vault.put("KEY", "value", namespace="pay")
    vault.add_canary("DECOY")
    keyless = Vault(path, ())
    assert keyless.listed() == (("", "TOKEN"), ("pay", "KEY"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VaultDamaged):
        keyless.listed()


def test_what_one_object_writes_another_sees(open_vault):
    one, other = open_vault(), open_vault()
    one.put("A", "1")
    assert other.get("A").reveal() == "1"
    other.put("A", "2")
    assert one.get("A").reveal() == "2"
    one.remove("A")
    assert other.names() == ()


def test_a_removed_secret_is_gone_and_the_others_stay(open_vault):
    vault = open_vault()
    vault.put("A", "1")
    vault.put("B", "2")
    vault.remove("A")
    with pytest.raises(SecretNotFound):
        open_vault().get("A")
    assert open_vault().get("B").reveal() == "2"


def test_removing_what_is_not_there_writes_nothing(open_vault, path):
    vault = open_vault()
    with pytest.raises(SecretNotFound):
        vault.remove("A")
    assert not path.exists()
    vault.put("A", "1")
    before = path.read_bytes()
    with pytest.raises(SecretNotFound):
        vault.remove("B")
    assert path.read_bytes() == before


def test_a_misspelt_name_gets_the_nearest_ones(open_vault):
    vault = open_vault()
    vault.put("GITHUB_TOKEN", "1")
    with pytest.raises(SecretNotFound) as caught:
        vault.get("GITHUB_TOKN")
    assert "GITHUB_TOKEN" in caught.value.hint


def test_without_a_file_there_are_no_names_and_nothing_is_made(open_vault, path, folder):
    vault = open_vault(None)
    assert vault.names() == ()
    assert vault.status().exists is False
    with pytest.raises(SecretNotFound):
        vault.get("A")
    assert list(folder.iterdir()) == []


def test_creating_makes_an_empty_vault_once(open_vault, path):
    assert open_vault().create() is True
    first = path.read_bytes()
    assert open_vault().create() is False
    assert path.read_bytes() == first
    assert open_vault().names() == ()
    with pytest.raises(VaultLocked):
        open_vault("ee" * 32).names()


@pytest.mark.parametrize(("name", "value"), [("lower", "x"), ("A", ""), ("A", "a\0b"), ("A", "\udcff")])
def test_what_may_not_be_stored_leaves_no_trace(open_vault, folder, name, value):
    with pytest.raises(SecretInvalid):
        open_vault().put(name, value)
    assert list(folder.iterdir()) == []


def test_the_status_needs_no_key(open_vault):
    open_vault().put("A", "1")
    open_vault().put("B", "2")
    status = open_vault(None, clock=lambda: 0.0).status()
    assert (status.exists, status.generation, status.secrets, status.seals) == (True, 2, 2, 2)
    assert [(slot.kind, slot.kdf, len(slot.key_id)) for slot in status.keys] == [("env", "none", 16)]


def test_the_generation_rises_by_one_with_each_save_and_stays_below_in_the_backup(open_vault, path):
    vault = open_vault()
    vault.create()
    for expected in (2, 3, 4):
        previous = path.read_bytes()
        vault.put("A", "x")
        assert vault.status().generation == expected
        assert path.with_name("credentials.silo.bak").read_bytes() == previous
    vault.remove("A")
    assert vault.status().generation == 5


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_wrong_key_opens_nothing_and_changes_nothing(open_vault, path):
    open_vault().put("TOKEN", "value")
    before = path.read_bytes()
    wrong = open_vault(OTHER_KEY)
    for attempt in (
        wrong.names,
        lambda: wrong.get("TOKEN"),
        lambda: wrong.put("TOKEN", "other"),
        lambda: wrong.remove("TOKEN"),
    ):
        with pytest.raises(VaultLocked, match="the key is wrong, or the file was changed") as caught:
            attempt()
        assert "credentials.silo.bak" in caught.value.hint
        assert OTHER_KEY not in "".join(traceback.format_exception(caught.value, limit=0)) + caught.value.hint
    assert path.read_bytes() == before


def test_without_the_key_the_error_says_which_one_is_wanted(open_vault):
    open_vault().put("TOKEN", "value")
    with pytest.raises(VaultLocked, match="SILO_MASTER_KEY is not set") as caught:
        open_vault(None).get("TOKEN")
    assert "openssl rand" not in caught.value.hint  # a new key would lock the owner out further


def test_without_any_key_no_vault_is_made(open_vault, path):
    with pytest.raises(VaultLocked, match="SILO_MASTER_KEY is not set") as caught:
        open_vault(None).put("TOKEN", "value")
    assert "openssl rand -hex 32" in caught.value.hint
    assert not path.exists()


def test_an_empty_key_is_an_error_and_not_a_reason_to_use_the_keyring(path):
    store = MemoryStore()
    vault = Vault(path, [EnvironmentKey("  "), KeyringKey(store)])
    with pytest.raises(VaultLocked, match="SILO_MASTER_KEY is empty"):
        vault.put("TOKEN", "value")
    assert store.entries == {}
    assert not path.exists()


def test_a_passphrase_opens_what_it_locked_and_another_does_not(path):
    cost = Argon2Cost(t=1, m_kib=64, p=1)
    Vault(path, [EnvironmentKey("correct horse battery", cost=cost)]).put("TOKEN", "value")
    # The parameters come from the file, not from the provider that opens it.
    assert Vault(path, [EnvironmentKey("correct horse battery")]).get("TOKEN").reveal() == "value"
    for other in ("correct horse batterz", KEY):
        with pytest.raises(VaultLocked):
            Vault(path, [EnvironmentKey(other)]).get("TOKEN")


def test_a_vault_of_the_keyring_opens_with_it_whatever_else_is_set(path):
    store = MemoryStore()
    Vault(path, [EnvironmentKey(None), KeyringKey(store)]).put("TOKEN", "value")
    assert len(store.entries) == 1
    later = Vault(path, [EnvironmentKey(KEY), KeyringKey(store)])
    assert later.get("TOKEN").reveal() == "value"
    with pytest.raises(VaultLocked, match="keyring"):
        Vault(path, [EnvironmentKey(KEY)]).get("TOKEN")


def test_the_keyring_is_asked_once_for_many_reads(path):
    store = MemoryStore()
    Vault(path, [KeyringKey(store)]).put("TOKEN", "value")
    vault = Vault(path, [KeyringKey(store)])
    store.reads = 0
    for _ in range(20):
        vault.get("TOKEN")
    vault.put("OTHER", "value")
    assert store.reads == 1


class MemoryStore:
    """A keyring in memory."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}
        self.reads = 0

    def get_password(self, service: str, username: str) -> str | None:
        self.reads += 1
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password


# --- changed files ----------------------------------------------------------------------------------------------------


def _refused(open_vault, path: Path, data: bytes) -> None:
    """Check that opening these bytes, for reading or writing, is an error and doesn't change them."""
    path.write_bytes(data)
    with pytest.raises((VaultLocked, VaultDamaged)):
        open_vault().names()
    assert path.read_bytes() == data


def test_every_flipped_byte_is_detected(open_vault, path):
    open_vault().put("TOKEN", "value")
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << (position % 8)
        _refused(open_vault, path, bytes(bad))
    path.write_bytes(good)
    assert open_vault().get("TOKEN").reveal() == "value"


def test_every_truncation_and_every_addition_is_detected(open_vault, path):
    open_vault().put("TOKEN", "value")
    good = path.read_bytes()
    for length in range(len(good)):
        _refused(open_vault, path, good[:length])
    for more in (b"\0", b"\n", good):
        _refused(open_vault, path, good + more)


def test_nothing_is_written_over_a_file_that_does_not_open(open_vault, path):
    open_vault().put("TOKEN", "value")
    good = path.read_bytes()
    for bad in (b"", good[:100], good[:-1] + b"\0", b"TOKEN=value\n"):
        path.write_bytes(bad)
        for attempt in (
            lambda: open_vault().put("A", "1"),
            lambda: open_vault().remove("TOKEN"),
        ):
            with pytest.raises((VaultLocked, VaultDamaged)):
                attempt()
        assert path.read_bytes() == bad
    assert not open_vault().create()


def test_a_missing_file_with_a_backup_is_not_an_empty_vault(open_vault, path):
    vault = open_vault()
    vault.put("A", "1")
    vault.put("B", "2")
    path.unlink()
    for attempt in (vault.names, vault.create, lambda: vault.put("C", "3")):
        with pytest.raises(VaultDamaged) as caught:
            attempt()
        assert "restore" in caught.value.hint
    assert not path.exists()
    assert vault.restore().aside is None
    assert open_vault().names() == ("A",)


def _raw(document: Document) -> list[bytes]:
    return [record.encoded for record in document.records]


def _file(document: Document, records: list[bytes]) -> bytes:
    """Return the file with these records and its old MAC."""
    body = b"".join(struct.pack(">I", len(record)) + record for record in records)
    return document.head + struct.pack(">I", len(records)) + body + document.mac


def test_records_dropped_repeated_reordered_or_pasted_are_detected(open_vault, path, tmp_path):
    vault = open_vault()
    for name in ("A", "B", "C"):
        vault.put(name, f"value of {name}")
    document = decode(path.read_bytes())
    a, b, c = _raw(document)
    assert _file(document, [a, b, c]) == path.read_bytes()

    elsewhere = Vault(tmp_path / "home2" / "credentials.silo", [EnvironmentKey(KEY)])
    elsewhere.put("B", "foreign")
    [foreign] = _raw(decode(elsewhere.path.read_bytes()))
    for records in ([a, b], [], [b, a, c], [a, a, b, c], [a, foreign, c]):
        _refused(open_vault, path, _file(document, records))


def test_yesterdays_record_in_todays_file_is_detected(open_vault, path):
    vault = open_vault()
    vault.put("A", "old")
    [old] = _raw(decode(path.read_bytes()))
    vault.put("A", "new")
    _refused(open_vault, path, _file(decode(path.read_bytes()), [old]))


def test_a_value_opens_under_its_own_name_and_version_only(open_vault, path):
    """This also holds against anyone who can make a valid MAC of the file: each value is bound to its own context."""
    vault = open_vault()
    vault.put("A", "value of A")
    data = path.read_bytes()
    document, keys = vault._authentic(data)
    [record] = document.records
    moved = encode_record(
        "", "B", version=record.version, modified=record.modified, nonce=record.nonce, sealed=record.sealed
    )
    renewed = encode_record(
        "", "A", version=record.version + 1, modified=record.modified, nonce=record.nonce, sealed=record.sealed
    )
    for forged, name in ((moved, "B"), (renewed, "A")):
        path.write_bytes(encode(document.header, [forged], keys.mac))
        path.with_name("credentials.silo.seen").unlink(missing_ok=True)
        assert open_vault().names() == (name,)
        with pytest.raises(VaultLocked):
            open_vault().get(name)


def test_a_header_of_another_vault_under_the_same_key_does_not_fit(open_vault, path, tmp_path):
    open_vault().put("A", "1")
    elsewhere = Vault(tmp_path / "home2" / "credentials.silo", [EnvironmentKey(KEY)])
    elsewhere.put("A", "1")
    mine, theirs = decode(path.read_bytes()), decode(elsewhere.path.read_bytes())
    _refused(open_vault, path, theirs.head + path.read_bytes()[len(mine.head) :])


def test_every_save_draws_a_new_nonce(open_vault, path):
    vault = open_vault()
    nonces = set()
    for _ in range(50):
        vault.put("A", "the same value")
        [record] = decode(path.read_bytes()).records
        nonces.add(record.nonce)
    assert len(nonces) == 50
    assert vault.status().seals == 50


def test_ten_thousand_seals_and_those_of_two_forks_draw_different_nonces(path):
    """No state of a random generator is copied by a fork."""
    vault = Vault(path, [EnvironmentKey(KEY)])
    vault.put("A", "1")
    document, keys = vault._authentic(path.read_bytes())

    def nonces(count: int) -> list[bytes]:
        return [vault._seal(keys, document.header, "", "A", b"1", modified=0).nonce for _ in range(count)]

    mine = nonces(10_000)
    forked = []
    for _ in range(2):
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            os.write(write_end, b"".join(nonces(100)))
            os._exit(0)
        os.close(write_end)
        with open(read_end, "rb") as pipe:
            data = pipe.read()
        os.wait()
        forked += [data[start : start + 12] for start in range(0, len(data), 12)]
    assert len(forked) == 200
    assert len({*mine, *forked}) == 10_200


def test_threads_that_share_a_vault_lose_nothing(open_vault):
    vault = open_vault()
    failures: list[VaultError] = []

    def write(which: int) -> None:
        try:
            for number in range(5):
                vault.put(f"T{which}_{number}", "x")
                vault.names()
        except VaultError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(vault.names()) == 20


def test_a_secret_is_what_get_returns(open_vault):
    open_vault().put("TOKEN", "value")
    secret = open_vault().get("TOKEN")
    assert isinstance(secret, Secret)
    assert repr(secret) == "Secret('TOKEN')"


def test_reading_leaves_no_descriptor_open(open_vault):
    vault = open_vault()
    vault.put("TOKEN", "value")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        vault.get("TOKEN")
        vault.put("TOKEN", "value")
    VaultFiles(vault.path).read()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
