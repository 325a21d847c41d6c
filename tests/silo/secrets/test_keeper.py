"""A secret that a person typed in and wants kept."""

import pytest
from silo_vault import EnvironmentKey, Vault

from silo.errors import VaultLocked
from silo.secrets.keeper import SecretKeeper


@pytest.fixture
def open_keeper(tmp_path):
    """Return the keeper of a vault that opens with a key, and the list of its records."""

    def open_keeper(key):
        records = []
        vault = Vault(tmp_path / "credentials.silo", [EnvironmentKey(key)])

        def record(event, **facts):
            records.append((event, facts))

        return SecretKeeper(lambda: vault, record, headless=False), vault, records

    return open_keeper


def test_it_is_kept_for_its_skill_alone_and_recorded_without_its_value(open_keeper):
    keep, vault, records = open_keeper("ab" * 32)
    keep("demo", "KEY", "s3cr3t")
    assert vault.get("KEY", namespace="demo").reveal() == "s3cr3t"
    assert vault.find("KEY", [""]) is None
    facts = {"action": "add", "name": "KEY", "skill": "demo", "how": "typed in when a call wanted it"}
    assert records == [("vault", facts)]


def test_a_vault_that_does_not_open_is_an_error_of_silo_and_nothing_is_recorded(open_keeper):
    _, vault, _ = open_keeper("ab" * 32)
    vault.put("OTHER", "x")
    keep, _, records = open_keeper("cd" * 32)
    with pytest.raises(VaultLocked):
        keep("demo", "KEY", "s3cr3t")
    assert records == []
