"""`silo vault`: where a value may come from, and that it is never shown."""

import os
import pty
import shutil
import stat
import subprocess
import sys

import pytest
from silo_vault import EnvironmentKey

from silo.runtime import Runtime
from silo.testing import PATIENCE_S

SECRET = "correct horse battery staple"


def test_a_value_from_standard_input_is_stored_without_its_last_line_break(bare_silo):
    for name, given in (("A", b"x\n"), ("B", b"x\r\n"), ("C", b"x\n\n"), ("D", b" x ")):
        found = bare_silo("vault", "add", name, stdin=given)
        assert (found.status, found.out) == (0, "")
    vault = Runtime(environ=bare_silo.environ).vault
    assert [vault.get(name).reveal() for name in "ABCD"] == ["x", "x", "x\n", " x "]


def test_a_byte_order_mark_is_left_out_of_a_value_and_said(bare_silo, tmp_path):
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfabcdefghij\n")
    for arguments, stdin in ((["--from-file", str(tmp_path / "key")], b""), ([], (tmp_path / "key").read_bytes())):
        found = bare_silo("vault", "add", "KEY", "--replace", *arguments, stdin=stdin)
        assert found.status == 0
        assert "byte order mark" in found.err
        assert Runtime(environ=bare_silo.environ).vault.get("KEY").reveal() == "abcdefghij"


def test_a_value_can_come_from_a_variable_or_a_file(bare_silo, tmp_path):
    bare_silo.environ["OTHER"] = SECRET
    (tmp_path / "key").write_text("from a file\n")
    assert bare_silo("vault", "add", "A", "--from-env", "OTHER").status == 0
    assert bare_silo("vault", "add", "B", "--from-file", str(tmp_path / "key")).status == 0
    vault = Runtime(environ=bare_silo.environ).vault
    assert [vault.get(name).reveal() for name in "AB"] == [SECRET, "from a file"]


def test_names_are_listed_and_values_are_not(bare_silo):
    for name in ("B_KEY", "A_KEY"):
        bare_silo("vault", "add", name, stdin=SECRET.encode())
    found = bare_silo("vault", "list")
    assert (found.out, found.err) == ("A_KEY\nB_KEY\n", "")
    assert bare_silo("vault", "list", "--json").json == {
        "secrets": [{"name": "A_KEY", "skill": None}, {"name": "B_KEY", "skill": None}]
    }
    status = bare_silo("vault", "status", "--json").json
    assert (status["exists"], status["secrets"], [key["kind"] for key in status["keys"]]) == (True, 2, ["env"])
    assert bare_silo("vault", "remove", "A_KEY").status == 0
    assert bare_silo("vault", "list").out == "B_KEY\n"


def test_a_person_at_a_terminal_sees_a_value_and_a_pipe_does_not(bare_silo):
    bare_silo("vault", "add", "KEY", "--skill", "demo", stdin=SECRET.encode())
    found = bare_silo("vault", "get", "KEY", "--skill", "demo")
    assert (found.status, found.code, found.out) == (2, "usage", "")
    assert "--to-pipe" in found.hint
    assert SECRET not in found.err
    assert typed(bare_silo, ["vault", "get", "KEY", "--skill", "demo"], "\0", "") == (0, f"{SECRET}\n")
    assert bare_silo("vault", "get", "KEY", "--skill", "demo", "--to-pipe").out == SECRET
    assert bare_silo("vault", "get", "KEY", "--to-pipe").code == "secret-missing"
    records = bare_silo("audit", "show", "--json").json["records"]
    shown = [(one["name"], one["skill"], one["to"]) for one in records if one.get("action") == "get"]
    assert shown == [("KEY", "demo", "terminal"), ("KEY", "demo", "pipe")]
    assert SECRET not in str(records)


def test_a_terminal_is_not_moved_by_a_value(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=b"a\x1b[2Jb")
    assert typed(bare_silo, ["vault", "get", "KEY"], "\0", "") == (0, "a<U+001B>[2Jb\n")


def test_a_binary_value_comes_from_a_file_and_goes_to_a_pipe(bare_silo, tmp_path):
    data = bytes(range(256)) * 16 + b"\n"
    (tmp_path / "store.p12").write_bytes(data)
    found = bare_silo("vault", "add", "STORE", "--from-file", str(tmp_path / "store.p12"))
    assert (found.status, found.out) == (0, "")
    assert "binary (4,097 bytes)" in found.err
    assert Runtime(environ=bare_silo.environ).vault.get("STORE").reveal_bytes() == data
    status, shown = typed(bare_silo, ["vault", "get", "STORE"], "\0", "")
    assert (status, "is binary" in shown, "--to-pipe > FILE" in shown) == (2, True, True)
    command = [sys.executable, "-m", "silo", "vault", "get", "STORE", "--to-pipe"]
    piped = subprocess.run(command, env=bare_silo.environ, capture_output=True, check=False, timeout=PATIENCE_S)
    assert (piped.returncode, piped.stdout) == (0, data)


def test_what_is_binary_by_accident_is_refused_and_not_repeated(bare_silo):
    """For instance the output of a program that writes UTF-16."""
    found = bare_silo("vault", "add", "KEY", stdin=SECRET.encode("utf-16"))
    assert (found.status, found.out) == (2, "")
    assert "NUL, so it is not text" in found.err
    assert "--from-file" in found.hint
    assert bare_silo("vault", "list", "--json").json == {"secrets": []}


def test_a_value_that_is_too_long_is_told_what_to_do_instead(bare_silo, tmp_path):
    (tmp_path / "large").write_bytes(b"x" * 5_000_000)
    found = bare_silo("vault", "add", "KEY", "--from-file", str(tmp_path / "large"))
    assert "5,000,000 bytes; 1,048,576 are allowed" in found.err
    assert "give the file to the tool" in found.hint
    (tmp_path / "fits").write_bytes(b"x" * 1024 * 1024)
    assert bare_silo("vault", "add", "KEY", "--from-file", str(tmp_path / "fits")).status == 0


def test_a_value_on_the_command_line_is_refused_and_not_repeated(bare_silo):
    found = bare_silo("vault", "add", "KEY", SECRET)
    assert (found.status, found.code, found.out) == (2, "usage", "")
    assert SECRET not in found.err
    assert "standard input" in found.hint
    assert bare_silo("vault", "list", "--json").json == {"secrets": []}


def test_a_value_in_place_of_the_name_is_not_repeated(bare_silo):
    found = bare_silo("vault", "add", SECRET, stdin=b"x")
    assert (found.status, found.code) == (2, "usage")
    assert SECRET not in found.err


def test_an_earlier_value_is_replaced_only_when_asked_to(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=b"one")
    found = bare_silo("vault", "add", "KEY", stdin=b"two")
    assert (found.status, found.code) == (2, "usage")
    assert "--replace" in found.hint
    assert bare_silo("vault", "add", "KEY", "--replace", stdin=b"two").status == 0


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "code"),
    [
        (["add", "KEY"], b"", 2, "usage"),
        (["add", "KEY"], b"\xff", 2, "usage"),
        (["add", "KEY"], b"a\0b", 2, "usage"),
        (["add", "KEY"], b"x" * (2 << 20), 2, "usage"),
        (["add", "lower"], b"x", 2, "usage"),
        (["add", "KEY", "--from-env", "NOT_SET"], b"", 2, "usage"),
        (["add", "KEY", "--from-file", "/nonexistent"], b"", 2, "file-refused"),
        (["add", "KEY", "--from-file", "/a", "--from-env", "B"], b"", 2, "usage"),
        (["add"], b"", 2, "usage"),
        (["remove", "KEY"], b"", 4, "secret-missing"),
        (["show", "KEY"], b"", 2, "usage"),
        ([], b"", 2, "usage"),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint_and_stores_nothing(bare_silo, arguments, stdin, status, code):
    found = bare_silo("vault", *arguments, stdin=stdin)
    assert (found.status, found.code, found.out) == (status, code, "")
    assert found.hint
    assert bare_silo("vault", "list", "--json").json == {"secrets": []}


def test_without_a_key_or_with_the_wrong_one_the_vault_stays_locked(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    bare_silo.environ["SILO_MASTER_KEY"] = "cd" * 32
    found = bare_silo("vault", "list")
    assert (found.status, found.code, found.out) == (4, "vault-locked", "")
    bare_silo.environ["SILO_HEADLESS"] = "1"
    assert "SILO_AUTH_REQUIRED" in bare_silo("vault", "list").err
    assert bare_silo("vault", "status").status == 0


def test_a_state_folder_that_others_can_read_is_refused_for_secrets(bare_silo):
    bare_silo.home.mkdir(mode=0o755)
    found = bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    assert (found.status, found.code) == (4, "vault-unusable")
    assert "chmod 700" in found.hint


# --- secrets of one skill ---------------------------------------------------------------------------------------------


def test_a_short_value_is_taken_with_a_warning_that_does_not_show_it(bare_silo):
    found = bare_silo("vault", "add", "PIN", stdin=b"7391")
    assert found.status == 0
    assert "4 bytes" in found.err
    assert "7391" not in found.err
    assert bare_silo("vault", "add", "LONG", stdin=SECRET.encode()).err == ""


def test_a_secret_of_one_skill_is_kept_apart_from_a_global_one_of_that_name(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=b"for everybody")
    assert bare_silo("vault", "add", "KEY", "--skill", "jwt", stdin=b"for jwt alone").status == 0
    assert bare_silo("vault", "list").out == "KEY\njwt/KEY\n"
    vault = Runtime(environ=bare_silo.environ).vault
    assert vault.find("KEY", ("jwt", "")).reveal() == "for jwt alone"
    assert vault.find("KEY", ("github", "")).reveal() == "for everybody"
    assert bare_silo("vault", "remove", "KEY", "--skill", "jwt").status == 0
    assert bare_silo("vault", "list").out == "KEY\n"
    found = bare_silo("vault", "remove", "KEY", "--skill", "jwt")
    assert (found.status, found.code) == (4, "secret-missing")
    found = bare_silo("vault", "add", "KEY", "--skill", "Not A Skill", stdin=SECRET.encode())
    assert (found.status, found.code) == (2, "usage")


def test_each_change_of_a_secret_or_decoy_is_recorded_without_its_value(bare_silo):
    """Past fault: the log had no record of `vault add`, `remove` and `canary`."""
    bare_silo("vault", "add", "KEY", "--skill", "jwt", stdin=SECRET.encode())
    bare_silo("vault", "add", "KEY", "--skill", "jwt", "--replace", stdin=b"another value")
    bare_silo("vault", "canary", "add", "PROD_KEY")
    bare_silo("vault", "canary", "remove", "PROD_KEY")
    bare_silo("vault", "remove", "KEY", "--skill", "jwt")
    refused = bare_silo("vault", "remove", "KEY", "--skill", "jwt")
    assert refused.status == 4
    keys = ("action", "name", "skill", "replaced")
    assert [tuple(record.get(key) for key in keys) for record in events(bare_silo)] == [
        ("add", "KEY", "jwt", False),
        ("add", "KEY", "jwt", True),
        ("add-canary", "PROD_KEY", None, None),
        ("remove-canary", "PROD_KEY", None, None),
        ("remove", "KEY", "jwt", None),
    ]
    assert all(record["caller"]["kind"] == "cli" for record in events(bare_silo))
    log = (bare_silo.home / "audit.jsonl").read_text()
    assert SECRET not in log
    assert "another value" not in log


# --- keys -------------------------------------------------------------------------------------------------------------


def keys(bare_silo):
    return {key["kind"]: key["key_id"] for key in bare_silo("vault", "status", "--json").json["keys"]}


def events(bare_silo):
    return [record for record in bare_silo("audit", "show", "--json").json["records"] if record["event"] == "vault"]


def test_the_key_is_replaced_and_the_old_one_opens_nothing(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    bare_silo.environ["NEW"] = "cd" * 32
    old = keys(bare_silo)["env"]
    found = bare_silo("vault", "rekey", "--replace", "env", "--from-env", "NEW")
    assert (found.status, found.out) == (0, "")
    assert "cd" * 32 not in found.err
    assert (bare_silo("vault", "list").status, bare_silo("vault", "list").code) == (4, "vault-locked")
    bare_silo.environ["SILO_MASTER_KEY"] = bare_silo.environ.pop("NEW")
    assert bare_silo("vault", "list").out == "KEY\n"
    assert events(bare_silo)[-1]["removed"] == [old]
    assert events(bare_silo)[-1]["added"] == [keys(bare_silo)["env"]]


@pytest.mark.parametrize(("key", "reason"), [("x", "has 1 character,"), ("ab" * 31 + "a", "has 63 hex digits")])
def test_a_key_that_is_none_makes_no_vault(bare_silo, key, reason):
    bare_silo.environ["SILO_MASTER_KEY"] = key
    found = bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    assert (found.status, found.code) == (4, "vault-locked")
    assert reason in found.err
    assert "openssl rand -hex 32" in found.hint
    assert not (bare_silo.home / "credentials.silo").exists()
    bare_silo.environ["SILO_MASTER_KEY"] = "ab" * 32
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    bare_silo.environ["NEW"] = key
    found = bare_silo("vault", "rekey", "--add", "env", "--from-env", "NEW")
    assert (found.status, found.code) == (4, "vault-locked")
    assert reason in found.err


def test_a_vault_that_opens_with_a_weak_key_warns_and_names_the_command(bare_silo, caplog):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    weak = EnvironmentKey("hunter2")
    vault = Runtime(environ=bare_silo.environ).vault
    vault.rekey(add=[Weak(weak)], remove=[keys(bare_silo)["env"]])
    assert caplog.records == []
    bare_silo.environ["SILO_MASTER_KEY"] = "hunter2"
    assert bare_silo("vault", "list").out == "KEY\n"
    [warning] = {record.getMessage() for record in caplog.records}
    assert "hunter2" not in warning
    assert "silo vault rekey --replace env --from-env NEW" in warning
    bare_silo.environ["NEW"] = "cd" * 32
    assert bare_silo("vault", "rekey", "--replace", "env", "--from-env", "NEW").status == 0
    bare_silo.environ["SILO_MASTER_KEY"] = "cd" * 32
    caplog.clear()
    assert bare_silo("vault", "list").out == "KEY\n"
    assert caplog.records == []


class Weak:
    """Seals with a key that is refused today, as an earlier version did."""

    kind, label, recheck_s = "env", "a weak key", None

    def __init__(self, key):
        self._key = key
        self.unwrap, self.retire, self.forget = key.unwrap, key.retire, key.forget

    def wrap(self, dek, **arguments):
        return self._key.wrap(dek, **arguments | {"is_new": False})


def test_a_passphrase_is_typed_once_for_a_command_that_needs_it_several_times(bare_silo):
    """A rotation opens the old data key with it, seals the new one, and checks that it opens that."""
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    bare_silo("vault", "rekey", "--add", "passphrase", stdin=b"five random words in order\n")
    before = keys(bare_silo)
    status, shown = typed(bare_silo, ["vault", "rotate"], "passphrase", "five random words in order\n")
    assert (status, shown.count("passphrase")) == (0, 1), shown
    assert set(keys(bare_silo)) == set(before) == {"env", "passphrase"}
    assert keys(bare_silo) != before
    del bare_silo.environ["SILO_MASTER_KEY"]
    status, shown = typed(bare_silo, ["vault", "list"], "passphrase", "five random words in order\n")
    assert (status, "KEY" in shown) == (0, True)


def test_a_recovery_passphrase_opens_the_vault_when_no_other_key_is_left(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    found = bare_silo("vault", "rekey", "--add", "passphrase", stdin=b"five random words in order\n")
    assert found.status == 0, found.err
    assert set(keys(bare_silo)) == {"env", "passphrase"}
    del bare_silo.environ["SILO_MASTER_KEY"]
    assert bare_silo("vault", "list").code == "vault-locked"  # nobody is there to type it
    status, shown = typed(bare_silo, ["vault", "list"], "passphrase", "five random words in order\n")
    assert (status, shown.splitlines()[-1]) == (0, "KEY")
    assert "five random" not in shown
    status, shown = typed(bare_silo, ["vault", "list"], "passphrase", "not the passphrase\n")
    assert status == 4
    assert "[vault-locked]" in shown


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["rekey"], 2, "usage"),
        (["rekey", "--add", "yubikey"], 2, "usage"),
        (["rekey", "--remove", "0123456789abcdef"], 4, "secret-missing"),
        (["rekey", "--add", "passphrase", "--add", "env"], 2, "usage"),
        (["rekey", "--add", "env", "--from-env", "NOT_SET"], 2, "usage"),
        (["rekey", "--add", "env", "--from-env", "SILO_MASTER_KEY"], 4, "vault-locked"),
        (["rotate", "--drop", "0123456789abcdef"], 4, "secret-missing"),
        (["restore", "/nonexistent/file"], 2, "file-refused"),
        (["restore"], 4, "secret-missing"),
        (["restore", "/etc/hosts", "--accept-rollback"], 2, "usage"),
        (["import", "/nonexistent/.env"], 2, "file-refused"),
        (["export", "-", "--plain-text"], 2, "usage"),
        (["export", "out", "--to", "nobody"], 2, "usage"),
        (["export", "out"], 2, "usage"),
        (["export", "out", "--plain-text"], 2, "usage"),
        (["canary", "remove", "KEY"], 4, "secret-missing"),
        (["canary", "add", "lower"], 2, "usage"),
    ],
)
def test_what_can_not_be_changed_is_an_error_and_the_vault_is_as_it_was(
    bare_silo, arguments, status, code, tmp_path, monkeypatch
):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    before = (bare_silo.home / "credentials.silo").read_bytes()
    monkeypatch.chdir(tmp_path)
    found = bare_silo("vault", *arguments)
    assert (found.status, found.code, found.out) == (status, code, "")
    assert found.hint
    assert (bare_silo.home / "credentials.silo").read_bytes() == before


def test_a_new_data_key_seals_every_secret_again(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    before = (bare_silo.home / "credentials.silo").read_bytes()
    found = bare_silo("vault", "rotate")
    assert (found.status, found.out, found.err) == (0, "", "")
    assert (bare_silo.home / "credentials.silo").read_bytes() != before
    assert Runtime(environ=bare_silo.environ).vault.get("KEY").reveal() == SECRET
    assert events(bare_silo)[-1]["action"] == "rotate"


def test_locking_reaches_a_process_that_has_the_vault_open(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    vault = Runtime(environ=bare_silo.environ).vault
    assert vault.get("KEY").reveal() == SECRET
    assert bare_silo("vault", "lock").status == 0
    with pytest.raises(Exception, match="forgotten when the vault was locked"):
        vault.get("KEY")
    assert events(bare_silo)[-1]["action"] == "lock"


# --- older files ------------------------------------------------------------------------------------------------------


def test_an_older_file_is_refused_until_somebody_accepts_it_which_is_recorded(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    file = bare_silo.home / "credentials.silo"
    old = file.read_bytes()
    bare_silo("vault", "add", "OTHER", stdin=SECRET.encode())
    file.write_bytes(old)
    found = bare_silo("vault", "list")
    assert (found.status, found.code, found.out) == (4, "vault-rolled-back", "")
    assert "--accept-rollback" in found.hint
    assert bare_silo("vault", "restore", "--accept-rollback").status == 0
    assert bare_silo("vault", "list").out == "KEY\n"
    found = [(event["action"], event.get("accept_rollback")) for event in events(bare_silo)]
    assert found == [("add", None), ("add", None), ("restore", True)]


def test_the_backup_takes_the_place_of_a_damaged_file_which_is_kept(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    bare_silo("vault", "add", "OTHER", stdin=SECRET.encode())
    file = bare_silo.home / "credentials.silo"
    file.write_bytes(file.read_bytes()[:-1])
    assert bare_silo("vault", "list").code == "vault-unusable"
    found = bare_silo("vault", "restore")
    assert found.status == 0
    assert "kept as" in found.err
    assert bare_silo("vault", "list").out == "KEY\n"


def vault_files(bare_silo):
    places = bare_silo.home.glob("credentials.silo*")
    return {place.name: place.read_bytes() for place in places if place.suffix != ".lock"}


def test_a_key_that_was_removed_opens_a_restored_file_only_after_a_yes(bare_silo, tmp_path):
    """Past bug: `restore` brought removed keys back in silence."""
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    file, copy = bare_silo.home / "credentials.silo", tmp_path / "copy"
    shutil.copy(file, copy)
    [old] = keys(bare_silo).values()
    bare_silo.environ["NEW"] = "cd" * 32
    bare_silo("vault", "rekey", "--replace", "env", "--from-env", "NEW")
    file.write_bytes(b"damaged")
    before = vault_files(bare_silo)
    found = bare_silo("vault", "restore", str(copy))
    assert (found.status, found.code) == (4, "vault-rolled-back")
    assert old in found.err
    assert f"--accept-key {old}" in found.hint
    status, shown = typed(bare_silo, ["vault", "restore", str(copy)], "to go on", "no\n")
    assert status == 2
    assert old in shown
    assert vault_files(bare_silo) == before
    assert [event["action"] for event in events(bare_silo)] == ["add", "rekey"]
    status, shown = typed(bare_silo, ["vault", "restore", str(copy)], "to go on", "restore\n")
    assert status == 0, shown
    assert f"opens again with env, key {old}" in shown
    assert bare_silo("vault", "list").out == "KEY\n"
    assert events(bare_silo)[-1]["keys_back"] == [old]
    bare_silo("vault", "add", "OTHER", stdin=SECRET.encode())
    file.write_bytes(b"damaged again")
    assert bare_silo("vault", "restore").status == 0  # its keys are those of the newest generation
    assert events(bare_silo)[-1]["keys_back"] == []


def test_a_restore_names_the_secrets_that_change(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    bare_silo("vault", "remove", "KEY")
    found = bare_silo("vault", "restore")
    assert "KEY is there again, after it was removed" in found.err
    found = bare_silo("vault", "restore")
    assert "KEY is missing; the backup has it" in found.err
    bare_silo("vault", "restore")
    bare_silo("vault", "add", "KEY", "--replace", stdin=b"another value")
    assert "KEY has an earlier value again" in bare_silo("vault", "restore").err


def test_a_vault_that_is_gone_is_an_error_until_it_is_restored(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    (bare_silo.home / "credentials.silo").unlink()
    for command in (["list"], ["add", "OTHER"], ["status"], ["canary", "add", "DECOY"]):
        found = bare_silo("vault", *command, stdin=SECRET.encode())
        assert (found.status, found.code) == (4, "vault-unusable")
        assert "silo vault restore" in found.hint
    assert not (bare_silo.home / "credentials.silo").exists()


# --- import and export ------------------------------------------------------------------------------------------------


def test_an_env_file_is_imported_whole_or_not_at_all(bare_silo, tmp_path):
    env = tmp_path / ".env"
    env.write_text(f'A_KEY="{SECRET}"\nexport B_KEY=plain-value # theirs\nBROKEN LINE\nC_KEY=\n')
    found = bare_silo("vault", "import", str(env), "--dry-run", "--json")
    assert found.status == 0
    assert [one["name"] for one in found.json["added"]] == ["A_KEY", "B_KEY"]
    assert len(found.json["skipped"]) == 2
    assert bare_silo("vault", "list").out == ""
    found = bare_silo("vault", "import", str(env), "--skill", "github")
    assert found.status == 0
    assert SECRET not in found.err + found.out
    assert bare_silo("vault", "list").out == "github/A_KEY\ngithub/B_KEY\n"
    env.write_text("A_KEY=changed-value\n")
    assert bare_silo("vault", "import", str(env), "--skill", "github", "--json").json["kept"] == [
        {"name": "A_KEY", "skill": "github"}
    ]
    assert Runtime(environ=bare_silo.environ).vault.get("A_KEY", namespace="github").reveal() == SECRET
    bare_silo("vault", "import", str(env), "--skill", "github", "--replace")
    assert Runtime(environ=bare_silo.environ).vault.get("A_KEY", namespace="github").reveal() == "changed-value"


@pytest.mark.parametrize("way", ["passphrase", "recipient"])
def test_an_export_comes_back_in_another_vault_and_shows_nothing_on_the_way(bare_silo, tmp_path, way):
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "identity").write_text(f"{identity}\n")
    bare_silo.environ["WORDS"] = "five random words in order"
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    bare_silo("vault", "add", "KEY", "--skill", "jwt", stdin=b"for jwt alone")
    bare_silo("vault", "canary", "add", "DECOY")
    out = tmp_path / "secrets.age"
    to = ["--to", str(identity.to_public())] if way == "recipient" else ["--passphrase-from-env", "WORDS"]
    found = bare_silo("vault", "export", str(out), *to)
    assert (found.status, found.out) == (0, "")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert SECRET.encode() not in out.read_bytes()
    assert bare_silo("vault", "export", str(out), *to).code == "usage"  # the file exists already
    bare_silo.environ["SILO_HOME"] = str(tmp_path / "other")
    opened = ["--identity", str(tmp_path / "identity")] if way == "recipient" else to
    assert bare_silo("vault", "import", str(out), *opened).status == 0
    vault = Runtime(environ=bare_silo.environ).vault
    assert {place: secret.reveal() for place, secret in vault.get_all().items()} == {
        ("", "KEY"): SECRET,
        ("jwt", "KEY"): "for jwt alone",
    }
    assert vault.canaries() == {}
    bare_silo.environ["WORDS"] = "not the passphrase at all"
    if way == "passphrase":
        assert bare_silo("vault", "import", str(out), *to, "--dry-run").code == "vault-locked"


def test_an_export_can_go_down_a_pipe(bare_silo, tmp_path):
    bare_silo.environ["WORDS"] = "five random words in order"
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    command = [sys.executable, "-m", "silo", "vault", "export", "-", "--passphrase-from-env", "WORDS"]
    sealed = subprocess.run(command, env=bare_silo.environ, capture_output=True, timeout=PATIENCE_S, check=True).stdout
    assert sealed.startswith(b"age-encryption.org/v1\n")
    full = subprocess.run(
        ["sh", "-c", 'exec "$@" >/dev/full', "sh", *command], env=bare_silo.environ, capture_output=True
    )
    assert full.returncode == 2
    assert b"can't write to standard output" in full.stderr
    (tmp_path / "secrets.age").write_bytes(sealed)
    bare_silo.environ["SILO_HOME"] = str(tmp_path / "other")
    assert bare_silo("vault", "import", str(tmp_path / "secrets.age"), "--passphrase-from-env", "WORDS").status == 0
    assert Runtime(environ=bare_silo.environ).vault.get("KEY").reveal() == SECRET


def test_plain_text_is_for_a_person_who_says_so(bare_silo):
    bare_silo("vault", "add", "KEY", stdin=SECRET.encode())
    status, shown = typed(bare_silo, ["vault", "export", "-", "--plain-text"], "to go on", "no\n")
    assert status == 2
    assert SECRET not in shown
    status, shown = typed(bare_silo, ["vault", "export", "-", "--plain-text"], "to go on", "show\n")
    assert status == 0
    assert SECRET in shown
    assert events(bare_silo)[-1]["sealed_to"] == "nobody"


# --- decoys -----------------------------------------------------------------------------------------------------------


def test_a_decoy_is_listed_apart_and_no_skill_can_ask_for_it(bare_silo):
    assert bare_silo("vault", "canary", "add", "PROD_KEY").status == 0
    assert bare_silo("vault", "list").out == ""
    assert bare_silo("vault", "canary", "list").out == "PROD_KEY\n"
    assert bare_silo("vault", "canary", "list", "--json").json == {"canaries": ["PROD_KEY"]}
    vault = Runtime(environ=bare_silo.environ).vault
    assert vault.find("PROD_KEY", ("", "jwt", "canary")) is None
    assert len(vault.canaries()["PROD_KEY"].reveal()) == 40
    assert bare_silo("vault", "canary", "remove", "PROD_KEY").status == 0
    assert bare_silo("vault", "canary", "list").out == ""


def test_a_decoy_in_an_answer_ends_the_call_and_raises_an_alert(silo):
    silo.environ["DECOY"] = "AKIA-decoy-0123456789"
    silo("vault", "canary", "add", "PROD_KEY", "--from-env", "DECOY")
    found = silo("run", "demo.echo", f"text=look: {silo.environ['DECOY']}")
    assert (found.status, found.code, found.out) == (3, "canary-tripped", "")
    assert silo.environ["DECOY"] not in found.err
    assert "PROD_KEY" in found.err
    records = silo("audit", "show", "-n", "2", "--json").json["records"]
    assert [record["event"] for record in records] == ["alert", "end"]
    assert records[1]["outcome"] == "canary-tripped"
    assert silo("run", "demo.echo", "text=harmless").status == 0


def test_with_a_decoy_a_vault_that_does_not_open_stops_every_call(silo):
    silo("vault", "canary", "add", "PROD_KEY")
    del silo.environ["SILO_MASTER_KEY"]
    found = silo("run", "demo.echo", "text=harmless")
    assert (found.status, found.code) == (4, "vault-locked")


def typed(bare_silo, arguments, wait_for, text):
    """Run a command on its own terminal, type when it asks, and return its status and its output."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "silo", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=bare_silo.environ)
    os.close(theirs)
    shown, is_typed = "", False
    try:
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # EIO: the other end is closed
                break
            if not data:
                break
            shown += data.decode(errors="replace")
            if not is_typed and wait_for in shown:
                os.write(ours, text.encode())
                is_typed = True
    finally:
        os.close(ours)
        process.wait(PATIENCE_S)
    return process.returncode, shown.replace("\r\n", "\n")
