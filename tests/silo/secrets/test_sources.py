"""Where a secret is looked up: the documented order, and no place replaces one that refuses or does not answer."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from silo_vault import AccessRefused, KeyUnreachable, Secret, VaultError

from silo.secrets.sources import SecretReference, Sources, check_mapped, parse_reference
from silo.testing.fakes import FakeVault


class Place:
    """A keyring, or a server, in memory; `fails_with` is raised by every read."""

    def __init__(self, secrets=None, fails_with=None):
        self.secrets = secrets or {}
        self.fails_with = fails_with
        self.reads = []

    def read(self, where, field="", *, service=None):
        self.reads.append((service or "", where, field))
        if self.fails_with is not None:
            raise self.fails_with
        value = self.secrets.get(f"{where}#{field}" if field else f"{service or ''}/{where}".lstrip("/"))
        return None if value is None else Secret("X", value)


def sources(*, file=None, server=None, keyring=None, mapped=None, **options):
    return Sources(
        lambda: FakeVault(file or {}),
        server=None if server is None else lambda: server,
        keyring=None if keyring is None else lambda: keyring,
        mapped={name: parse_reference(text) for name, text in (mapped or {}).items()},
        **options,
    )


def found(it, skill="github", name="TOKEN"):
    secret = it.find(skill, name)
    return None if secret is None else secret.reveal()


EVERYWHERE = [
    ("server", "secret/silo/github#TOKEN"),
    ("server", "secret/silo#TOKEN"),
    ("keyring", "github/TOKEN"),
    ("keyring", "TOKEN"),
    ("file", "github/TOKEN"),
    ("file", "TOKEN"),
]


@pytest.mark.parametrize("there", [set(c) for n in range(7) for c in itertools.combinations(range(6), n)], ids=str)
def test_the_first_place_of_the_rule_that_has_a_secret_decides(there):
    held = {"server": {}, "keyring": {}, "file": {}}
    for number in there:
        place, key = EVERYWHERE[number]
        held[place][key] = f"value {number}"
    it = sources(
        file=held["file"],
        server=Place(held["server"]),
        server_path="secret/silo",
        keyring=Place(held["keyring"]),
        use_keyring=True,
    )
    assert found(it) == (f"value {min(there)}" if there else None)


def test_a_mapping_decides_alone_and_that_of_the_skill_comes_first():
    server = Place({"team/tools#gh": "from the server"})
    it = sources(
        file={"TOKEN": "global", "MINE": "renamed"},
        server=server,
        mapped={"TOKEN": "vault://team/tools#gh", "jwt.TOKEN": "silo://MINE", "OTHER": "vault://team/tools#absent"},
    )
    assert found(it, "github") == "from the server"
    assert found(it, "jwt") == "renamed"
    it = sources(file={"OTHER": "in the file"}, server=server, mapped={"OTHER": "vault://team/tools#absent"})
    assert found(it, name="OTHER") is None  # the file's is not what was asked for


def test_a_mapped_secret_can_lie_under_any_service_of_the_keyring():
    keyring = Place({"github.com/ada": "from the keyring"})
    it = sources(keyring=keyring, mapped={"TOKEN": "keyring://github.com/ada"})
    assert found(it) == "from the keyring"
    assert found(it, name="OTHER") is None
    assert len(keyring.reads) == 1  # without `keyring = true` nothing else is looked up there


@pytest.mark.parametrize("error", [AccessRefused, KeyUnreachable])
@pytest.mark.parametrize("which", ["server", "keyring"])
def test_a_place_that_refuses_or_does_not_answer_ends_the_search(error, which):
    broken = Place(fails_with=error("no", hint="wait"))
    it = sources(
        file={"TOKEN": "an older copy"},
        server=broken if which == "server" else Place(),
        server_path="secret/silo",
        keyring=broken if which == "keyring" else Place(),
        use_keyring=True,
    )
    with pytest.raises(VaultError) as caught:
        it.find("github", "TOKEN")
    assert type(caught.value) is error


def test_another_skills_secret_is_never_found():
    it = sources(file={"github/TOKEN": "github's own"})
    assert found(it, "github") == "github's own"
    assert found(it, "jwt") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vault://secret/team/github#token", ("vault", "secret/team/github", "token")),
        ("keyring://github.com/ada@example.org", ("keyring", "github.com", "ada@example.org")),
        ("silo://TOKEN", ("silo", "", "TOKEN")),
        ("silo://jwt/TOKEN", ("silo", "jwt", "TOKEN")),
    ],
)
def test_a_reference_is_read(text, expected):
    assert parse_reference(text) == SecretReference(*expected, text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "TOKEN", "vault://secret#x", "vault://secret/a", "vault://secret/../sys/x#y", "vault://secret/./x#y"),
        *(
            "vault:///secret/a#x",
            "vault://secret/a#x?y",
            "vault://secret/a b#x",
            "vault://secret/a#x\n",
            "file:///etc/x",
        ),
        *("keyring://service", "keyring:///user", "silo://lower", "silo://A/B", "silo://jwt/TOKEN/x", "https://x/y#z"),
    ],
)
def test_anything_else_is_no_reference(text):
    with pytest.raises(ValueError, match="must be vault://"):
        parse_reference(text)


@given(st.text())
def test_any_text_is_a_reference_or_an_error(text):
    with contextlib.suppress(ValueError):
        assert parse_reference(text).text == text


@pytest.mark.parametrize("name", ["lower", "jwt.lower", "Jwt.TOKEN", "a.b.TOKEN", "", ".TOKEN", "TOKEN\n"])
def test_what_can_not_be_a_secret_can_not_be_mapped(name):
    with pytest.raises(ValueError, match="must be the name"):
        check_mapped(name)
