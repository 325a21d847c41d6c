"""Every change of a vault, ended at every one of its steps: it has no effect or its whole effect, and says which.

The change runs in a forked process in which the nth call into `os` that touches a file fails, or never returns.
`silo_vault.storage` changes files only through `os`. This is faster than strace, so that every step of every change can
be tried; `test_storage.py` tries some with real system calls.
"""

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from silo_vault import EnvironmentKey, Vault, VaultDamaged, VaultError, VaultLocked
from silo_vault.storage import VaultFiles

KEY, NEW_KEY = "00112233445566778899aabbccddeeff" * 2, "cd" * 32
BEFORE, LATER = {"KEPT": "kept", "NAME": "before"}, {"KEPT": "kept", "NAME": "later", "ADDED": "added"}
GARBAGE = b"this does not open"

Contents = dict[str, str]


# --- faults ---------------------------------------------------------------------------------------------------------

CALLS = ("open", "close", "write", "pwrite", "ftruncate", "fchmod", "fsync", "rename", "link", "unlink", "mkdir")
"""The functions of `os` that change files, and those around them."""

NEEDS_ROOM = frozenset({"write", "pwrite", "link", "mkdir", "rename"})

Fault = Literal["killed", "refused"]
FAULTS: tuple[Fault, ...] = ("killed", "refused")
"""`killed`: SIGKILL in place of the call. `refused`: the disk is full, or broken for calls that need no room on it."""


@dataclass(frozen=True)
class Outcome:
    """How the action ended.

    Attributes:
        end: `done`, `killed` or `failed`.
        said: code, message and hint of the `VaultError` that it ended with.
        is_hit: whether there were so many calls that the fault came.
    """

    end: str
    said: str
    is_hit: bool


def run_with_fault(action: Callable[[], Any], nth: int, fault: Fault) -> Outcome:
    """Run an action whose `nth` call (from 1) meets the fault; another error than a `VaultError` fails the test."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _child(action, nth, fault, theirs)
    os.close(theirs)
    said = b"".join(iter(lambda: os.read(ours, 65536), b"")).decode()
    os.close(ours)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return Outcome("killed", "", is_hit=True)
    end, is_hit, said = said.split(" ", 2)
    assert end in ("done", "failed"), said
    return Outcome(end, said, is_hit == "hit")


def _child(action: Callable[[], Any], nth: int, fault: Fault, pipe: int) -> None:
    write, calls = os.write, 0

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def meet(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls != nth:
                return call(*arguments, **named)
            if fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if call.__name__ == "close":
                call(*arguments, **named)  # Linux closes a descriptor even if it reports an error
            number = errno.ENOSPC if call.__name__ in NEEDS_ROOM else errno.EIO
            raise OSError(number, os.strerror(number))

        return meet

    try:
        for name in CALLS:
            setattr(os, name, wrapped(getattr(os, name)))
        action()
        end, said = "done", ""
    except VaultError as error:
        end, said = "failed", f"{error.code}: {error.message} | {error.hint}"
    except BaseException as error:
        end, said = "broken", repr(error)
    write(pipe, f"{end} {'hit' if calls >= nth else 'missed'} {said}".encode())
    os._exit(0)


# --- changes --------------------------------------------------------------------------------------------------------


def vault_of(path: Path, key: str = KEY) -> Vault:
    return Vault(path, [EnvironmentKey(key)])


def contents(path: Path, key: str = KEY) -> Contents | None:
    """Return the secrets that this key gives; None if it does not open the file."""
    try:
        return {name: secret.reveal() for (_, name), secret in vault_of(path, key).get_all().items()}
    except VaultLocked:
        return None


def opened_copy(file: Path, place: Path, key: str = KEY) -> Contents | None:
    """Return what one file holds by itself, without the files beside it."""
    place.mkdir(mode=0o700)
    try:
        shutil.copyfile(file, place / "credentials.silo")
        (place / "credentials.silo").chmod(0o600)
        return contents(place / "credentials.silo", key)
    finally:
        shutil.rmtree(place)


def two_generations(path: Path) -> None:
    vault_of(path).put_all({("", name): value for name, value in BEFORE.items()})
    vault_of(path).put_all({("", name): value for name, value in LATER.items()})


def damaged(path: Path) -> None:
    two_generations(path)
    path.write_bytes(GARBAGE)


def a_folder_in_place(path: Path) -> None:
    two_generations(path)
    path.unlink()
    path.mkdir(mode=0o700)


def gone(path: Path) -> None:
    two_generations(path)
    path.unlink()


def rolled_back(path: Path) -> None:
    two_generations(path)
    path.write_bytes(path.with_name("credentials.silo.bak").read_bytes())


def copied_elsewhere(path: Path) -> None:
    two_generations(path)
    shutil.copyfile(path.with_name("credentials.silo.bak"), path.parent.parent / "copy")


def another_vault(path: Path) -> None:
    other = path.with_name("other.silo")
    vault_of(other).put_all({("", name): value for name, value in BEFORE.items()})
    shutil.copyfile(other, path.parent.parent / "copy")
    for file in path.parent.iterdir():
        file.unlink()
    two_generations(path)


def replace_key(path: Path) -> None:
    vault = vault_of(path)
    vault.rekey(add=[EnvironmentKey(NEW_KEY)], remove=[vault.status().keys[0].key_id])


@dataclass(frozen=True)
class Case:
    """A change, with the state before it and after it.

    Attributes:
        old, new: what the vault holds; None if the file does not open, or there is none.
        keeps: what the vault, its backup or a file set aside must hold at every moment.
        new_key: opens the new state.
        backup: what the backup holds in the new state.
    """

    prepare: Callable[[Path], None]
    change: Callable[[Path], Any]
    old: Contents | None
    new: Contents | None
    keeps: tuple[Contents, ...] = ()
    new_key: str = KEY
    backup: Contents | None = None


CASES = {
    "first put": Case(lambda path: None, lambda path: vault_of(path).put("A", "1"), {}, {"A": "1"}),
    "create": Case(lambda path: None, lambda path: vault_of(path).create(), {}, {}),
    "put": Case(
        *(two_generations, lambda path: vault_of(path).put("B", "2"), LATER, LATER | {"B": "2"}),
        keeps=(LATER,),
        backup=LATER,
    ),
    "import": Case(
        *(two_generations, lambda path: vault_of(path).put_all({("", "B"): "2", ("", "C"): "3"})),
        *(LATER, LATER | {"B": "2", "C": "3"}),
        keeps=(LATER,),
        backup=LATER,
    ),
    "remove": Case(
        *(two_generations, lambda path: vault_of(path).remove("ADDED")),
        *(LATER, {"KEPT": "kept", "NAME": "later"}),
        keeps=(LATER,),
        backup=LATER,
    ),
    "rekey": Case(two_generations, replace_key, LATER, LATER, new_key=NEW_KEY, backup=LATER),
    "rotate": Case(two_generations, lambda path: vault_of(path).rotate(), LATER, LATER, (LATER,), backup=LATER),
    "lock": Case(two_generations, lambda path: vault_of(path).lock(), LATER, LATER, (LATER, BEFORE), backup=BEFORE),
    "restore": Case(
        *(two_generations, lambda path: vault_of(path).restore(), LATER, BEFORE, (LATER, BEFORE)), backup=LATER
    ),
    "restore over damage": Case(
        *(damaged, lambda path: vault_of(path).restore(), None, BEFORE, (BEFORE,)), backup=BEFORE
    ),
    "restore over a folder": Case(
        *(a_folder_in_place, lambda path: vault_of(path).restore(), None, BEFORE, (BEFORE,)), backup=BEFORE
    ),
    "restore what is gone": Case(
        *(gone, lambda path: vault_of(path).restore(), None, BEFORE, (BEFORE,)), backup=BEFORE
    ),
    "accept a rollback": Case(
        *(rolled_back, lambda path: vault_of(path).restore(path), None, BEFORE, (BEFORE,)), backup=BEFORE
    ),
    "restore a copy": Case(
        *(copied_elsewhere, lambda path: vault_of(path).restore(path.parent.parent / "copy"), LATER, BEFORE, (LATER,)),
        backup=LATER,
    ),
    "restore another vault": Case(
        *(another_vault, lambda path: vault_of(path).restore(path.parent.parent / "copy"), LATER, BEFORE, (LATER,)),
        backup=LATER,
    ),
}


def state(path: Path, case: Case) -> str:
    """Return `old` or `new`; fail if the vault is neither."""
    found = {}
    for which, key, wanted in (("old", KEY, case.old), ("new", case.new_key, case.new)):
        try:
            found[which] = contents(path, key) == wanted
        except VaultDamaged as error:
            found[which] = wanted is None and ("silo vault restore" in error.hint or path.is_dir())
    if case.old == case.new and case.new_key == KEY:
        return "either"
    assert list(found.values()).count(True) == 1, (found, snapshot(path.parent))
    return next(which for which, is_it in found.items() if is_it)


def check(path: Path, case: Case, outcome: Outcome, before: dict[str, bytes | None]) -> None:
    """Check everything that must hold after the fault."""
    found = state(path, case)
    if outcome.end == "done":
        assert found in ("new", "either")
    elif outcome.end == "failed":
        assert outcome.said.startswith(
            ("vault-not-written: ", "vault-damaged: ", "source-unreadable: ", "keys-return: ")
        ), outcome.said
        if "is in place" in outcome.said:
            assert found in ("new", "either"), outcome.said
        else:
            assert found in ("old", "either"), outcome.said
            files = snapshot(path.parent)
            for name in ("credentials.silo", "credentials.silo.bak"):
                assert files.get(name) == before.get(name), outcome.said
    with VaultFiles(path).writing(timeout_s=0):
        pass  # the next writer finishes what was left, or removes it; nothing is lost by that
    files = [place for place in path.parent.iterdir() if place.is_file() and place.stat().st_size > 300]
    held = [opened_copy(place, path.parent.parent / "alone", key) for place in files for key in {KEY, case.new_key}]
    assert all(wanted in held for wanted in case.keeps)
    if GARBAGE in before.values():
        assert GARBAGE in snapshot(path.parent).values()
    if found == "old" and case.old is None:
        case.change(path)  # what was restored is still there
        assert state(path, case) == "new"
        return
    key = KEY if found == "old" else case.new_key
    vault_of(path, key).create()
    # If the present file can't be read at all, `restore` sets it aside, and the backup stays.
    is_aside = any("aside" in place.name for place in path.parent.iterdir())
    if found == "new" and case.backup is not None and not is_aside:
        backup = path.with_name("credentials.silo.bak")
        assert opened_copy(backup, path.parent.parent / "alone", key) == case.backup
        if key != KEY:
            assert opened_copy(backup, path.parent.parent / "alone", KEY) is None
    vault_of(path, key).put("NEXT", "1")
    wanted = case.old if found == "old" else case.new
    assert wanted is not None
    assert contents(path, key) == wanted | {"NEXT": "1"}
    assert not [place for place in path.parent.iterdir() if place.name.startswith(".")]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Return the content of each file of a folder; None for what is no file."""
    return {place.name: place.read_bytes() if place.is_file() else None for place in folder.iterdir()}


# --- the test -------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder in memory where there is one, because the test makes thousands of files."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CASES)
def test_a_change_that_ends_at_any_step_has_no_effect_or_its_whole_effect(quick: Path, name: str, fault: Fault):
    case = CASES[name]
    prepared = quick / "prepared"
    prepared.mkdir()
    (prepared / "home").mkdir(mode=0o700)
    case.prepare(prepared / "home" / "credentials.silo")
    hits = 0
    for nth in range(1, 200):
        place = quick / "place"
        shutil.copytree(prepared, place)
        path = place / "home" / "credentials.silo"
        before = snapshot(path.parent)
        outcome = run_with_fault(lambda path=path: case.change(path), nth, fault)
        check(path, case, outcome, before)
        shutil.rmtree(place)
        if not outcome.is_hit:
            break
        hits += 1
    assert hits > 8
