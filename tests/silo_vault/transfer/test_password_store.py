"""A store in the layout of `pass`, with the real gpg, or with scripts that fail in ways that gpg seldom does."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from silo_vault.transfer import Entry, Skipped, SourceUnreadable, read_password_store
from silo_vault.transfer import password_store as module


@pytest.fixture(scope="module")
def gnupg_home() -> Iterator[Path]:
    """A key without passphrase for these tests. It is deleted with its agent when they end."""
    with tempfile.TemporaryDirectory(
        prefix="silo-gpg-", dir="/tmp"
    ) as folder:  # short, because the path of the agent's socket is limited
        environment = os.environ | {"GNUPGHOME": folder}
        quick = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", "Test <test@example.org>"]
        try:
            subprocess.run([*quick, "future-default", "default"], env=environment, check=True, capture_output=True)
            yield Path(folder)
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=True, capture_output=True)


@pytest.fixture
def encrypt(gnupg_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setenv("GNUPGHOME", str(gnupg_home))

    def to_file(path: Path, content: bytes, *how: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        how = how or ("--encrypt", "--recipient", "test@example.org")
        command = ["gpg", "--batch", "--quiet", "--trust-model", "always", *how, "--output", str(path)]
        subprocess.run(command, input=content, check=True, capture_output=True)

    return to_file


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """A shell script that replaces gpg."""

    def write(script: str) -> str:
        path = tmp_path / "gpg"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        return str(path)

    return write


OKAY = "echo '[GNUPG:] DECRYPTION_OKAY' >&2"


def reasons(found) -> dict[str, str]:
    return {skipped.where: skipped.reason for skipped in found.skipped}


def test_a_real_store_is_read_and_stays_as_it_is(store, encrypt):
    encrypt(store / "github.gpg", b"ghp_0123\nuser: me\nurl: https://example.org\n")
    encrypt(store / "web/site-1.gpg", "пароль".encode())
    encrypt(store / "web/windows.gpg", b"value\r\nnotes\r\n")
    encrypt(store / "empty.gpg", b"\nnotes")
    encrypt(store / "binary.gpg", b"\xff\xfe")
    encrypt(store / ".git/objects/x.gpg", b"not a password")
    (store / ".gpg-id").write_text("test@example.org\n")
    (store / "damaged.gpg").write_bytes((store / "github.gpg").read_bytes()[:-20])
    (store / "nothing.gpg").write_bytes(b"")
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}

    found = read_password_store(store)

    assert found.entries == (
        Entry("", "GITHUB", "ghp_0123"),
        Entry("", "WEB_SITE_1", "пароль"),
        Entry("", "WEB_WINDOWS", "value"),
    )
    assert reasons(found).keys() == {"'binary.gpg'", "'damaged.gpg'", "'empty.gpg'", "'nothing.gpg'"}
    assert reasons(found)["'binary.gpg'"] == "its first line is not text in UTF-8"
    assert reasons(found)["'empty.gpg'"] == "the value for it is empty"
    assert "could not decrypt it" in reasons(found)["'damaged.gpg'"]
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_a_file_that_is_only_packed_is_not_taken_for_a_secret(store, encrypt):
    """`gpg --decrypt` prints it and exits with 0. Anyone who can write to the store could have put it there."""
    encrypt(store / "planted.gpg", b"planted", "--store")
    found = read_password_store(store)
    assert found.entries == ()
    assert reasons(found) == {"'planted.gpg'": "it is not encrypted"}


def test_a_file_for_a_key_that_is_not_here_is_skipped(store, encrypt, monkeypatch):
    encrypt(store / "a.gpg", b"value")
    with tempfile.TemporaryDirectory(prefix="silo-gpg-", dir="/tmp") as empty:
        monkeypatch.setenv("GNUPGHOME", empty)
        try:
            found = read_password_store(store)
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], check=True, capture_output=True)
    assert reasons(found) == {"'a.gpg'": "gpg has no secret key for it here"}


def test_a_file_that_unpacks_to_more_than_is_read_is_skipped(store, encrypt):
    encrypt(store / "bomb.gpg", bytes(50_000_000))
    encrypt(store / "next.gpg", b"value")
    found = read_password_store(store)
    assert found.entries == (Entry("", "NEXT", "value"),)
    assert "more than 1048576 bytes" in reasons(found)["'bomb.gpg'"]


def test_links_stay_within_the_store_and_folders_are_not_followed(tmp_path, store, program):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.gpg").write_bytes(b"x")
    (store / "real.gpg").write_bytes(b"x")
    (store / "alias.gpg").symlink_to("real.gpg")
    (store / "escape.gpg").symlink_to("../outside/secret.gpg")
    (store / "folder").symlink_to("../outside")
    (store / "loop").symlink_to(".")
    (store / "dangling.gpg").symlink_to("missing.gpg")
    (store / "itself.gpg").symlink_to("itself.gpg")
    os.mkfifo(store / "pipe.gpg")
    (store / "folder.gpg").mkdir()
    found = read_password_store(store, gpg=program(f"echo value; {OKAY}"))
    assert [entry.name for entry in found.entries] == ["ALIAS", "REAL"]
    assert reasons(found) == {
        "'dangling.gpg'": "it is not a file",
        "'escape.gpg'": "a link out of the store is not followed",
        "'folder'": "a link to a folder is not followed",
        "'itself.gpg'": "it is not a file",
        "'loop'": "a link to a folder is not followed",
        "'pipe.gpg'": "it is not a file",
    }


def test_names_that_collide_or_do_not_fit_are_skipped(store, program):
    (store / "web").mkdir()
    for name in ("web-1.gpg", "web/1.gpg", "1.gpg", ".gpg", "\x1b[31m.gpg", "ключ.gpg", "v1.2.gpg"):
        (store / name).write_bytes(b"x")
    found = read_password_store(store, gpg=program(f"echo value; {OKAY}"))
    assert [entry.name for entry in found.entries] == ["V1_2"]
    assert len(found.skipped) == 6
    assert "same name as 'web/1.gpg'" in reasons(found)["'web-1.gpg'"]
    assert not any("\x1b" in skipped.where for skipped in found.skipped)


def test_gpg_is_run_without_questions_and_without_a_shell(store, program):
    (store / "$(id); --x.gpg").write_bytes(b"x")
    found = read_password_store(store, gpg=program('echo "$@" >"$(dirname "$0")/arguments"; exit 2'))
    assert len(found.skipped) == 1
    arguments = (store.parent / "arguments").read_text()
    assert arguments == f"--batch --quiet --status-fd 2 --decrypt {store}/$(id); --x.gpg\n"


def test_after_one_that_does_not_answer_the_others_are_not_tried(store, program):
    for name in ("a.gpg", "b.gpg", "c.gpg"):
        (store / name).write_bytes(b"x")
    began = time.monotonic()
    found = read_password_store(store, gpg=program("exec sleep 600"), timeout_s=0.3)
    assert time.monotonic() - began < 300
    assert found.skipped == (
        Skipped("'a.gpg'", "gpg did not answer in time"),
        Skipped("'b.gpg'", "not tried after 'a.gpg'"),
        Skipped("'c.gpg'", "not tried after 'a.gpg'"),
    )


def test_one_that_closes_its_output_but_does_not_end_is_ended(store, program):
    (store / "a.gpg").write_bytes(b"x")
    found = read_password_store(store, gpg=program("exec sleep 600 >&- 2>&-"), timeout_s=0.3)
    assert reasons(found) == {"'a.gpg'": "gpg did not answer in time"}


def test_whoever_said_no_to_a_passphrase_is_not_asked_again(store, program):
    for name in ("a.gpg", "b.gpg"):
        (store / name).write_bytes(b"x")
    cancelled = program("echo '[GNUPG:] NO_SECKEY 0' >&2; echo '[GNUPG:] ERROR pkdecrypt_failed 83886179' >&2; exit 2")
    assert reasons(read_password_store(store, gpg=cancelled)) == {
        "'a.gpg'": "the passphrase of its key was not given",
        "'b.gpg'": "not tried after 'a.gpg'",
    }


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo value", "it is not encrypted"),
        (f"echo value; {OKAY}; exit 2", "exit status 2"),
        ("echo '[GNUPG:] ERROR x y' >&2; echo '[GNUPG:]' >&2; exit 1", "exit status 1"),
        ("kill -9 $$", "exit status -9"),
        (f"yes; {OKAY}", "more than 1048576 bytes"),
    ],
)
def test_what_is_not_known_to_be_decrypted_is_not_taken(store, program, script, reason):
    (store / "a.gpg").write_bytes(b"x")
    found = read_password_store(store, gpg=program(script))
    assert found.entries == ()
    assert reason in reasons(found)["'a.gpg'"]


def test_endless_messages_do_not_fill_the_memory(store, program):
    (store / "a.gpg").write_bytes(b"x")
    found = read_password_store(store, gpg=program(f"{OKAY}; yes | head -c 5000000 >&2; echo value"))
    assert found.entries == (Entry("", "A", "value"),)


def test_a_missing_gpg_or_folder_is_said_at_once(store):
    with pytest.raises(SourceUnreadable, match="not installed") as caught:
        read_password_store(store, gpg="no-such-gpg")
    assert "gnupg" in caught.value.hint
    with pytest.raises(SourceUnreadable, match="not a folder"):
        read_password_store(store / "missing")


def test_a_program_that_cannot_be_started_is_said(store, tmp_path):
    (store / "a.gpg").write_bytes(b"x")
    (tmp_path / "gpg").write_bytes(b"\x7fELF")
    (tmp_path / "gpg").chmod(0o700)
    assert "could not be started" in reasons(read_password_store(store, gpg=str(tmp_path / "gpg")))["'a.gpg'"]


def test_an_empty_store_holds_nothing(store, program):
    assert read_password_store(store, gpg=program("exit 2")).skipped == ()


def test_a_folder_that_may_not_be_listed_is_said(store, program):
    (store / "closed").mkdir(mode=0)
    found = read_password_store(store, gpg=program("exit 2"))
    if os.geteuid() != 0:  # root may list it
        assert "cannot be listed" in reasons(found)["'closed'"]


def test_a_store_with_too_many_files_is_refused(store, program, monkeypatch):
    for name in ("a.gpg", "b.gpg", "c.gpg"):
        (store / name).write_bytes(b"x")
    monkeypatch.setattr("silo_vault.transfer.entry.MAX_ENTRIES", 2)
    with pytest.raises(SourceUnreadable, match="more than 2 entries"):
        read_password_store(store, gpg=program("exit 2"))
    assert module.TIMEOUT_S == 60.0
