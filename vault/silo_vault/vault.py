"""The vault: secrets by name, in one file that is read anew at each call, so that what another process wrote is seen.

Composes the other modules: `storage` brings the bytes, `format` takes them apart, `keys` open the data key, `crypto` the rest.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from silo_vault import crypto
from silo_vault.errors import KeyUnavailable, SecretNotFound, VaultDamaged, VaultLocked
from silo_vault.format import (
    KNOWN_KINDS,
    MAX_COUNTER,
    VAULT_ID_BYTES,
    Document,
    ForeignWrap,
    Header,
    Malformed,
    Record,
    Wrap,
    decode,
    decode_header,
    encode,
    encode_record,
    record_context,
)
from silo_vault.keys.base import KeyProvider, RandomBytes
from silo_vault.secret import Secret, check_name, check_value
from silo_vault.storage import VaultFiles

_GLOBAL = ""
"""The namespace of the secrets that belong to no one skill."""

LOCK_TIMEOUT_S = 10.0
"""How long a writer waits for another. A save takes milliseconds; who still holds the lock after this hangs."""


@dataclass(frozen=True)
class KeySlot:
    """One key that opens a vault.

    Attributes:
        kind: where it lies: `env`, `keyring`, or what a newer version wrote.
        key_id: 16 hex digits that tell keys apart; empty for an unknown kind.
        kdf: `none` for a key of 32 bytes, `argon2id` for a passphrase, empty for an unknown kind.
    """

    kind: str
    key_id: str
    kdf: str


@dataclass(frozen=True)
class VaultStatus:
    """What can be said of a vault without a key; nothing of it is authenticated.

    Attributes:
        exists: false if there is no file yet; then the rest is zero or empty.
        vault_id: 32 hex digits.
        created: UTC, ISO 8601.
        secrets: how many the file says it holds.
        seals: how many values were sealed under the present data key.
    """

    path: Path
    exists: bool
    vault_id: str = ""
    generation: int = 0
    created: str = ""
    secrets: int = 0
    seals: int = 0
    keys: tuple[KeySlot, ...] = ()


@dataclass(frozen=True, repr=False)
class _Keys:
    """The keys of an open vault, for as long as its wraps stay the same."""

    vault_id: bytes
    wraps: tuple[Wrap | ForeignWrap, ...]
    records: bytes
    mac: bytes


@final
class Vault:
    """Secrets in one encrypted file. Safe to use from several threads and several processes.

    Nothing is read or unlocked before the first call that needs it. The data key stays in memory from then on, so a
    passphrase is stretched, and the keyring asked, once for each object.
    """

    def __init__(
        self,
        path: Path,
        providers: Sequence[KeyProvider],
        *,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        random: RandomBytes = os.urandom,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Name a vault, which need not exist yet.

        Args:
            path: of the file; its folder must be readable by its owner only, and is made so if it is missing.
            providers: where keys may lie, tried in this order. A new vault is locked with the first that has a key.
            lock_timeout_s: how long a write waits for another process's.
            random: bytes fit for keys and nonces.
            clock: seconds since 1970.
        """
        self.path = path
        self._files = VaultFiles(path)
        self._providers = tuple(providers)
        self._lock_timeout_s = lock_timeout_s
        self._random = random
        self._clock = clock
        self._unlocking = threading.Lock()
        self._keys: _Keys | None = None

    def __repr__(self) -> str:
        return f"Vault({str(self.path)!r})"

    def names(self) -> tuple[str, ...]:
        """Return the names, sorted; none if there is no vault yet. No value is opened.

        Raises:
            VaultLocked: no key opens it, or it was changed.
            VaultDamaged: it is no vault that this version may touch.
        """
        return () if (data := self._files.read()) is None else _names(self._open(data)[0])

    def get(self, name: str) -> Secret:
        """Return one secret.

        Raises:
            SecretNotFound: there is none of that name, or no vault.
            SecretInvalid: no secret could have that name.
            VaultLocked, VaultDamaged: as for `names`.
        """
        check_name(name)
        if (data := self._files.read()) is None:
            raise SecretNotFound(
                f"there is no secret {name}: {self.path} does not exist yet", hint=f"add {name} to make it"
            )
        document, keys = self._open(data)
        for record in document.records:
            if (record.namespace, record.name) == (_GLOBAL, name):
                return Secret(name, self._unseal(keys, record))
        raise _not_found(name, _names(document))

    def put(self, name: str, value: str | bytes) -> None:
        """Store a value, in place of an earlier one of that name; makes the vault if there is none.

        Raises:
            SecretInvalid: the name or the value breaks a rule.
            VaultBusy: another process was writing all the time.
            VaultNotWritten: the disk refused; the file is as it was.
            VaultLocked, VaultDamaged: as for `names`.
        """
        check_name(name)
        plaintext = check_value(name, value)
        with self._files.writing(timeout_s=self._lock_timeout_s) as writer:
            previous = writer.read()
            document, keys = self._new() if previous is None else self._open(previous)
            header = self._advance(document.header, is_new=previous is None, seals=1)
            nonce = self._random(crypto.NONCE_BYTES)
            context = record_context(header.vault_id, _GLOBAL, name, header.generation)
            record = encode_record(
                _GLOBAL,
                name,
                version=header.generation,
                modified=int(self._clock()),
                nonce=nonce,
                sealed=crypto.seal(keys.records, nonce, plaintext, context),
            )
            writer.replace(self._encode(header, [*_without(document, name), record], keys), previous=previous)

    def remove(self, name: str) -> None:
        """Take one secret out. The generation before, with it, stays in the backup until the next save.

        Raises:
            SecretNotFound: there is none of that name, or no vault; nothing was written.
            SecretInvalid, VaultBusy, VaultNotWritten, VaultLocked, VaultDamaged: as for `put`.
        """
        check_name(name)
        if self._files.read() is None:
            raise SecretNotFound(
                f"there is no secret {name}: {self.path} does not exist", hint="nothing is to be removed"
            )
        with self._files.writing(timeout_s=self._lock_timeout_s) as writer:
            if (previous := writer.read()) is None:
                raise _not_found(name, ())
            document, keys = self._open(previous)
            left = _without(document, name)
            if len(left) == len(document.records):
                raise _not_found(name, _names(document))
            header = self._advance(document.header, is_new=False, seals=0)
            writer.replace(self._encode(header, left, keys), previous=previous)

    def create(self) -> bool:
        """Make an empty vault unless there is one, and say whether one was made. An existing one is not opened.

        Raises:
            VaultLocked: no provider has a key to lock it with.
            VaultBusy, VaultNotWritten, VaultDamaged: as for `put`.
        """
        with self._files.writing(timeout_s=self._lock_timeout_s) as writer:
            if writer.read() is not None:
                return False
            document, keys = self._new()
            writer.replace(self._encode(document.header, (), keys), previous=None)
            return True

    def status(self) -> VaultStatus:
        """Say what the file says of itself. Needs no key, and therefore proves nothing.

        Raises:
            VaultDamaged: it is no vault that this version may touch.
        """
        if (data := self._files.read()) is None:
            return VaultStatus(self.path, exists=False)
        try:
            header, _, count = decode_header(data)
        except Malformed as error:
            raise self._damaged(error) from None
        return VaultStatus(
            self.path,
            exists=True,
            vault_id=header.vault_id.hex(),
            generation=header.generation,
            created=header.created,
            secrets=count,
            seals=header.seals,
            keys=tuple(_slot(wrap) for wrap in header.wraps),
        )

    # --- opening ----------------------------------------------------------------------------------------------------

    def _open(self, data: bytes) -> tuple[Document, _Keys]:
        """Return the file taken apart, once its code has shown that nobody changed it."""
        try:
            document = decode(data)
        except Malformed as error:
            raise self._damaged(error) from None
        keys = self._unlock(document.header)
        if not crypto.same(document.expected_mac(keys.mac), document.mac):
            raise self._not_opened("its key is right, so the file was changed")
        return document, keys

    def _unlock(self, header: Header) -> _Keys:
        with self._unlocking:  # so that threads which come together ask a keyring, and stretch a passphrase, once
            if self._keys is None or (self._keys.vault_id, self._keys.wraps) != (header.vault_id, header.wraps):
                self._keys = _derive(self._unwrap(header), header)
            return self._keys

    def _unwrap(self, header: Header) -> bytes:
        missing: list[KeyUnavailable] = []
        wrong: list[VaultLocked] = []
        for provider in self._providers:
            for wrap in header.wraps:
                if not isinstance(wrap, Wrap) or wrap.kind != provider.kind:
                    continue
                try:
                    return provider.unwrap(wrap, vault_id=header.vault_id)
                except KeyUnavailable as error:
                    missing.append(error)
                except VaultLocked as error:
                    wrong.append(error)
        if wrong:
            raise self._not_opened("; ".join(error.hint for error in wrong))
        if missing:
            raise VaultLocked(
                f"no key for {self.path}: {'; '.join(error.message for error in missing)}", hint=missing[0].hint
            ) from missing[0]
        kinds = ", ".join(sorted({wrap.kind for wrap in header.wraps}))
        raise VaultLocked(
            f"no key for {self.path}: it opens with a key of kind {kinds}, and none of that kind is set up here",
            hint="set one up"
            if KNOWN_KINDS & {wrap.kind for wrap in header.wraps}
            else "use the newer program that wrote it",
        )

    def _unseal(self, keys: _Keys, record: Record) -> str:
        context = record_context(keys.vault_id, record.namespace, record.name, record.version)
        try:
            return crypto.unseal(keys.records, record.nonce, record.sealed, context).decode()
        except (crypto.Unauthentic, UnicodeDecodeError):
            # `from None`: the message of a UnicodeError quotes what it could not read.
            raise self._not_opened(f"the record of {record.name} does not fit") from None

    def _not_opened(self, detail: str) -> VaultLocked:
        return VaultLocked(
            f"cannot open {self.path}: the key is wrong, or the file was changed",
            hint=f"{detail}; the generation before is {self._files.backup}",
        )

    def _damaged(self, error: Malformed) -> VaultDamaged:
        return VaultDamaged(
            f"{self.path} {error}",
            hint="open it with the newer program that wrote it"
            if error.newer
            else f"nothing was touched; if {self._files.backup} is good, copy it there",
        )

    # --- writing ----------------------------------------------------------------------------------------------------

    def _new(self) -> tuple[Document, _Keys]:
        dek, vault_id = self._random(crypto.KEY_BYTES), self._random(VAULT_ID_BYTES)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        header = Header(vault_id, generation=1, seals=0, created=created, wraps=(self._wrap(dek, vault_id),))
        return Document(b"", header, (), b""), _derive(dek, header)

    def _wrap(self, dek: bytes, vault_id: bytes) -> Wrap:
        missing: list[KeyUnavailable] = []
        for provider in self._providers:
            try:
                return provider.wrap(dek, vault_id=vault_id, random=self._random)
            except KeyUnavailable as error:
                missing.append(error)
        raise VaultLocked(
            f"no key to lock {self.path} with: {'; '.join(error.message for error in missing) or 'none is set up'}",
            hint=missing[0].hint if missing else "give the vault a key provider",
        )

    def _advance(self, header: Header, *, is_new: bool, seals: int) -> Header:
        if header.seals + seals > crypto.MAX_SEALS or header.generation >= MAX_COUNTER:
            raise VaultDamaged(
                f"{self.path} has sealed as many values as one data key may",
                hint="make a new vault, and add the secrets to it again",
            )
        return replace(header, generation=header.generation + (not is_new), seals=header.seals + seals)

    def _encode(self, header: Header, records: Sequence[Record], keys: _Keys) -> bytes:
        try:
            return encode(header, records, keys.mac)
        except Malformed as error:
            raise VaultDamaged(f"{self.path} {error}", hint="remove secrets that are no longer used") from None


def _derive(dek: bytes, header: Header) -> _Keys:
    return _Keys(
        header.vault_id,
        header.wraps,
        records=crypto.derive(dek, vault_id=header.vault_id, purpose="records"),
        mac=crypto.derive(dek, vault_id=header.vault_id, purpose="file mac"),
    )


def _names(document: Document) -> tuple[str, ...]:
    return tuple(record.name for record in document.records if record.namespace == _GLOBAL)


def _without(document: Document, name: str) -> list[Record]:
    return [record for record in document.records if (record.namespace, record.name) != (_GLOBAL, name)]


def _slot(wrap: Wrap | ForeignWrap) -> KeySlot:
    if isinstance(wrap, ForeignWrap):
        return KeySlot(wrap.kind, "", "")
    return KeySlot(wrap.kind, wrap.key_id.hex(), "none" if wrap.kdf is None else "argon2id")


def _not_found(name: str, names: Sequence[str]) -> SecretNotFound:
    import difflib

    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"add {name} first"
    return SecretNotFound(f"there is no secret {name} in the vault", hint=hint)
