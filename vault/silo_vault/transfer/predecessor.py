"""Reads the vault of SILO V2, this program's predecessor: `credentials.silo` and `.salt` beside it. It writes neither.

The file is base64 of a nonce of 12 bytes and AES-256-GCM ciphertext; the plaintext is a JSON object. The key is
stretched from the master key, a text in `SILO_MASTER_KEY` or the OS keyring (service `silo`, user `master_key`), which
the caller has to get. Our own vault has the same file name, but starts with its magic bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from silo_vault.crypto import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Unauthentic, unseal
from silo_vault.errors import SecretInvalid, SourceUnreadable, VaultLocked
from silo_vault.format import MAGIC
from silo_vault.secret import check_name, check_namespace
from silo_vault.transfer.entry import (
    MAX_SOURCE_BYTES,
    Candidate,
    Found,
    Skipped,
    check_count,
    quoted,
    to_found,
)
from silo_vault.transfer.source import read_source

FILE_NAME = "credentials.silo"
SALT_NAME = ".salt"
SALT_BYTES = 16
PBKDF2_ROUNDS = 100_000
"""As in the predecessor. That is few today, but its generated master keys have 256 bits."""

_HINT = "give the predecessor's master key: SILO_MASTER_KEY, or the value of its keyring entry 'silo' / 'master_key'"


def find_predecessor(folder: Path) -> tuple[bytes, bytes]:
    """Return vault and salt from the predecessor's folder, usually `~/.silo`, for `read_predecessor`.

    Args:
        folder: that folder, or the path of `credentials.silo` in it.

    Raises:
        SourceUnreadable: one of them is missing or can't be read, or the vault is one of ours.
    """
    if folder.name == FILE_NAME and folder.is_file():
        folder = folder.parent
    if not folder.is_dir():
        raise SourceUnreadable(
            f"{quoted(str(folder))} is not a folder",
            hint=f"give the folder that holds {FILE_NAME} and {SALT_NAME}, usually ~/.silo",
        )
    file = read_source(folder / FILE_NAME)
    _refuse_ours(file)
    return file, read_source(folder / SALT_NAME, max_bytes=1024)


def read_predecessor(file: bytes, salt: bytes, passphrase: str) -> Found:
    """Return the secrets of the predecessor's vault.

    An entry `NAME` gets no namespace. `ns:NAME`, `ns.NAME` and an object `{"ns": {"NAME": …}}` get the namespace `ns`
    if that is valid. For `ns.NAME`, `NAME` must be valid too, so that `db.password` becomes `DB_PASSWORD`.

    Args:
        file: `credentials.silo`.
        salt: `.salt`, 16 bytes.
        passphrase: the predecessor's master key, as text.

    Raises:
        VaultLocked: the passphrase is wrong or one of the files is damaged, which can't be distinguished.
        SourceUnreadable: it is a vault of this program, larger than 64 MiB, or has more than 100,000 entries.
    """
    _refuse_ours(file)
    if len(file) > MAX_SOURCE_BYTES:
        raise SourceUnreadable(
            f"{FILE_NAME} is larger than {MAX_SOURCE_BYTES} bytes", hint="check that it is the right file"
        )
    if len(salt) != SALT_BYTES:
        raise VaultLocked(
            f"{SALT_NAME} has {len(salt)} bytes instead of {SALT_BYTES}",
            hint=f"it belongs beside {FILE_NAME}; take both from the same folder, or from the same backup",
        )
    try:
        sealed = base64.b64decode(file.strip().translate(bytes.maketrans(b"-_", b"+/")), validate=True)
    except binascii.Error:
        raise VaultLocked(f"{FILE_NAME} is damaged: it is not base64", hint="take it from a backup") from None
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise VaultLocked(f"{FILE_NAME} is damaged: it is cut short", hint="take it from a backup")
    try:
        key = hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, PBKDF2_ROUNDS, KEY_BYTES)
        plaintext = unseal(key, sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], b"")
    except (UnicodeEncodeError, Unauthentic):
        raise VaultLocked(
            f"the master key does not open {FILE_NAME}, or the file or its {SALT_NAME} is damaged", hint=_HINT
        ) from None
    try:
        content = json.loads(plaintext)
    except (ValueError, RecursionError):  # caught here: the error of the JSON parser contains the whole text
        content = None
    if not isinstance(content, dict):
        raise VaultLocked(f"{FILE_NAME} opens, but contains no map of secrets", hint="take it from a backup")
    candidates: list[Candidate] = []
    skipped: list[Skipped] = []
    for each in _entries(content):
        if isinstance(each, Candidate):
            candidates.append(each)
        else:
            skipped.append(each)
        check_count(len(candidates) + len(skipped))
    return to_found(candidates, skipped)


def _entries(content: dict[str, object]) -> Iterator[Candidate | Skipped]:
    for key, value in content.items():
        if isinstance(value, str):
            yield Candidate(f"entry {quoted(key)}", *_split(key), value)
        elif isinstance(value, dict) and _is_namespace(key):
            for name, inner in value.items():
                where = f"entry {quoted(name)} of {quoted(key)}"
                yield Candidate(where, key, name, inner) if isinstance(inner, str) else _not_text(where)
        else:
            yield _not_text(f"entry {quoted(key)}")


def _split(key: str) -> tuple[str, str]:
    namespace, colon, name = key.partition(":")
    if colon and _is_namespace(namespace):
        return namespace, name
    namespace, dot, name = key.partition(".")
    if dot and _is_namespace(namespace) and _is_name(name):
        return namespace, name
    return "", key


def _not_text(where: str) -> Skipped:
    return Skipped(where, "it is not text")


def _is_namespace(text: str) -> bool:
    try:
        return bool(check_namespace(text))
    except SecretInvalid:
        return False


def _is_name(text: str) -> bool:
    try:
        return bool(check_name(text))
    except SecretInvalid:
        return False


def _refuse_ours(file: bytes) -> None:
    if file.startswith(MAGIC):
        raise SourceUnreadable(
            f"this {FILE_NAME} is a vault of this silo, not its predecessor's",
            hint="there is nothing to import; `silo vault status` describes it",
        )
