"""An older vault file is detected, and `restore` is the deliberate way to use one."""

import shutil

import pytest
from silo_vault import (
    EnvironmentKey,
    KeysReturn,
    SecretNotFound,
    SourceUnreadable,
    Vault,
    VaultDamaged,
    VaultLocked,
    VaultRolledBack,
)
from silo_vault.format import decode
from silo_vault.rollback import KnownGeneration, Order

KEY = "00112233445566778899aabbccddeeff" * 2


def values(vault):
    return {entry.name: vault.get(entry.name).reveal() for entry in vault.entries()}


def key_ids(vault):
    return [slot.key_id for slot in vault.status().keys]


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
    assert open_vault().restore(path).aside is None
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
    with pytest.raises(KeysReturn, match="perhaps do not open"):  # nobody knows which keys were removed
        open_vault().restore(path)
    open_vault().restore(path, keys=key_ids(open_vault()))
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
    assert vault.restore().aside is None
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
    aside = vault.restore().aside
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
    first = vault.restore().aside
    path.write_bytes(b"second")
    second = vault.restore().aside
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
    known = KnownGeneration(b"i" * 16, 7, b"m" * 32, 9, frozenset({"00" * 8, "ff" * 8}))
    assert KnownGeneration.parse(known.encode()) == known
    first = KnownGeneration(b"i" * 16, 7, b"m" * 32)
    version_1 = b"silo-seen 1 " + b"69" * 16 + b" 7 " + b"6d" * 32 + b"\n"
    assert KnownGeneration.parse(version_1) == first
    assert KnownGeneration.parse(b"") is None
    line = known.encode()
    for other in (
        *(line + b"x", line[:-1], line[:-2] + b"\n", line[:-1] + b",\n", b"\xff", line.replace(b" 9 ", b" ")),
        *(b"silo-seen 1" + line[11:], b"silo-seen 3" + line[11:], b"silo-seen 2" + version_1[11:]),
        *(line.replace(b" 7 ", b" %d " % 2**63), line.replace(b" 9 ", b" %d " % (2**32 + 1))),
    ):
        with pytest.raises(ValueError):
            KnownGeneration.parse(other)
    assert known.compare(known) is Order.SAME
    assert known.compare(KnownGeneration(b"i" * 16, 8, b"n" * 32)) is Order.NEWER
    assert known.compare(KnownGeneration(b"i" * 16, 6, b"n" * 32)) is Order.OLDER
    assert known.compare(KnownGeneration(b"i" * 16, 7, b"n" * 32)) is Order.OLDER
    assert known.compare(KnownGeneration(b"j" * 16, 9, b"n" * 32)) is Order.OTHER


# --- a vault that was here and is gone --------------------------------------------------------------------------------


def traces(path):
    """Make a vault with every file that can be beside it, and return the paths of these."""
    vault = Vault(path, [EnvironmentKey(KEY)])
    for value in ("one", "two", "three"):
        vault.put("KEY", value)
    aside = path.with_name("credentials.silo.aside-1")
    next_backup = path.with_name(f".credentials.silo.{'ab' * 32}.bak")
    for made in (aside, next_backup):
        shutil.copy(path, made)
    return [vault.backup, path.with_name("credentials.silo.seen"), aside, next_backup]


@pytest.mark.parametrize("which", range(4))
def test_a_vault_that_left_any_trace_is_never_replaced_by_an_empty_one(open_vault, path, which):
    all_traces = traces(path)
    for place in (path, *all_traces[:which], *all_traces[which + 1 :]):
        place.unlink()
    vault = open_vault()
    for attempt in (
        vault.names,
        vault.status,
        vault.create,
        vault.canaries,
        vault.rotate,
        lambda: vault.get("KEY"),
        lambda: vault.put("KEY", "four"),
        lambda: vault.put_all({("", "KEY"): "four"}),
        lambda: vault.remove("KEY"),
        lambda: vault.add_canary("DECOY"),
    ):
        with pytest.raises(VaultDamaged, match="is missing, but there was a vault") as caught:
            attempt()
        assert "silo vault restore" in caught.value.hint
    assert not path.exists()
    all_traces[which].unlink()
    vault.put("KEY", "new")
    assert values(open_vault()) == {"KEY": "new"}


def test_a_copy_brings_a_vault_back_of_which_only_the_memory_is_left(open_vault, path, tmp_path):
    for place in traces(path)[:1] + traces(path)[2:]:
        place.unlink()
    path.rename(tmp_path / "copy")
    open_vault().restore(tmp_path / "copy")
    assert values(open_vault()) == {"KEY": "three"}


# --- keys that were removed, and counters -----------------------------------------------------------------------------

NEW = "cd" * 32


def rekeyed(open_vault, path, copy):
    """Make a vault, copy it, replace its key and one value; return the id of the key that was removed."""
    vault = open_vault()
    vault.put_all({("", "KEY"): "one", ("", "REMOVED"): "r", ("skill", "SAME"): "s"})
    shutil.copy(path, copy)
    [old] = key_ids(vault)
    vault.rekey(add=[EnvironmentKey(NEW)], remove=[old])
    vault = open_vault(NEW)
    vault.put("KEY", "two")
    vault.put("ADDED", "a")
    vault.remove("REMOVED")
    return old


def both(path):
    """A vault object that has the old key and the new one."""
    return Vault(path, [EnvironmentKey(KEY), EnvironmentKey(NEW)])


def test_secrets_come_back_and_removed_keys_do_not(open_vault, path, tmp_path):
    rekeyed(open_vault, path, tmp_path / "copy")
    done = both(path).restore(tmp_path / "copy")
    assert done.keys == ()
    assert [(info.namespace, info.name) for info in done.returned] == [("", "REMOVED")]
    assert [info.name for info in done.earlier] == ["KEY"]
    assert [info.name for info in done.gone] == ["ADDED"]
    assert open_vault(NEW).get("KEY").reveal() == "one"
    assert open_vault(NEW).names() == ("KEY", "REMOVED")
    with pytest.raises(VaultLocked):
        open_vault(KEY).names()


@pytest.mark.parametrize("rotated", [False, True])
def test_no_counter_falls_and_no_old_data_key_comes_back(open_vault, path, tmp_path, rotated):
    vault = open_vault()
    vault.put_all({("", "KEY"): "one", ("", "OTHER"): "o"})
    shutil.copy(path, tmp_path / "copy")
    if rotated:
        vault.rotate()
    for number in range(5):
        vault.put("KEY", f"later {number}")
    before = decode(path.read_bytes()).header
    vault.restore(tmp_path / "copy")
    after = decode(path.read_bytes()).header
    assert after.wraps == before.wraps
    assert after.generation == before.generation + 1
    assert after.seals == before.seals + (2 if rotated else 0)
    assert values(open_vault()) == {"KEY": "one", "OTHER": "o"}


def test_a_counter_does_not_fall_because_the_present_file_is_damaged(open_vault, path, tmp_path):
    vault = open_vault()
    vault.put("KEY", "one")
    shutil.copy(path, tmp_path / "copy")
    for number in range(5):
        vault.put("KEY", f"later {number}")
    path.write_bytes(b"damaged")
    vault.restore(tmp_path / "copy")
    status = vault.status()
    assert (status.generation, status.seals) == (7, 6)


@pytest.mark.parametrize("present", ["damaged", "missing", "rolled back", "missing, with a memory of version 1"])
def test_a_removed_key_opens_the_vault_again_only_if_it_is_named(open_vault, path, tmp_path, present):
    old = rekeyed(open_vault, path, tmp_path / "copy")
    if "version 1" in present:
        seen = path.with_name("credentials.silo.seen")
        _, _, *parts = seen.read_text().split()
        seen.write_text(f"silo-seen 1 {' '.join(parts[:3])}\n")
    if present == "damaged":
        path.write_bytes(b"damaged")
    elif present == "rolled back":
        shutil.copy(tmp_path / "copy", path)
    else:
        path.unlink()
    before = {place.name: place.read_bytes() for place in path.parent.iterdir() if place.suffix != ".lock"}
    for agreed in ([], ["00" * 8]):
        with pytest.raises(KeysReturn, match=old) as caught:
            both(path).restore(tmp_path / "copy", keys=agreed)
        assert f"--accept-key {old}" in caught.value.hint
        assert [slot.key_id for slot in caught.value.restoration.keys] == [old]
    after = {place.name: place.read_bytes() for place in path.parent.iterdir() if place.suffix != ".lock"}
    assert after == before
    done = both(path).restore(tmp_path / "copy", keys=[old])
    assert [slot.key_id for slot in done.keys] == [old]
    assert not done.is_compared
    assert (done.aside is not None) is (present in ("damaged", "rolled back"))
    assert open_vault(KEY).get("KEY").reveal() == "one"


def test_a_rolled_back_file_gives_its_keys_to_nothing(open_vault, path, tmp_path):
    """It opens, but is not the newest: what it says of keys does not count, and neither does it become the backup."""
    rekeyed(open_vault, path, tmp_path / "copy")
    kept = path.with_name("credentials.silo.bak").read_bytes()
    shutil.copy(tmp_path / "copy", path)
    done = both(path).restore()
    assert done.keys == ()
    assert done.aside is not None
    assert path.with_name("credentials.silo.bak").read_bytes() == kept
    with pytest.raises(VaultLocked):
        open_vault(KEY).names()
    assert open_vault(NEW).get("REMOVED").reveal() == "r"


def test_accepting_a_rollback_to_a_removed_key_takes_its_name_too(open_vault, path, tmp_path):
    old = rekeyed(open_vault, path, tmp_path / "copy")
    kept = path.with_name("credentials.silo.bak").read_bytes()
    shutil.copy(tmp_path / "copy", path)
    with pytest.raises(KeysReturn, match=old):
        open_vault(KEY).restore(path)
    open_vault(KEY).restore(path, keys=[old])
    assert open_vault(KEY).get("KEY").reveal() == "one"
    assert path.with_name("credentials.silo.bak").read_bytes() == kept  # a newer generation than the accepted one


def test_a_damaged_file_whose_keys_are_the_remembered_ones_needs_no_question(open_vault, path):
    vault = open_vault()
    vault.put("KEY", "one")
    vault.put("KEY", "two")
    path.write_bytes(b"damaged")
    assert vault.restore().keys == ()


def test_a_copy_on_a_new_machine_needs_no_question(open_vault, path, tmp_path):
    vault = open_vault()
    vault.put("KEY", "one")
    new = Vault(tmp_path / "new" / "credentials.silo", [EnvironmentKey(KEY)])
    assert new.restore(path).keys == ()
    assert values(new) == {"KEY": "one"}


# --- the backup after a change of keys --------------------------------------------------------------------------------


def test_the_backup_opens_with_no_key_that_was_removed(open_vault, path):
    vault = open_vault()
    vault.put("KEY", "one")
    vault.put("KEY", "two")
    vault.rekey(add=[EnvironmentKey(NEW)], remove=key_ids(vault))
    backup = path.with_name("credentials.silo.bak")
    with pytest.raises(VaultLocked):
        open_vault(KEY).restore(backup)
    path.write_bytes(b"damaged")
    open_vault(NEW).restore()
    assert open_vault(NEW).get("KEY").reveal() == "two"


def test_the_backup_of_a_rotated_vault_is_under_the_new_data_key(open_vault, path):
    vault = open_vault()
    vault.put("KEY", "one")
    header = decode(path.read_bytes()).header
    stolen = EnvironmentKey(KEY).unwrap(header.wraps[0], vault_id=header.vault_id)
    vault.rotate()
    kept = decode(path.with_name("credentials.silo.bak").read_bytes()).header
    assert EnvironmentKey(KEY).unwrap(kept.wraps[0], vault_id=header.vault_id) != stolen


def test_a_key_that_is_only_added_leaves_the_backup_a_generation_behind(open_vault, path):
    vault = open_vault()
    vault.put("KEY", "one")
    before = path.read_bytes()
    vault.rekey(add=[EnvironmentKey(NEW)])
    assert path.with_name("credentials.silo.bak").read_bytes() == before
