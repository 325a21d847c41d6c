"""`silo vault`: where a value may come from, and that it shows nowhere."""

import pytest

from silo.runtime import Runtime

SECRET = "correct horse battery staple"


def test_a_value_from_standard_input_is_stored_without_its_last_line_break(bare_silo):
    for name, given in (("A", b"x\n"), ("B", b"x\r\n"), ("C", b"x\n\n"), ("D", b" x ")):
        found = bare_silo("vault", "add", name, stdin=given)
        assert (found.status, found.out, found.err) == (0, "", "")
    vault = Runtime(environ=bare_silo.environ).vault
    assert [vault.get(name).reveal() for name in "ABCD"] == ["x", "x", "x\n", " x "]


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
    assert bare_silo("vault", "list", "--json").json == {"secrets": ["A_KEY", "B_KEY"]}
    status = bare_silo("vault", "status", "--json").json
    assert (status["exists"], status["secrets"], [key["kind"] for key in status["keys"]]) == (True, 2, ["env"])
    assert bare_silo("vault", "remove", "A_KEY").status == 0
    assert bare_silo("vault", "list").out == "B_KEY\n"


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
        (["add", "KEY"], b"x" * (2 << 20), 2, "file-refused"),
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
