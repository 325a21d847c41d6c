"""`KeyringKey` with a real gnome-keyring in its own D-Bus session, and with stores that misbehave."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shlex import join, quote

import pytest
from silo_vault import KeyringKey, KeyringSecrets, KeyUnavailable, VaultLocked
from silo_vault.keys import os_keyring

PATIENCE_S = 300.0

USER = [sys.executable, str(Path(__file__).with_name("keyring_user.py"))]
VAULT_ID = b"v" * 16
UNLOCK = 'eval "$(printf "test-pass\\n" | gnome-keyring-daemon --unlock --components=secrets 2>/dev/null)"'
START_LOCKED = 'eval "$(gnome-keyring-daemon --start --components=secrets 2>/dev/null)"'


@pytest.fixture
def in_session(tmp_path: Path) -> Callable[..., str]:
    """Runs shell lines in a new D-Bus session with an empty home; returns what they print."""
    home, runtime = tmp_path / "user", tmp_path / "runtime"
    for place in (home, runtime):
        place.mkdir(mode=0o700)
    environ = {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}

    def run(*lines: str, session: bool = True) -> str:
        # The daemon must end with the session, or it would outlive the test.
        script = "\n".join([*lines, 'if [ -n "${GNOME_KEYRING_PID:-}" ]; then kill "$GNOME_KEYRING_PID"; fi'])
        command = ["dbus-run-session", "--", "bash", "-c", script] if session else ["bash", "-c", script]
        done = subprocess.run(command, env=environ, capture_output=True, timeout=PATIENCE_S, check=False)
        return done.stdout.decode()

    return run


def test_the_key_lives_in_the_keyring_and_opens_the_vault_in_later_processes(in_session, path, tmp_path):
    user = [*USER, str(path)]
    output = in_session(
        UNLOCK,
        join([*user, "put", "TOKEN", "first-value-0123456789"]),
        join([*user, "put", "OTHER", "second"]),
        join([*user, "get", "TOKEN"]) + "; echo",
        "secret-tool search --all service silo 2>&1 | grep -c '^attribute.username = vault '",
    )
    assert output == "first-value-0123456789\n1\n"
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"first-value" not in kept


def test_a_lost_entry_is_an_error_and_no_new_key_is_made_for_the_vault(in_session, path):
    user = [*USER, str(path)]
    output = in_session(
        UNLOCK,
        join([*user, "put", "TOKEN", "value"]),
        join([*user, "forget"]),
        f"cp {quote(str(path))} {quote(str(path))}.before",
        join([*user, "put", "TOKEN", "other"]) + "; status=$?; echo; echo $status",
        f"cmp {quote(str(path))} {quote(str(path))}.before && echo same",
        "secret-tool search --all service silo 2>&1 | grep -c '^attribute.username'",
    )
    error, *rest = output.splitlines()
    assert json.loads(error)["code"] == "vault-locked"
    assert "has no entry" in json.loads(error)["message"]
    assert rest == ["7", "same", "0"]


def test_a_new_key_takes_the_place_of_the_old_one_in_a_real_keyring(in_session, path):
    user = [*USER, str(path)]
    output = in_session(
        UNLOCK,
        join([*user, "put", "TOKEN", "value"]),
        join([*user, "replace"]),
        join([*user, "get", "TOKEN"]) + "; echo",
        "secret-tool search --all service silo 2>&1 | grep -c '^attribute.username'",
    )
    assert output.splitlines() == ["value", "1"]


def test_the_backup_opens_with_the_new_key_in_a_real_keyring(in_session, path):
    """Past bug: the old entry was removed, and the backup needed it."""
    user = [*USER, str(path)]
    output = in_session(
        UNLOCK,
        join([*user, "put", "TOKEN", "value"]),
        join([*user, "put", "OTHER", "value"]),
        join([*user, "replace"]),
        f"echo damaged > {quote(str(path))}",
        join([*user, "restore"]),
        join([*user, "get", "OTHER"]) + "; echo",
    )
    assert output == "value\n"


@pytest.mark.parametrize(("calls", "nth"), [("write", 1), ("fsync", 1), ("/^rename", 1)])
def test_a_first_save_that_fails_leaves_no_entry_in_a_real_keyring(in_session, path, calls, nth):
    """Past bug: it stayed for ever, because the next attempt is for another vault."""
    user = [*USER, str(path)]
    failing = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
    failing += ["-e", f"inject={calls}:error=ENOSPC:when={nth}+"]
    search = "secret-tool search --all service silo 2>&1 | grep -c '^attribute.username'"
    output = in_session(
        UNLOCK,
        join([*failing, *user, "put", "TOKEN", "value"]) + "; status=$?; echo; echo $status",
        search,
        join([*user, "put", "TOKEN", "value"]),
        search,
    )
    error, *rest = output.splitlines()
    if calls != "write":  # else nothing can be printed
        assert json.loads(error)["code"] == "vault-not-written"
        assert rest == ["7", "0", "1"]
    else:
        assert rest[-2:] == ["0", "1"]


def test_a_new_key_stays_when_only_the_last_flush_of_its_file_failed(in_session, path):
    """The file is then in place, and only the new key opens it."""
    user = [*USER, str(path)]
    failing = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=3"]
    output = in_session(
        UNLOCK,
        join([*user, "put", "TOKEN", "value"]),
        join([*failing, *user, "replace"]) + "; status=$?; echo; echo $status",
        join([*user, "get", "TOKEN"]) + "; echo",
    )
    error, *rest = output.splitlines()
    assert "is in place, but may not survive" in json.loads(error)["message"]
    assert rest == ["7", "value"]


def test_a_secret_that_lies_in_the_keyring_is_read_there(in_session, path):
    user = [*USER, str(path)]
    output = in_session(
        UNLOCK,
        "printf 'from the desktop' | secret-tool store --label silo service silo-secrets username GITHUB_TOKEN",
        join([*user, "read", "GITHUB_TOKEN"]) + "; echo",
        join([*user, "read", "OTHER"]) + "; echo",
    )
    assert output.splitlines() == ["from the desktop", "nothing"]
    locked = in_session(START_LOCKED, join([*user, "read", "GITHUB_TOKEN"]))
    assert json.loads(locked)["code"] == "vault-locked"


def test_a_locked_keyring_is_a_clear_error_and_no_vault_is_made(in_session, path):
    in_session(UNLOCK, join([*USER, str(path.with_name("earlier.silo")), "put", "A", "1"]))
    output = in_session(START_LOCKED, join([*USER, str(path), "put", "TOKEN", "value"]))
    error = json.loads(output)
    assert error["code"] == "vault-locked"
    assert "keyring is locked" in error["message"]
    assert not path.exists()


def test_a_host_without_a_keyring_is_a_clear_error_and_no_plain_file_is_made(in_session, path, tmp_path):
    output = in_session(
        join([*USER, str(path), "put", "TOKEN", "value"]),
        session=False,
    )
    error = json.loads(output)
    assert error["code"] == "vault-locked"
    assert "there is no OS keyring here" in error["message"]
    assert "SILO_MASTER_KEY" in error["hint"]
    assert not path.exists()
    assert list((tmp_path / "user").rglob("*pass*")) == []


@pytest.mark.parametrize("backend", ["keyring.backends.null.Keyring", "keyring.backends.fail.Keyring"])
def test_a_keyring_that_keeps_nothing_is_refused(in_session, path, backend):
    output = in_session(
        f"export PYTHON_KEYRING_BACKEND={backend}", join([*USER, str(path), "put", "A", "1"]), session=False
    )
    assert json.loads(output)["code"] == "vault-locked"
    assert not path.exists()


PLAIN_FILE = """
import keyring.backend, pathlib
class Keyring(keyring.backend.KeyringBackend):
    priority = 9
    def get_password(self, service, username): return pathlib.Path("plain.txt").read_text()
    def set_password(self, service, username, password): pathlib.Path("plain.txt").write_text(password)
"""


def test_a_keyring_that_keeps_keys_in_a_plain_file_gets_none(in_session, path, tmp_path):
    (tmp_path / "plain_file.py").write_text(PLAIN_FILE)
    output = in_session(
        f"cd {quote(str(tmp_path))}; export PYTHONPATH=. PYTHON_KEYRING_BACKEND=plain_file.Keyring",
        join([*USER, str(path), "put", "A", "1"]),
        session=False,
    )
    assert "plain_file is not the operating system's" in json.loads(output)["message"]
    assert not (tmp_path / "plain.txt").exists()
    assert not path.exists()


# --- stores that misbehave --------------------------------------------------------------------------------------------


class Store:
    """A keyring in memory that can be made to fail."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}
        self.failure: Exception | None = None

    def get_password(self, service: str, username: str) -> str | None:
        if self.failure:
            raise self.failure
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.entries[service, username]


class Forgetful(Store):
    def set_password(self, service: str, username: str, password: str) -> None:
        pass


def wrap(store: Store, vault_id: bytes = VAULT_ID):
    return KeyringKey(store).wrap(b"d" * 32, vault_id=vault_id, random=os.urandom)


def test_each_vault_has_an_entry_of_its_own():
    store = Store()
    wrapped = [wrap(store, vault_id) for vault_id in (b"a" * 16, b"b" * 16)]
    assert len(store.entries) == len(set(store.entries.values())) == 2
    assert KeyringKey(store).unwrap(wrapped[0], vault_id=b"a" * 16) == b"d" * 32


def test_each_key_of_a_vault_has_an_entry_of_its_own_until_it_is_retired():
    store = Store()
    first, second = wrap(store), wrap(store)
    provider = KeyringKey(store)
    assert len(store.entries) == 2
    provider.retire(first, vault_id=VAULT_ID)
    provider.retire(first, vault_id=VAULT_ID)  # a missing entry isn't an error
    assert len(store.entries) == 1
    assert provider.unwrap(second, vault_id=VAULT_ID) == b"d" * 32


def test_a_keyring_that_does_not_keep_what_it_is_given_is_not_trusted():
    with pytest.raises(VaultLocked, match="did not keep"):
        wrap(Forgetful())


@pytest.mark.parametrize("entry", ["", "short", "zz" * 32, "00" * 30 + "    "])
def test_an_entry_that_is_no_key_is_an_error_that_does_not_show_it(entry):
    store = Store()
    wrapped = wrap(store)
    store.entries = dict.fromkeys(store.entries, entry)
    with pytest.raises(VaultLocked, match="is not a key") as caught:
        KeyringKey(store).unwrap(wrapped, vault_id=VAULT_ID)
    assert not entry or entry not in caught.value.message + caught.value.hint


def test_whatever_a_keyring_raises_becomes_our_error():
    store = Store()
    wrapped = wrap(store)
    store.failure = ZeroDivisionError("from a plug-in")
    with pytest.raises(KeyUnavailable, match="failed: ZeroDivisionError") as caught:
        KeyringKey(store).unwrap(wrapped, vault_id=VAULT_ID)
    assert caught.value.__cause__ is store.failure


class Slow(Store):
    """A keyring whose prompt nobody answers, until `go_on` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = 0, threading.Event()

    def get_password(self, service, username):
        self.asked += 1
        assert self.go_on.wait(PATIENCE_S)
        return super().get_password(service, username)


def test_a_keyring_that_does_not_answer_is_given_up_and_its_failure_is_shared(monkeypatch):
    """Else one prompt that nobody sees would hold every call up, one after another."""
    monkeypatch.setattr(os_keyring, "ANSWER_TIMEOUT_S", 0.5)
    store = Slow()
    times = iter([0.0])  # the first question begins; it takes 20 s, and then the time stands still
    secrets = KeyringSecrets(store, clock=lambda: next(times, 20.0))
    try:
        with ThreadPoolExecutor(max_workers=6) as pool:
            reads = [pool.submit(secrets.read, "TOKEN") for _ in range(6)]
            errors = [read.exception(PATIENCE_S) for read in reads]
        assert all(isinstance(error, KeyUnavailable) and "did not answer within" in error.message for error in errors)
        assert store.asked == 1
    finally:
        store.go_on.set()


def test_a_key_in_a_keyring_that_does_not_answer_is_unavailable(monkeypatch):
    monkeypatch.setattr(os_keyring, "ANSWER_TIMEOUT_S", 0.05)
    store = Slow()
    store.go_on.set()
    wrap = KeyringKey(store).wrap(b"d" * 32, vault_id=VAULT_ID, random=os.urandom)
    store.go_on.clear()
    try:
        with pytest.raises(KeyUnavailable, match="did not answer") as caught:
            KeyringKey(store).unwrap(wrap, vault_id=VAULT_ID)
        assert "prompt" in caught.value.hint
    finally:
        store.go_on.set()
    assert KeyringKey(store).unwrap(wrap, vault_id=VAULT_ID) == b"d" * 32
