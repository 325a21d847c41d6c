import hashlib
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from silo_vault import EnvironmentKey, Vault, VaultBusy, VaultDamaged, VaultLocked
from silo_vault.storage import VaultFiles

KEY = "00112233445566778899aabbccddeeff" * 2
WRITER = [sys.executable, str(Path(__file__).with_name("writer.py"))]
PATIENCE_S = 300.0


def writer(
    path: Path, *arguments: str, key: str = KEY, through: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*through, *WRITER, str(path), key, *arguments], stdout=subprocess.PIPE, check=False, timeout=PATIENCE_S
    )


# --- owners and modes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666, 0o601])
def test_a_file_open_to_others_is_refused_with_the_command_that_fixes_it(open_vault, path, mode):
    open_vault().put("A", "1")
    path.chmod(mode)
    for attempt in (open_vault().names, open_vault().status, lambda: open_vault().put("A", "2")):
        with pytest.raises(VaultDamaged, match="open to other users") as caught:
            attempt()
        assert caught.value.hint == f"chmod 600 {path}"
    subprocess.run(["sh", "-c", caught.value.hint], check=True)
    assert open_vault().get("A").reveal() == "1"


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777, 0o701])
def test_a_folder_open_to_others_is_refused_with_the_command_that_fixes_it(open_vault, path, mode):
    open_vault().put("A", "1")
    path.parent.chmod(mode)
    for attempt in (open_vault().names, lambda: open_vault().put("A", "2")):
        with pytest.raises(VaultDamaged, match="open to other users") as caught:
            attempt()
        assert caught.value.hint == f"chmod 700 {path.parent}"
    subprocess.run(["sh", "-c", caught.value.hint], check=True)
    assert open_vault().get("A").reveal() == "1"


def test_a_link_in_the_place_of_any_of_the_files_is_refused_and_not_followed(open_vault, path, tmp_path):
    open_vault().put("A", "1")
    target = tmp_path / "target"
    for name in ("credentials.silo", "credentials.silo.lock"):
        place = path.with_name(name)
        place.rename(target)
        before = target.read_bytes()
        place.symlink_to(target)
        with pytest.raises(VaultDamaged, match="link"):
            open_vault().put("A", "2")
        assert target.read_bytes() == before
        place.unlink()
        target.rename(place)
    assert open_vault().get("A").reveal() == "1"


def test_a_link_in_the_place_of_the_backup_is_replaced_and_its_target_untouched(open_vault, path, tmp_path):
    open_vault().put("A", "1")
    target = tmp_path / "target"
    target.write_text("precious")
    path.with_name("credentials.silo.bak").symlink_to(target)
    open_vault().put("A", "2")
    assert target.read_text() == "precious"
    assert not path.with_name("credentials.silo.bak").is_symlink()


def test_a_hard_link_is_a_copy_of_one_generation(open_vault, path, tmp_path):
    """Backup programs make hard links. A save makes a new file, so the file that a link names never changes."""
    open_vault().put("A", "1")
    link = tmp_path / "link"
    os.link(path, link)
    kept = link.read_bytes()
    assert open_vault().get("A").reveal() == "1"
    open_vault().put("A", "2")
    assert link.read_bytes() == kept
    assert path.stat().st_nlink == 1


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_not_a_file_is_refused_at_once(open_vault, path, kind):
    if kind == "folder":
        path.mkdir(mode=0o700)
    else:
        os.mkfifo(path, 0o600)
    for attempt in (open_vault().names, lambda: open_vault().put("A", "1")):
        with pytest.raises(VaultDamaged):
            attempt()


def test_a_file_or_folder_of_another_user_is_refused(open_vault, path):
    open_vault().put("A", "1")
    if os.geteuid() != 0:  # only root can change an owner; for other users root's own folders serve
        with pytest.raises(VaultDamaged, match="another user"):
            Vault(Path("/usr/credentials.silo"), [EnvironmentKey(KEY)]).names()
        return
    for place in (path, path.parent):
        os.chown(place, 65534, 65534)
        with pytest.raises(VaultDamaged, match="another user"):
            open_vault().names()
        os.chown(place, 0, 0)
    assert open_vault().names() == ("A",)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(VaultDamaged, match="not a folder"):
        Vault(tmp_path / "home" / "credentials.silo", [EnvironmentKey(KEY)]).names()


def test_a_file_larger_than_any_vault_is_not_read(open_vault, path):
    open_vault().put("A", "1")
    with path.open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(VaultDamaged, match="more than a vault can have"):
        open_vault().names()


# --- one writer at a time ---------------------------------------------------------------------------------------------


def test_writers_in_many_processes_lose_no_entry_and_no_reader_ever_fails(open_vault, path):
    open_vault().create()
    command = [*WRITER, str(path), KEY, "many"]
    processes = [subprocess.Popen([*command, f"P{which}", "50"]) for which in range(8)]
    known = 0
    while any(process.poll() is None for process in processes):
        names = open_vault().names()
        assert len(names) >= known
        known = len(names)
    assert [process.wait() for process in processes] == [0] * 8
    assert {place[1]: secret.reveal() for place, secret in open_vault().get_all().items()} == {
        f"P{which}_{number}": f"P{which} {number}" for which in range(8) for number in range(50)
    }


def test_a_writer_that_hangs_is_named_and_one_that_died_is_forgotten(open_vault, path):
    open_vault().put("A", "1")
    holder = subprocess.Popen([*WRITER, str(path), KEY, "hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(VaultBusy, match=rf"\b{holder.pid}\b") as caught:
            open_vault(lock_timeout_s=0.05).put("A", "2")
        assert str(holder.pid) in caught.value.hint
        assert open_vault().get("A").reveal() == "1"  # readers don't wait
    finally:
        holder.kill()
        holder.communicate()
    open_vault(lock_timeout_s=0.0).put("A", "2")
    assert open_vault().get("A").reveal() == "2"


def test_what_a_killed_writer_left_is_swept_and_nothing_else(open_vault, path):
    open_vault().put("A", "1")
    stale = path.with_name(".credentials.silo.12345.0123456789abcdef.tmp")
    stale.write_bytes(b"half")
    others = [
        path.with_name(name) for name in (".other.silo.1.0123456789abcdef.tmp", "notes.tmp", ".credentials.silo.swp")
    ]
    for other in others:
        other.write_text("mine")
    open_vault().put("A", "2")
    assert not stale.exists()
    assert all(other.read_text() == "mine" for other in others)


def test_a_failure_while_the_lock_is_held_lets_go_of_it(path, folder):
    files = VaultFiles(path)
    with pytest.raises(ZeroDivisionError), files.writing(timeout_s=0):
        raise ZeroDivisionError
    with files.writing(timeout_s=0):
        pass


# --- a save is complete or has no effect ------------------------------------------------------------------------------


def opens(path: Path, key: str) -> bool:
    """Whether this key opens the vault."""
    try:
        Vault(path, [EnvironmentKey(key)]).names()
    except VaultLocked:
        return False
    return True


def state(path: Path, key: str = KEY) -> dict[str, str]:
    """Return the contents of the vault; raise if it does not open."""
    vault = Vault(path, [EnvironmentKey(key)])
    return {name: vault.get(name).reveal() for name in vault.names()}


def temporaries(path: Path) -> list[str]:
    return [file.name for file in path.parent.iterdir() if file.name.endswith(".tmp")]


def strace(calls: str, injection: str, path: Path) -> tuple[str, ...]:
    """A command that runs another and injects a failure into the nth of some system calls, with a log file."""
    return (
        "strace",
        "--follow-forks",
        "--quiet=all",
        f"--trace={calls}",
        f"--inject={calls}:{injection}",
        f"--output={path.parent.parent / 'strace.log'}",
    )


CHANGING = (
    "/^(openat|close|flock|ftruncate|pwrite64|write|fchmod|fsync|rename|renameat|link|linkat|unlink|unlinkat|mkdir)$"
)
"""The system calls that change files, and those around them."""


def calls_of(path: Path, key: str, *arguments: str) -> list[tuple[str, int]]:
    """Run the action once. Return the writer's system calls after its marker: each with its name and number."""
    through = ("strace", "--quiet=all", f"--trace={CHANGING}", f"--output={path.parent.parent / 'strace.log'}")
    subprocess.run([*through, *WRITER, str(path), key, *arguments], check=True, timeout=PATIENCE_S)
    counts: Counter[str] = Counter()
    calls: list[tuple[str, int]] = []
    is_behind = False
    for line in (path.parent.parent / "strace.log").read_text().splitlines():
        name, bracket, _ = line.partition("(")
        if not bracket:
            continue
        counts[name] += 1
        if is_behind:
            calls.append((name, counts[name]))
        is_behind = is_behind or "/silo-vault-marker" in line
    return calls


@pytest.mark.parametrize("action", ["put", "rekey", "rotate", "restore"])
def test_a_writer_killed_at_any_system_call_leaves_the_old_or_the_new(open_vault, path, action):
    """No two files ever have to agree. One key opens the vault, which has either the old contents or the new ones."""
    for _ in range(2):  # twice, so that there is a backup with the same contents
        open_vault().put("KEPT", "kept")
        open_vault().put("NEW", "0")
    key, new_key = KEY, KEY if action != "rekey" else hashlib.sha256(b"0").hexdigest()
    arguments = {"put": ["put", "NEW", "0"], "rekey": ["rekey", new_key]}.get(action, [action])
    kills = 0
    calls = calls_of(path, key, *arguments)
    key = new_key
    assert len(calls) > 15
    for number, (call, nth) in enumerate(calls, start=1):
        wanted = str(number) if action == "put" else "0"
        if action == "rekey":
            new_key = hashlib.sha256(b"%d" % number).hexdigest()
        arguments = {"put": ["put", "NEW", wanted], "rekey": ["rekey", new_key]}.get(action, [action])
        old = state(path, key)
        done = writer(path, *arguments, key=key, through=strace(call, f"signal=SIGKILL:when={nth}", path))
        assert done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL)
        kills += done.returncode != 0
        opened = [candidate for candidate in dict.fromkeys((key, new_key)) if opens(path, candidate)]
        assert len(opened) == 1
        key = opened[0]
        new = state(path, key)
        assert new in (old, old | {"NEW": wanted})
        if done.returncode == 0:
            assert (key, new) == (new_key, old | {"NEW": wanted})
    assert kills > 15
    Vault(path, [EnvironmentKey(key)]).put("NEXT", "1")
    assert temporaries(path) == []


@pytest.mark.parametrize(
    ("calls", "error"),
    [("write", "ENOSPC"), ("fsync", "EIO"), ("/^rename", "EROFS"), ("fchmod", "EPERM"), ("pwrite64", "ENOSPC")],
)
def test_a_save_that_the_disk_refuses_is_an_error_and_changes_nothing(open_vault, path, calls, error):
    """The exceptions come last: the rename of the backup and the flush of the folder. The error says so then."""
    open_vault().put("KEPT", "kept")
    failures = 0
    for number in range(1, 10):
        old, before = state(path), path.read_bytes()
        done = writer(
            path, "put", "NEW", f"value {number}", through=strace(calls, f"error={error}:when={number}", path)
        )
        assert temporaries(path) == []
        if done.returncode == 0:
            assert state(path)["NEW"] == f"value {number}"
            break
        failures += 1
        assert done.returncode == 7
        if b"is in place" in done.stdout:
            assert (calls, number) in (("fsync", 3), ("/^rename", 2))
            assert state(path) == old | {"NEW": f"value {number}"}
        else:
            assert done.stdout.startswith(b"vault-not-written: "), done.stdout
            assert path.read_bytes() == before
    assert failures == {"write": 2, "fsync": 3, "/^rename": 2, "fchmod": 2, "pwrite64": 1}[calls]


@pytest.mark.parametrize("action", ["rekey", "rotate", "restore"])
@pytest.mark.parametrize(("calls", "error"), [("write", "ENOSPC"), ("fsync", "EIO"), ("/^rename", "EROFS")])
def test_a_change_of_keys_that_the_disk_refuses_changes_nothing(open_vault, path, action, calls, error):
    """Each write, flush and rename of an action that seals values again is made to fail."""
    for _ in range(2):
        open_vault().put("KEPT", "kept")
    arguments = ["rekey", "ab" * 32] if action == "rekey" else [action]
    for number in range(1, 4):
        before = path.read_bytes()
        done = writer(path, *arguments, through=strace(calls, f"error={error}:when={number}", path))
        assert temporaries(path) == []
        if done.returncode == 0 or b"is in place" in done.stdout:
            return  # the next write is that of the known generation, which may fail
        assert done.stdout.startswith(b"vault-not-written: "), done.stdout
        assert path.read_bytes() == before
        assert state(path) == {"KEPT": "kept"}
    pytest.fail("it never succeeded")


def test_a_short_write_is_completed(open_vault, path):
    open_vault().put("KEPT", "kept")
    done = writer(path, "put", "NEW", "value", through=strace("write", "retval=1:when=1", path))
    # strace reports one written byte without writing it, so the file lacks it. The rest must still be written.
    assert done.returncode == 0
    log = (path.parent.parent / "strace.log").read_text()
    assert len(re.findall(r"write\(\d+, ", log)) >= 3


def test_a_disk_that_is_full_is_an_error_and_changes_nothing(open_vault, path):
    open_vault().put("KEPT", "kept")
    before = path.read_bytes()
    done = writer(path, "small", "NEW", "x" * 1000)
    assert done.returncode == 7
    assert done.stdout.startswith(b"vault-not-written: ")
    assert path.read_bytes() == before
    assert temporaries(path) == []
    open_vault().put("NEW", "value")
    assert state(path) == {"KEPT": "kept", "NEW": "value"}


def test_a_new_file_is_never_wider_than_its_owner_for_a_moment(open_vault, path):
    """The call that makes the file sets the mode and follows no link."""
    through = ("strace", "--quiet=all", "--trace=openat", f"--output={path.parent.parent / 'strace.log'}")
    assert writer(path, "put", "NEW", "value", through=through).returncode == 0
    log = (path.parent.parent / "strace.log").read_text()
    made = [line for line in log.splitlines() if "O_CREAT" in line and "credentials.silo" in line]
    assert len(made) == 3  # the lock, a temporary for the vault, and one for the known generation
    for line in made:
        assert ", 0600)" in line
        assert "O_NOFOLLOW" in line
        assert "O_EXCL" in line or ".lock" in line
