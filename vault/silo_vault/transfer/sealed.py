"""The export of a vault: a JSON document in an age file (https://age-encryption.org/v1). Pure, except for random bytes.

    {"created":"2026-11-25T10:00:00Z","format":"silo-export","secrets":[{"name":…,"namespace":…,"value":…},…],
     "vault_id":…,"version":1}

The age format makes it possible to open an export without silo. An age file doesn't prove who made it: anyone who knows
a recipient can seal to it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import pyrage  # type: ignore[import-untyped]

from silo_vault.errors import SecretInvalid, SourceUnreadable, VaultDamaged, VaultLocked, VaultNotWritten
from silo_vault.keys.texts import weakness
from silo_vault.secret import check_name, check_namespace, check_value
from silo_vault.transfer.entry import MAX_ENTRIES, MAX_SOURCE_BYTES, Entry

FORMAT = "silo-export"
VERSION = 1

MAX_WORK_FACTOR = 22
"""Largest accepted log2(N) of scrypt, as in the reference implementation of age. 23 needs 8 GiB and a minute."""

MIN_WORK_FACTOR = 15
"""Smallest log2(N) that is written: twice the N that scrypt's paper of 2009 advises for logins. 17 to 20 is usual."""

_ATTEMPTS = 5

_AGE = b"age-encryption.org/v1\n"
_ANY_AGE = re.compile(rb"age-encryption\.org/v[0-9]+\n")
_SCRYPT = re.compile(rb"-> scrypt [A-Za-z0-9+/]{22} ([1-9][0-9]{0,2})\n[A-Za-z0-9+/]{43}\n--- ")
_ARMOUR = re.compile(
    rb"\s*-----BEGIN AGE ENCRYPTED FILE-----\r?\n([A-Za-z0-9+/=\r\n]*)-----END AGE ENCRYPTED FILE-----\s*"
)
_VAULT_ID = re.compile(r"[0-9a-f]{32}")
_CREATED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_DOCUMENT_FIELDS = frozenset({"format", "version", "vault_id", "created", "secrets"})
_SECRET_FIELDS = frozenset({"namespace", "name", "value"})

_NEWER_HINT = "update silo, then import it again"
_COPY_HINT = "copy the export again from where it came"


@dataclass(frozen=True)
class Export:
    """The contents of an export.

    Attributes:
        vault_id: of the exported vault, 32 hex digits.
        created: when it was made; UTC, `YYYY-MM-DDTHH:MM:SSZ`.
        entries: each namespace and name once. A reader returns them in ascending order of both.
    """

    vault_id: str
    created: str
    entries: tuple[Entry, ...]


def seal_to_passphrase(document: Export, passphrase: str) -> bytes:
    """Return an age file that the passphrase opens. This takes a second or a few, and so does a guess (scrypt).

    Raises:
        SecretInvalid: the passphrase is easy to guess, or the document breaks a rule of the vault.
        VaultNotWritten: it would be too large to read again, or this machine is too busy to seal it well.
    """
    _check_text(passphrase)
    if (reason := weakness(passphrase)) is not None:  # guesses at an export are not limited
        raise SecretInvalid(
            f"the passphrase for the export can be guessed: it {reason}",
            hint="use several random words, or seal it to a recipient with --to",
        )
    plaintext = _encode(document)
    # pyrage measures which work factor this machine manages in a second, and no argument changes that. On a busy
    # machine the factor can be too small to protect the passphrase, so such a result is discarded.
    for _ in range(_ATTEMPTS):
        sealed: bytes = pyrage.passphrase.encrypt(plaintext, passphrase)
        if MIN_WORK_FACTOR <= _work_factor(sealed) <= MAX_WORK_FACTOR:
            return _fitting(sealed)
    raise VaultNotWritten(
        "this machine is too busy or too slow to seal an export to a passphrase well enough",
        hint="try again when it is idle, or seal it to a recipient with --to",
    )


def seal_to_recipients(document: Export, recipients: Sequence[str]) -> bytes:
    """Return an age file that the identity of any recipient opens.

    Args:
        document: the export.
        recipients: `age1…` (X25519), `ssh-ed25519 …` or `ssh-rsa …`, at least one.

    Raises:
        SecretInvalid: there is no recipient, one is malformed, or the document breaks a rule of the vault.
        VaultNotWritten: it would be too large to read again.
    """
    if not recipients:
        raise SecretInvalid("an export needs a recipient", hint="name one with --to, or seal it to a passphrase")
    parsed = [_recipient(number, text) for number, text in enumerate(recipients, start=1)]
    plaintext = _encode(document)
    return _fitting(pyrage.encrypt(plaintext, parsed))


def needs_passphrase(data: bytes) -> bool:
    """Whether the age file is sealed to a passphrase. If not, an identity opens it.

    Raises:
        SourceUnreadable: it is not an age file, or larger than 64 MiB.
        VaultDamaged: its armour or header is malformed, or it needs more work than is accepted.
    """
    return _is_scrypt(_to_binary(data))


def open_sealed(data: bytes, *, passphrase: str | None = None, identities: Sequence[str] = ()) -> Export:
    """Open an age file, which may be binary or in ASCII armour.

    Args:
        data: the file.
        passphrase: for a file that is sealed to a passphrase.
        identities: for any other file. Each is the text of an identity file (`AGE-SECRET-KEY-1…`, with comments) or
            an SSH private key without a passphrase of its own.

    Raises:
        SourceUnreadable: it is not an age file, or larger than 64 MiB.
        VaultLocked: the passphrase or the identities are missing or wrong.
        VaultDamaged: the file is malformed or was changed, or is not an export of this version.
    """
    data = _to_binary(data)
    if _is_scrypt(data):
        if passphrase is None:
            raise VaultLocked("the export is sealed to a passphrase", hint="give the passphrase it was made with")
        _check_text(passphrase)
        return _parse(_opened(lambda: pyrage.passphrase.decrypt(data, passphrase)))
    if not identities:
        raise VaultLocked(
            "the export is sealed to a recipient, and no identity was given",
            hint="give the file with the identity (AGE-SECRET-KEY-1…) or SSH private key of one of its recipients",
        )
    parsed = [identity for number, text in enumerate(identities, start=1) for identity in _identities(number, text)]
    return _parse(_opened(lambda: pyrage.decrypt(data, parsed)))


def to_plain_text(document: Export) -> str:
    """Return the document unencrypted, with every value readable. Use it only on an explicit request.

    Raises:
        SecretInvalid: the document breaks a rule of the vault.
    """
    return json.dumps(_to_json(document), sort_keys=True, indent=2) + "\n"


def from_plain_text(data: bytes) -> Export:
    """Parse the text that `to_plain_text` returned.

    Raises:
        SourceUnreadable: it is larger than 64 MiB.
        VaultDamaged: it is not an export of this version.
    """
    _check_size(data)
    return _parse(data)


def _to_json(document: Export) -> dict[str, object]:
    """Check the document like a reader does, so that everything written can be read again."""
    if not _VAULT_ID.fullmatch(document.vault_id) or not _CREATED.fullmatch(document.created):
        raise SecretInvalid(
            "the id or the time of an export is malformed",
            hint="an id has 32 hex digits, a time is YYYY-MM-DDTHH:MM:SSZ",
        )
    for entry in document.entries:
        check_namespace(entry.namespace)
        check_value(check_name(entry.name), entry.value)
    ordered = sorted(document.entries, key=lambda entry: (entry.namespace, entry.name))
    if len({(entry.namespace, entry.name) for entry in ordered}) < len(ordered) or len(ordered) > MAX_ENTRIES:
        raise SecretInvalid(
            f"an export has each name once, and at most {MAX_ENTRIES} of them", hint="export namespace by namespace"
        )
    secrets = [{"namespace": entry.namespace, "name": entry.name, "value": entry.value} for entry in ordered]
    return {
        "format": FORMAT,
        "version": VERSION,
        "vault_id": document.vault_id,
        "created": document.created,
        "secrets": secrets,
    }


def _encode(document: Export) -> bytes:
    return json.dumps(_to_json(document), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _fitting(sealed: bytes) -> bytes:
    if len(sealed) > MAX_SOURCE_BYTES:
        raise VaultNotWritten(
            f"the export would be larger than {MAX_SOURCE_BYTES} bytes", hint="export namespace by namespace"
        )
    return sealed


def _parse(plaintext: bytes) -> Export:
    # No message quotes a value or an unknown field. The parsers' own errors are dropped, because they contain the text.
    try:
        content = json.loads(plaintext, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError):
        _damaged("it is not the JSON of one")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        _damaged("it does not say that it is one")
    version = content.get("version")
    if type(version) is not int or version < 1:
        _damaged("its version is not a number")
    if version > VERSION:
        raise VaultDamaged(f"the export was made by a newer program (format version {version})", hint=_NEWER_HINT)
    _check_fields(content, _DOCUMENT_FIELDS)
    vault_id, created, secrets = content["vault_id"], content["created"], content["secrets"]
    if not isinstance(vault_id, str) or not _VAULT_ID.fullmatch(vault_id):
        _damaged("its 'vault_id' is malformed")
    if not isinstance(created, str) or not _CREATED.fullmatch(created):
        _damaged("its 'created' is malformed")
    if not isinstance(secrets, list) or len(secrets) > MAX_ENTRIES:
        _damaged(f"its 'secrets' is not a list of at most {MAX_ENTRIES}")
    entries = [_parse_secret(number, secret) for number, secret in enumerate(secrets, start=1)]
    entries.sort(key=lambda entry: (entry.namespace, entry.name))
    if len({(entry.namespace, entry.name) for entry in entries}) < len(entries):
        _damaged("it has two secrets of one name")
    return Export(vault_id, created, tuple(entries))


def _parse_secret(number: int, secret: object) -> Entry:
    if not isinstance(secret, dict):
        _damaged(f"secret {number} is malformed")
    _check_fields(secret, _SECRET_FIELDS)
    namespace, name, value = secret["namespace"], secret["name"], secret["value"]
    if not (isinstance(namespace, str) and isinstance(name, str) and isinstance(value, str)):
        _damaged(f"secret {number} is malformed")
    try:
        check_namespace(namespace)
        check_value(check_name(name), value)
    except SecretInvalid as error:
        _damaged(f"secret {number}: {error.message}")
    return Entry(namespace, name, value)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError
    return content


def _check_fields(content: dict[str, Any], known: frozenset[str]) -> None:
    if missing := known - content.keys():
        _damaged(f"{min(missing)!r} is missing")
    if content.keys() - known:
        # As in the vault's header: a field that this version would drop may restrict a secret.
        raise VaultDamaged("the export has a field that this version does not know", hint=_NEWER_HINT)


def _damaged(what: str) -> NoReturn:
    raise VaultDamaged(f"this is not an export of a vault, or a damaged one: {what}", hint=_COPY_HINT) from None


def _check_size(data: bytes) -> None:
    if len(data) > MAX_SOURCE_BYTES:
        raise SourceUnreadable(
            f"the export is larger than {MAX_SOURCE_BYTES} bytes", hint="check that it is the right file"
        )


def _check_text(passphrase: str) -> None:
    try:
        passphrase.encode()
    except UnicodeEncodeError:
        raise SecretInvalid("the passphrase is not text in UTF-8", hint="type it, or read it as UTF-8") from None


def _to_binary(data: bytes) -> bytes:
    """Return the binary age file, without armour."""
    _check_size(data)
    if armour := _ARMOUR.fullmatch(data):
        try:
            data = base64.b64decode(armour[1].replace(b"\r", b"").replace(b"\n", b""), validate=True)
        except binascii.Error:
            raise VaultDamaged("the ASCII armour of the export is damaged", hint=_COPY_HINT) from None
    if data.startswith(_AGE):
        return data
    if _ANY_AGE.match(data):
        raise VaultDamaged("the export is an age file of a newer version", hint=_NEWER_HINT)
    raise SourceUnreadable(
        "this is not an age file, and a sealed export is one",
        hint="check that it is the right file and complete; "
        "ASCII armour starts with -----BEGIN AGE ENCRYPTED FILE-----",
    )


def _is_scrypt(data: bytes) -> bool:
    if not data.startswith(b"-> scrypt ", len(_AGE)):
        return False
    factor = _work_factor(data)
    if factor > MAX_WORK_FACTOR:
        raise VaultDamaged(
            f"the export needs a work factor of {factor}; at most {MAX_WORK_FACTOR} is accepted",
            hint="seal it again with silo or age, which choose a smaller one",
        )
    return True


def _work_factor(data: bytes) -> int:
    # By the specification of age such a stanza is the only one, so this is the whole header up to its MAC.
    stanza = _SCRYPT.match(data, len(_AGE))
    if stanza is None:
        raise VaultDamaged("the header of the export is malformed", hint=_COPY_HINT)
    return int(stanza[1])


def _recipient(number: int, text: str) -> object:
    text = text.strip()
    try:
        if text.startswith("age1"):
            return pyrage.x25519.Recipient.from_str(text)
        if text.startswith(("ssh-ed25519 ", "ssh-rsa ")):
            return pyrage.ssh.Recipient.from_str(text)
    except (pyrage.RecipientError, UnicodeEncodeError):
        pass  # reported below without the text, which may be a secret key
    secret = "that is a secret key; " if "SECRET-KEY-" in text.upper() or "PRIVATE KEY" in text.upper() else ""
    raise SecretInvalid(
        f"recipient {number} is malformed: {secret}"
        "not an age recipient (age1…, X25519) and not an ssh-ed25519 or ssh-rsa public key",
        hint="`age-keygen -y FILE` prints the recipient of an identity; for SSH, give the whole line of the .pub file",
    ) from None


def _identities(number: int, text: str) -> list[object]:
    try:
        if "-----BEGIN " in text:
            return [pyrage.ssh.Identity.from_buffer(text.encode())]
        lines = [line.strip() for line in text.splitlines()]
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (pyrage.IdentityError, UnicodeEncodeError):
        found = []
    if not found:
        raise VaultLocked(
            f"identity {number} can't be used: not AGE-SECRET-KEY-1… and not an SSH private key without passphrase",
            hint="give an age identity file, or a copy of the SSH key without passphrase (`ssh-keygen -p` removes it)",
        ) from None
    return found


def _opened(decrypt: Callable[[], bytes]) -> bytes:
    try:
        return decrypt()
    except pyrage.DecryptError as error:
        # `pyrage` has one class for all failures. `test_sealed.py` fails when these two texts change.
        if str(error) == "Decryption failed":
            raise VaultLocked("the passphrase does not open the export", hint="check it, and type it again") from None
        if str(error) == "No matching keys found":
            raise VaultLocked(
                "no identity that was given opens the export",
                hint="give the identity of a recipient that it was sealed to",
            ) from None
    raise VaultDamaged("the export was changed, or is cut short", hint=_COPY_HINT) from None
