"""Each error of the libraries below has one of silo's, so that a caller only needs to know these."""

import inspect

import pytest
import silo_interaction
import silo_vault

from silo.approvals.consent import from_interaction_error, interaction_errors
from silo.errors import CallDenied, SiloError, VaultLocked
from silo.sandbox.skill.failures import FAILURES
from silo.secrets.lease import from_vault_error, vault_errors
from silo.testing.fakes import make_tool
from silo.wire.messages import FAILURE_CODES


def classes_of(module, base):
    return [
        kind for _, kind in inspect.getmembers(module, inspect.isclass) if issubclass(kind, base) and kind is not base
    ]


def made(kind, message, *, hint):
    """Return an error of the vault; one of them tells more than the others."""
    more = {"restoration": None} if kind is silo_vault.KeysReturn else {}
    return kind(message, hint=hint, **more)


def test_every_error_of_the_vault_is_mapped():
    """A new error needs a decision: is the vault locked or unusable, or is the user's input wrong?"""
    assert set(classes_of(silo_vault, silo_vault.VaultError)) == set(vault_errors())


@pytest.mark.parametrize("kind", classes_of(silo_vault, silo_vault.VaultError), ids=lambda kind: kind.__name__)
def test_an_error_of_the_vault_keeps_its_words(kind):
    error = from_vault_error(made(kind, "what happened", hint="what to do"))
    assert isinstance(error, SiloError)
    assert (error.message, error.hint) == ("what happened", "what to do")


def test_only_what_a_person_could_unlock_asks_for_one():
    for kind, ours in vault_errors().items():
        error = from_vault_error(made(kind, "x", hint="y"), headless=True)
        assert ("SILO_AUTH_REQUIRED" in str(error)) == issubclass(ours, VaultLocked)


def test_every_error_of_asking_is_mapped_and_is_a_no():
    found = classes_of(silo_interaction, silo_interaction.InteractionError)
    assert set(found) == set(interaction_errors())
    for kind in [*found, silo_interaction.InteractionError]:
        error = from_interaction_error(kind("x", hint="y"), make_tool())
        assert isinstance(error, CallDenied)
        assert error.hint


def test_every_code_that_a_guest_may_report_has_an_error():
    assert FAILURES.keys() == FAILURE_CODES
    for code, (kind, hint) in FAILURES.items():
        assert hint
        assert kind.code == code or code == "tool-unknown"
