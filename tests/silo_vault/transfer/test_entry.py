import os
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_vault.secret import NAME_PATTERN
from silo_vault.transfer import MAX_ENTRIES, Entry, Skipped, SourceUnreadable, read_source, to_name, to_text
from silo_vault.transfer.entry import Candidate, to_found

names = st.text() | st.text("abzAZ09_-./:@+ \n", max_size=140) | st.from_regex(NAME_PATTERN, fullmatch=True)


@given(names)
def test_a_name_is_one_of_a_secret_or_none_and_stays_as_it_is_when_mapped_again(original):
    name = to_name(original)
    if name is not None:
        assert re.fullmatch(NAME_PATTERN, name)
        assert to_name(name) == name
    if re.fullmatch(NAME_PATTERN, original):
        assert name == original


@pytest.mark.parametrize(
    ("original", "name"),
    [
        ("GITHUB_TOKEN", "GITHUB_TOKEN"),
        ("db/password-1", "DB_PASSWORD_1"),
        ("mail/me+work@example.org", "MAIL_ME_WORK_EXAMPLE_ORG"),
        ("a b:c", "A_B_C"),
        ("a//b", "A__B"),
        ("", None),
        ("1password", None),
        ("_private", None),
        (".env/x", None),
        ("straße", None),
        ("ı", None),
        ("a\nb", None),
        ("KEY\n", None),
        ("a" * 128, "A" * 128),
        ("a" * 129, None),
    ],
)
def test_names_are_mapped_as_documented(original, name):
    assert to_name(original) == name


def test_of_two_names_that_become_one_neither_is_taken():
    found = to_found(
        [Candidate("file 1", "", "a-b", "x"), Candidate("file 2", "", "A_B", "y"), Candidate("3", "", "c", "z")]
    )
    assert found.entries == (Entry("", "C", "z"),)
    assert found.skipped == (
        Skipped("file 1", "it would get the same name as file 2; rename one of them"),
        Skipped("file 2", "it would get the same name as file 1; rename one of them"),
    )


def test_one_name_in_two_namespaces_is_two_secrets():
    found = to_found([Candidate("1", "", "a", "x"), Candidate("2", "github", "a", "y")])
    assert found.entries == (Entry("", "A", "x"), Entry("github", "A", "y"))


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (Candidate("1", "", "ключ", "x"), "its name can't be that"),
        (Candidate("1", "Not One", "a", "x"), "namespace"),
        (Candidate("1", "", "a", ""), "is empty"),
        (Candidate("1", "", "a", "x\0"), "holds a NUL"),
        (Candidate("1", "", "a", "x" * (2**20 + 1)), "1,048,576 are allowed"),
        (Candidate("1", "", "a", "\ud800"), "not UTF-8"),
    ],
)
def test_what_the_vault_would_refuse_is_skipped_with_its_reason(candidate, reason):
    found = to_found([candidate])
    assert found.entries == ()
    assert reason in found.skipped[0].reason


def test_more_entries_than_are_allowed_are_refused_as_a_whole():
    with pytest.raises(SourceUnreadable, match="more than 100000"):
        to_found([], [Skipped("x", "y")] * (MAX_ENTRIES + 1))


def test_a_file_is_read_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\0\xff")
    assert read_source(path, max_bytes=2) == b"\0\xff"
    with pytest.raises(SourceUnreadable, match="larger than 1 bytes"):
        read_source(path, max_bytes=1)


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceUnreadable, match="not a file"):
        read_source(tmp_path / "pipe")
    with pytest.raises(SourceUnreadable, match="not a file"):
        read_source(tmp_path)
    with pytest.raises(SourceUnreadable, match="No such file"):
        read_source(tmp_path / "\x1b[31mmissing")
    with pytest.raises(SourceUnreadable):
        read_source(tmp_path / "\0")


def test_a_path_in_a_message_cannot_write_to_the_terminal(tmp_path):
    with pytest.raises(SourceUnreadable) as caught:
        read_source(tmp_path / "\x1b[31mmissing")
    assert "\x1b" not in caught.value.message


@given(st.binary(max_size=20))
def test_text_is_utf_8_or_refused(data):
    try:
        assert to_text(data).encode() == data
    except SourceUnreadable as error:
        with pytest.raises(UnicodeDecodeError):
            data.decode()
        assert error.hint  # noqa: PT017 - either outcome is right, each with its own check


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, silo_vault.transfer; print([m for m in ('cryptography', 'keyring') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_importing_the_vault_does_not_import_this_package():
    code = "import sys, silo_vault; print('silo_vault.transfer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
