"""An older vault file is detected, and `restore` is the deliberate way to use one."""

import shutil

import pytest
from silo_vault import (
    EnvironmentKey,
    SecretNotFound,
    SourceUnreadable,
    Vault,
    VaultDamaged,
    VaultLocked,
    VaultRolledBack,
)
from silo_vault.rollback import KnownGeneration, Order

KEY = "00112233445566778899aabbccddeeff" * 2


def values(vault):
    return {entry.name: vault.get(entry.name).reveal() for entry in vault.entries()}


def yesterday(open_vault, path):
    """Replace a vault by its own older file."""
    vault = open_vault()
    vault.put("KEY", "revoked")
    old = path.read_bytes()
    vault.put("KEY", "new")
    path.write_bytes(old)
    return old


def test_yesterdays_file_is_refused_by_readers_and_writers_and_left_alone(open_vault, path):
    old = yesterday(open_vault, path)
    for attempt in (
        open_vault().entries,
        lambda: open_vault().get("KEY"),
        lambda: open_vault().put("OTHER", "1"),
        lambda: open_vault().remove("KEY"),
        open_vault().rotate,
        open_vault().rekey,
    ):
        with pytest.raises(VaultRolledBack, match="generation 1, and generation 2 was here") as caught:
            attempt()
        assert "--accept-rollback" in caught.value.hint
    assert path.read_bytes() == old


def test_accepting_it_makes_it_the_newest_generation(open_vault, path):
    yesterday(open_vault, path)
    assert open_vault().restore(path) is None
    assert values(open_vault()) == {"KEY": "revoked"}
    assert open_vault().status().generation == 3
    open_vault().put("KEY", "newer")
    assert values(open_vault()) == {"KEY": "newer"}


def test_another_history_of_the_same_generation_is_refused(open_vault, path):
    vault = open_vault()
    vault.put("KEY", "one")
    old = path.read_bytes()
    vault.put("KEY", "two")
    seen = path.with_name("credentials.silo.seen").read_bytes()
    path.write_bytes(old)
    path.with_name("credentials.silo.seen").unlink()
    open_vault().put("KEY", "another two")
    path.with_name("credentials.silo.seen").write_bytes(seen)
    with pytest.raises(VaultRolledBack):
        open_vault().get("KEY")


def test_another_vault_under_the_same_key_is_refused(open_vault, path, tmp_path):
    open_vault().put("KEY", "mine")
    other = Vault(tmp_path / "other" / "credentials.silo", [EnvironmentKey(KEY)])
    other.put("KEY", "theirs")
    shutil.copyfile(other.path, path)
    with pytest.raises(VaultRolledBack, match="another vault"):
        open_vault().get("KEY")


def test_a_newer_file_from_elsewhere_is_taken_and_remembered(open_vault, path):
    vault = open_vault()
    vault.put("KEY", "one")
    seen = path.with_name("credentials.silo.seen")
    first = seen.read_bytes()
    old = path.read_bytes()
    vault.put("KEY", "two")
    seen.write_bytes(first)  # as after a crash between the two renames
    assert open_vault().get("KEY").reveal() == "two"
    path.write_bytes(old)
    with pytest.raises(VaultRolledBack):
        open_vault().get("KEY")


def test_a_memory_that_is_damaged_is_no_licence(open_vault, path):
    open_vault().put("KEY", "one")
    path.with_name("credentials.silo.seen").write_bytes(b"silo-seen 1 nonsense\n")
    with pytest.raises(VaultRolledBack, match="is damaged"):
        open_vault().get("KEY")
    open_vault().restore(path)
    assert values(open_vault()) == {"KEY": "one"}


def test_an_empty_memory_as_after_a_power_cut_remembers_nothing(open_vault, path):
    open_vault().put("KEY", "one")
    path.with_name("credentials.silo.seen").write_bytes(b"")
    assert values(open_vault()) == {"KEY": "one"}


# --- restore ----------------------------------------------------------------------------------------------------------


def test_the_backup_comes_back_and_what_it_replaces_becomes_the_backup(open_vault, path):
    vault = open_vault()
    vault.put("KEY", "one")
    vault.put("KEY", "two")
    assert vault.restore() is None
    assert values(open_vault()) == {"KEY": "one"}
    vault.restore()
    assert values(open_vault()) == {"KEY": "two"}
    assert vault.status().generation == 4


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped", "missing", "nonsense"])
def test_a_file_that_does_not_open_is_set_aside_and_the_backup_takes_its_place(open_vault, path, damage):
    vault = open_vault()
    vault.put("KEY", "one")
    vault.put("KEY", "two")
    data = path.read_bytes()
    bad = {
        "truncated": data[:-20],
        "emptied": b"",
        "flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "nonsense": b"hello",
    }.get(damage)
    if bad is None:
        path.unlink()
    else:
        path.write_bytes(bad)
    aside = vault.restore()
    assert values(open_vault()) == {"KEY": "one"}
    if bad is None:
        assert aside is None
    else:
        assert aside is not None
        assert aside.read_bytes() == bad


def test_what_was_set_aside_is_never_overwritten(open_vault, path):
    vault = open_vault()
    vault.put("KEY", "one")
    vault.put("KEY", "two")
    path.write_bytes(b"first")
    first = vault.restore()
    path.write_bytes(b"second")
    second = vault.restore()
    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"second")


def test_a_copy_from_elsewhere_can_be_brought_back(open_vault, path, tmp_path):
    vault = open_vault()
    vault.put("KEY", "one")
    copies = tmp_path / "copies"
    copies.mkdir(mode=0o755)
    shutil.copyfile(path, copies / "monday.silo")
    (copies / "monday.silo").chmod(0o644)  # as on a disk that knows no modes; it is sealed
    for number in range(5):
        vault.put("KEY", f"later {number}")
    vault.restore(copies / "monday.silo")
    assert values(open_vault()) == {"KEY": "one"}
    assert vault.status().generation == 7


def test_what_can_not_be_opened_is_not_brought_back(open_vault, path):
    vault = open_vault()
    vault.put("KEY", "one")
    vault.put("KEY", "two")
    before = path.read_bytes()
    path.with_name("credentials.silo.bak").write_bytes(b"damaged")
    with pytest.raises(VaultDamaged):
        vault.restore()
    path.with_name("credentials.silo.bak").unlink()
    with pytest.raises(SecretNotFound, match="does not exist"):
        vault.restore()
    with pytest.raises(VaultLocked):
        open_vault("11" * 32).restore(path)
    for elsewhere in (path.parent.parent / "nothing", path.parent.parent):
        with pytest.raises(SourceUnreadable):
            vault.restore(elsewhere)
    assert path.read_bytes() == before


def test_what_is_remembered_is_one_line_in_one_spelling():
    known = KnownGeneration(b"i" * 16, 7, b"m" * 32)
    assert KnownGeneration.parse(known.encode()) == known
    assert KnownGeneration.parse(b"") is None
    for other in (known.encode() + b"x", known.encode()[:-1], b"silo-seen 2" + known.encode()[11:], b"\xff"):
        with pytest.raises(ValueError):
            KnownGeneration.parse(other)
    assert known.compare(known) is Order.SAME
    assert known.compare(KnownGeneration(b"i" * 16, 8, b"n" * 32)) is Order.NEWER
    assert known.compare(KnownGeneration(b"i" * 16, 6, b"n" * 32)) is Order.OLDER
    assert known.compare(KnownGeneration(b"i" * 16, 7, b"n" * 32)) is Order.OLDER
    assert known.compare(KnownGeneration(b"j" * 16, 9, b"n" * 32)) is Order.OTHER
