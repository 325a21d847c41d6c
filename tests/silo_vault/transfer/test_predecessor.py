import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from silo_vault import EnvironmentKey, Vault, VaultLocked
from silo_vault.transfer import Entry, Skipped, SourceUnreadable, find_predecessor, read_predecessor
from silo_vault.transfer import predecessor as module

SALT = b"golden-salt-16-b"
BAD = {
    "bad-predecessor-changed": "does not open",
    "bad-predecessor-cut-short": "does not open",
    "bad-predecessor-shorter-than-a-nonce": "cut short",
    "bad-predecessor-empty": "cut short",
    "bad-predecessor-not-base64": "not base64",
    "bad-predecessor-not-json": "no map",
    "bad-predecessor-a-list": "no map",
}


@pytest.fixture
def old_home(tmp_path, golden):
    folder = tmp_path / ".silo"
    folder.mkdir()
    (folder / "credentials.silo").write_bytes((golden / "predecessor-flat.silo").read_bytes())
    (folder / ".salt").write_bytes((golden / "predecessor.salt").read_bytes())
    return folder


def test_a_flat_file_opens_with_its_master_key_and_stays_as_it_is(old_home, maker):
    before = {path.name: path.read_bytes() for path in old_home.iterdir()}
    found = read_predecessor(*find_predecessor(old_home), maker.MASTER_KEY)
    assert found.entries == (
        Entry("", "API_KEY", "sk-golden-0123456789"),
        Entry("", "DB_PASSWORD_1", "golden pässword"),
        Entry("github", "TOKEN", "ghp_golden_0123456789"),
    )
    assert found.skipped == ()
    assert {path.name: path.read_bytes() for path in old_home.iterdir()} == before


def test_a_nested_file_opens_and_says_what_it_could_not_take(golden, maker):
    found = read_predecessor((golden / "predecessor-nested.silo").read_bytes(), SALT, maker.MASTER_KEY)
    assert found.entries == (
        Entry("", "API_KEY", "sk-golden-0123456789"),
        Entry("github", "TOKEN", "ghp_golden_0123456789"),
    )
    assert found.skipped == (
        Skipped("entry 'port' of 'github'", "it is not text"),
        Skipped("entry 'EMPTY'", "the value for it is empty"),
    )


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_refused_as_locked(golden, maker, name):
    with pytest.raises(VaultLocked) as caught:
        read_predecessor((golden / f"{name}.silo").read_bytes(), SALT, maker.MASTER_KEY)
    assert BAD[name] in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("key", ["", "another", "golden-master-key-of-the-predecessor ", "\ud800"])
def test_another_master_key_is_refused_and_the_hint_says_where_it_is(golden, key):
    """With a wrong key the predecessor saw an empty vault, and overwrote it."""
    with pytest.raises(VaultLocked) as caught:
        read_predecessor((golden / "predecessor-flat.silo").read_bytes(), SALT, key)
    assert "SILO_MASTER_KEY" in caught.value.hint


@pytest.mark.parametrize("salt", [b"", SALT[:-1], SALT + b"\n"])
def test_a_salt_of_another_length_is_refused(golden, maker, salt):
    with pytest.raises(VaultLocked, match=r"\.salt has"):
        read_predecessor((golden / "predecessor-flat.silo").read_bytes(), salt, maker.MASTER_KEY)


def test_both_alphabets_of_base64_and_a_line_end_are_read(maker):
    for number in range(4):
        file = maker.predecessor(b'{"A":"x"}', salt=SALT, nonce=b"nonce-%06d" % number)
        for other in (file + b"\n", file.replace(b"+", b"-").replace(b"/", b"_")):
            assert read_predecessor(other, SALT, maker.MASTER_KEY).entries == (Entry("", "A", "x"),)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"github.API_TOKEN": "x"}, ("github", "API_TOKEN")),
        ({"db.password": "x"}, ("", "DB_PASSWORD")),
        ({"github:api-token": "x"}, ("github", "API_TOKEN")),
        ({"GitHub:TOKEN": "x"}, ("", "GITHUB_TOKEN")),
        ({"my-skill": {"a.b": "x"}}, ("my-skill", "A_B")),
        ({"TOKEN": "x"}, ("", "TOKEN")),
        ({"ключ": "x"}, None),
        ({"Not One": {"A": "x"}}, None),
        ({"a": {"b": {"c": "x"}}}, None),
        ({"a": ["x"]}, None),
        ({"a": None}, None),
        ({"a-b": "x", "A_B": "x"}, None),
        ({"a": {"B": "x"}, "a:B": "x"}, None),
    ],
)
def test_names_and_namespaces_come_from_the_keys_as_documented(maker, content, expected):
    found = read_predecessor(maker.predecessor(json.dumps(content).encode(), salt=SALT), SALT, maker.MASTER_KEY)
    assert [(entry.namespace, entry.name) for entry in found.entries] == ([expected] if expected else [])
    assert bool(found.skipped) == (expected is None)


@pytest.mark.parametrize(
    "plaintext", [b"", b"null", b"[" * 100_000, b"9" * 10_000, b"\xff", b'{"a":' * 50_000, b'"sk"', b"\xff\xfe{\0"]
)
def test_a_plaintext_that_is_no_map_is_refused(maker, plaintext):
    with pytest.raises(VaultLocked, match="no map"):
        read_predecessor(maker.predecessor(plaintext, salt=SALT), SALT, maker.MASTER_KEY)


def test_too_many_entries_are_refused(maker):
    content = json.dumps({f"A{i}": "x" for i in range(100_001)}).encode()
    with pytest.raises(SourceUnreadable, match="more than 100000"):
        read_predecessor(maker.predecessor(content, salt=SALT), SALT, maker.MASTER_KEY)


def test_a_file_that_is_too_large_is_refused_before_it_is_decoded():
    with pytest.raises(SourceUnreadable, match="larger"):
        read_predecessor(bytes(module.MAX_SOURCE_BYTES + 1), SALT, "x")


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=80), st.binary(max_size=20) | st.just(SALT), st.text(max_size=9))
def test_any_bytes_at_all_are_refused_with_a_typed_error(file, salt, passphrase):
    with pytest.raises((VaultLocked, SourceUnreadable)):
        read_predecessor(file, salt, passphrase)


@settings(max_examples=30, deadline=None)
@given(
    st.recursive(
        st.text(max_size=5) | st.integers() | st.none(),
        lambda inner: st.dictionaries(st.text(max_size=5), inner, max_size=4),
    )
)
def test_whatever_json_it_holds_is_sorted_out_or_refused(maker, content):
    file = maker.predecessor(json.dumps(content).encode(), salt=SALT)
    try:
        found = read_predecessor(file, SALT, maker.MASTER_KEY)
    except VaultLocked:
        assert not isinstance(content, dict)
    else:
        leaves = sum(len(value) if isinstance(value, dict) else 1 for value in content.values())
        assert len(found.entries) <= leaves


def test_the_vault_itself_may_be_named_instead_of_its_folder(old_home):
    assert find_predecessor(old_home / "credentials.silo") == find_predecessor(old_home)


def test_a_vault_of_ours_is_recognised_even_without_a_salt(tmp_path):
    tmp_path.chmod(0o700)
    vault = Vault(tmp_path / "credentials.silo", [EnvironmentKey("00" * 32)])
    vault.put("A", "x")
    with pytest.raises(SourceUnreadable, match="a vault of this silo"):
        find_predecessor(tmp_path)
    with pytest.raises(SourceUnreadable, match="a vault of this silo"):
        read_predecessor(vault.path.read_bytes(), SALT, "x")


@pytest.mark.parametrize("missing", ["credentials.silo", ".salt"])
def test_a_missing_file_is_named(old_home, missing):
    (old_home / missing).unlink()
    with pytest.raises(SourceUnreadable, match=f"{missing}': No such file"):
        find_predecessor(old_home)


def test_a_missing_folder_and_a_pipe_in_place_of_a_file_are_refused(old_home):
    with pytest.raises(SourceUnreadable, match="not a folder"):
        find_predecessor(old_home / "nothing")
    (old_home / ".salt").unlink()
    os.mkfifo(old_home / ".salt")
    with pytest.raises(SourceUnreadable, match="not a file"):
        find_predecessor(old_home)
