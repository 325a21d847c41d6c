"""No result, `repr` or error of this package shows a value or a key, however it fails."""

import json
import traceback
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from silo_vault import VaultError
from silo_vault.transfer import (
    Entry,
    Export,
    Found,
    from_plain_text,
    open_sealed,
    read_dotenv,
    read_password_store,
    read_predecessor,
    seal_to_passphrase,
    seal_to_recipients,
    to_plain_text,
    to_text,
)
from silo_vault.transfer.entry import Candidate

SALT = b"golden-salt-16-b"
MARK = "hunter2Value"  # used in every place where a value or a passphrase can be
GOLDEN_VALUES = (
    "golden-0123456789",
    "golden_0123456789",
    "golden pässword",
    "мир",
    "golden-master",
    "correct horse",
)


def said_by(run: Callable[[], object]) -> str:
    """Return all that a caller could print: the `repr` and text of a result, or everything in an error."""
    try:
        result = run()
    except VaultError as error:
        return "\n".join([str(error), repr(error), error.hint, *traceback.format_exception(error)])
    return f"{result!r} {result!s}"


DOTENV = [
    "KEY={}",
    "KEY='{}",
    'KEY="{}',
    "KEY='{}'x",
    "KEY='x'{}",
    'KEY="{}" {}',
    "{}",
    "export {}",
    "KEY: {}",
    "KEY=$A{}",
    'KEY="${{A}}{}"',
    "KEY=`{}`",
    "KEY=={}",
    "KEY=a\r{}",
    "KEY='{}\0'",
    "KEY={0}\nKEY={0}",
    "k-1={0}\nK_1={0}",
    "_K={}",
    "KEY='\n{}\n",
    "KEY=" + "{}" * 9000,
]


@pytest.mark.parametrize("text", DOTENV)
def test_what_is_said_of_an_env_file_holds_no_value(text):
    assert MARK not in said_by(lambda: read_dotenv(text.format(*[MARK] * 9000)))


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(["KEY", "=", "'", '"', "$", "\\", "\n", " ", "#", "export ", "`", "{", MARK]), max_size=20)
)
def test_what_is_said_of_any_env_file_holds_no_value(pieces):
    # Each line gets a key first, so that the mark is never in the place of a name.
    text = "KEY=" + "".join(pieces).replace("\n", "\nKEY=")
    assert MARK not in said_by(lambda: read_dotenv(text))


CONTENTS = [
    {"A": MARK},
    {"ключ": MARK},
    {"a-b": MARK, "A_B": MARK},
    {"A": [MARK]},
    {"a": {"B": [MARK]}},
    {"a": {"B": {"C": MARK}}},
    {"A": MARK + "\0"},
    {"A": MARK * 9000},
    [MARK],
    MARK,
    {"N N": {"A": MARK}},
]


@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_said_of_the_predecessors_vault_holds_no_value(maker, content):
    file = maker.predecessor(json.dumps(content).encode(), salt=SALT)
    for passphrase in (maker.MASTER_KEY, MARK):
        assert MARK not in said_by(lambda p=passphrase: read_predecessor(file, SALT, p))
    unreadable = maker.predecessor(json.dumps(content).encode()[:-1], salt=SALT)
    assert MARK not in said_by(lambda: read_predecessor(unreadable, SALT, maker.MASTER_KEY))


def golden_runs(golden, maker) -> Iterator[Callable[[], object]]:
    identity = (golden / "v1-recipient.identity.txt").read_text()
    for path in sorted(golden.iterdir()):
        data = path.read_bytes()
        if path.name in {"v1-passphrase.age", "make_golden.py"}:  # one is slow, the other is not data
            continue
        yield lambda data=data: open_sealed(data, passphrase=maker.PASSPHRASE, identities=[identity])
        yield lambda data=data: from_plain_text(data)
        yield lambda data=data: read_predecessor(data, SALT, maker.MASTER_KEY)
        yield lambda data=data: to_text(data)[:0]


def test_what_is_said_of_any_golden_file_holds_no_value(golden, maker):
    runs = list(golden_runs(golden, maker))
    assert len(runs) > 100
    for run in runs:
        said = said_by(run)
        assert not [value for value in (*GOLDEN_VALUES, "AGE-SECRET-KEY-1") if value in said]


BAD_DOCUMENTS = [
    {"secrets": [{"namespace": "", "name": MARK, "value": MARK}]},
    {"secrets": [{"namespace": MARK, "name": "A", "value": MARK}]},
    {"secrets": [{"namespace": "", "name": "A", "value": [MARK]}]},
    {"secrets": [{"namespace": "", "name": "A", "value": MARK + "\0"}]},
    {"secrets": [{"namespace": "", "name": "A", "value": "x", MARK: MARK}]},
    {"secrets": [MARK]},
    {"secrets": MARK},
    {"version": MARK},
    {"created": MARK},
    {"vault_id": MARK},
    {"format": MARK},
    {MARK: MARK},
]


@pytest.mark.parametrize("changed", BAD_DOCUMENTS)
def test_what_is_said_of_a_bad_export_holds_no_value(maker, changed):
    document = maker.document(**changed)
    for data in (document, document[:-1], document + MARK.encode(), b"\xff" + document):
        assert MARK not in said_by(lambda d=data: from_plain_text(d))
        assert MARK not in said_by(lambda d=data: open_sealed(maker.age_file(d, "x", log_n=2), passphrase="x"))
        assert MARK not in said_by(lambda d=data: to_text(b"\xff" + d))


def test_what_is_said_of_a_wrong_key_or_recipient_does_not_hold_it(golden, maker):
    sealed, to_recipient = ((golden / f"{n}.age").read_bytes() for n in ("v1-passphrase-cheap", "v1-recipient"))
    export = Export(maker.VAULT_ID, maker.CREATED, (Entry("", "A", MARK),))
    secret_key = f"AGE-SECRET-KEY-1{MARK}"
    for run in (
        lambda: open_sealed(sealed, passphrase=MARK),
        lambda: open_sealed(sealed, passphrase=MARK + "\udcff"),
        lambda: open_sealed(to_recipient, identities=[secret_key]),
        lambda: open_sealed(to_recipient, identities=[f"-----BEGIN {MARK}"]),
        lambda: seal_to_recipients(export, [secret_key]),
        lambda: seal_to_recipients(export, [f"ssh-rsa {MARK}"]),
        lambda: seal_to_recipients(export, [f"age1{MARK}"]),
        lambda: seal_to_passphrase(export, MARK[:7]),
        lambda: seal_to_passphrase(export, MARK + "\udcff"),
        lambda: to_plain_text(Export(maker.VAULT_ID, maker.CREATED, (Entry("", "A", MARK + "\ud800"),))),
    ):
        assert MARK[:7] not in said_by(run)


def test_what_is_said_of_a_password_store_holds_no_value(tmp_path):
    gpg = tmp_path / "gpg"
    store = tmp_path / "store"
    store.mkdir()
    (store / "a.gpg").write_bytes(MARK.encode())
    for script in (
        f"echo {MARK}; echo '[GNUPG:] DECRYPTION_OKAY' >&2",
        f"echo {MARK}",
        f"echo {MARK}; echo {MARK} >&2; echo '[GNUPG:] ERROR {MARK} {MARK}' >&2; exit 2",
        f"printf '{MARK}\\377\\n'; echo '[GNUPG:] DECRYPTION_OKAY' >&2",
        f"yes {MARK}",
    ):
        gpg.write_text(f"#!/bin/sh\n{script}\n")
        gpg.chmod(0o700)
        assert MARK not in said_by(lambda: read_password_store(store, gpg=str(gpg)))


def test_no_type_that_holds_a_value_shows_it():
    entry = Entry("", "A", MARK)
    for holder in (entry, Candidate("1", "", "a", MARK), Found((entry,), ()), Export("00", "now", (entry,))):
        assert MARK not in f"{holder!r} {holder!s} {holder}"
