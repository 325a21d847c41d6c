"""The vault: secrets by name, in one file. Each call reads the file again, so it sees what other processes wrote.

It composes the other modules: `storage` reads and writes the bytes, `format` parses them, `unlock` opens the data key,
`crypto` opens the values, `rollback` detects an older file, and `wraps` changes which keys open the vault.

Every command loads this module, so slow modules are imported where they are used: `silo_vault.transfer`, which loads
the readers of all other formats (20 ms, which only `restore` needs).
"""

from __future__ import annotations

import difflib
import os
import secrets
import string
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import final

from silo_vault import crypto
from silo_vault.errors import (
    KeysReturn,
    SecretNotFound,
    VaultDamaged,
    VaultError,
    VaultLocked,
    VaultNotWritten,
    VaultRolledBack,
)
from silo_vault.format import (
    MAC_BYTES,
    MAX_COUNTER,
    VAULT_ID_BYTES,
    Document,
    Header,
    Malformed,
    Record,
    decode,
    decode_header,
    encode,
    encode_record,
    record_context,
)
from silo_vault.keys.base import KeyProvider, RandomBytes
from silo_vault.restoration import Restoration, compare, returning
from silo_vault.rollback import KnownGeneration, Order
from silo_vault.secret import Secret, check_name, check_namespace, check_text, check_value
from silo_vault.status import CANARIES, SecretInfo, VaultStatus, info_of, key_name, key_slot
from silo_vault.storage import VaultFiles, Writer
from silo_vault.unlock import Keys, Unlocker
from silo_vault.wraps import MadeWrap, WrapChange, Wraps

LOCK_TIMEOUT_S = 10.0
"""How long a writer waits for another. A save takes milliseconds, so a process that holds the lock longer hangs."""


@final
class Vault:
    """Secrets in one encrypted file. Safe to use from several threads and several processes.

    Nothing is read or unlocked before the first call that needs it. The data key then stays in memory, so each object
    stretches a passphrase or asks the keyring once. `lock` makes every process forget the key.
    """

    def __init__(
        self,
        path: Path,
        providers: Sequence[KeyProvider],
        *,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        grace_s: float = 0.0,
        random: RandomBytes = os.urandom,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name a vault. It doesn't have to exist yet.

        Args:
            path: of the file. Its folder must be accessible to its owner only; a missing folder is made that way.
            providers: of keys, tried in this order. A new vault is locked with the first that has a key.
            lock_timeout_s: how long a write waits for the write of another process.
            grace_s: how long an open vault stays open after its key is due for a check and the server can't be reached.
            random: returns bytes that are fit for keys and nonces.
            clock: returns seconds since 1970.
            monotonic: returns seconds on a clock that never goes back.
        """
        self.path = path
        self._files = VaultFiles(path)
        self._unlocker = Unlocker(
            providers,
            path=path,
            backup=self._files.backup,
            epoch=self._files.epoch(),
            grace_s=grace_s,
            clock=monotonic,
        )
        self._wraps = Wraps(self._unlocker, self._files, random=random)
        self._lock_timeout_s = lock_timeout_s
        self._random = random
        self._clock = clock

    def __repr__(self) -> str:
        return f"Vault({str(self.path)!r})"

    @property
    def backup(self) -> Path:
        """The path of the previous generation."""
        return self._files.backup

    # --- reading ----------------------------------------------------------------------------------------------------

    def entries(self) -> tuple[SecretInfo, ...]:
        """Return what the vault holds, by namespace and name; nothing if there is no vault yet. No value is decrypted.

        Raises:
            VaultLocked: no key opens it, or it was changed; `VaultRolledBack` if it is older than the newest known one.
            VaultDamaged: it isn't a vault that this version can use.
        """
        loaded = self._load()
        return () if loaded is None else tuple(info_of(record) for record in loaded[0].records)

    def names(self, *, namespace: str = "") -> tuple[str, ...]:
        """Return the names in a namespace, sorted; none if there is no vault yet. No value is decrypted.

        Raises:
            VaultLocked, VaultDamaged: as for `entries`.
        """
        return tuple(entry.name for entry in self.entries() if entry.namespace == namespace and not entry.is_canary)

    def listed(self) -> tuple[tuple[str, str], ...]:
        """Return namespace and name of each secret in the file, sorted, without the decoys. Needs no key.

        Nothing of it is authenticated. It is for questions that must be asked before the vault may be opened.

        Raises:
            VaultDamaged: it isn't a vault that this version can use.
        """
        if (data := self._files.read()) is None:
            return ()
        try:
            records = decode(data).records
        except Malformed as error:
            raise self._damaged(error) from None
        return tuple(sorted((one.namespace, one.name) for one in records if one.namespace != CANARIES))

    def get(self, name: str, *, namespace: str = "") -> Secret:
        """Return one secret.

        Raises:
            SecretNotFound: the namespace has no secret of that name, or there is no vault.
            SecretInvalid: the name or the namespace breaks a rule.
            VaultLocked, VaultDamaged: as for `entries`.
        """
        if (found := self.find(name, (namespace,))) is not None:
            return found
        if (loaded := self._load()) is None:
            raise SecretNotFound(
                f"there is no secret {_place(namespace, name)}: {self.path} does not exist yet",
                hint=f"add {name}, which creates the vault",
            )
        raise _not_found(namespace, name, loaded[0])

    def find(self, name: str, namespaces: Sequence[str]) -> Secret | None:
        """Return the secret from the first namespace that has one of that name; None if none has, or there is no vault.

        Raises:
            SecretInvalid, VaultLocked, VaultDamaged: as for `get`.
        """
        check_name(name)
        for namespace in namespaces:
            check_namespace(namespace)
        if (loaded := self._load()) is None:
            return None
        document, keys = loaded
        record = next((one for namespace in namespaces if (one := document.find(namespace, name))), None)
        return None if record is None else self._secret(keys, record)

    def get_all(self) -> Mapping[tuple[str, str], Secret]:
        """Return every secret by namespace and name, without the decoys. Only exports need this.

        Raises:
            VaultLocked, VaultDamaged: as for `entries`.
        """
        return dict(self._all(are_canaries=False))

    def canaries(self) -> Mapping[str, Secret]:
        """Return the decoys by name. The vault is only opened if its file names the namespace of the decoys.

        Raises:
            VaultLocked, VaultDamaged: as for `entries`.
        """
        if (data := self._files.read()) is None or CANARIES.encode() not in data:
            return {}
        return {key[1]: value for key, value in self._all(are_canaries=True)}

    def status(self) -> VaultStatus:
        """Return what the header of the file says. Needs no key, so nothing of it is authenticated.

        Raises:
            VaultDamaged: it isn't a vault that this version can use.
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
            keys=tuple(key_slot(wrap) for wrap in header.wraps),
        )

    # --- secrets ----------------------------------------------------------------------------------------------------

    def put(self, name: str, value: str | bytes, *, namespace: str = "") -> None:
        """Store a value, and replace an earlier one of that name. Makes the vault if there is none.

        Args:
            name: as in `require_secret`.
            value: text, or any bytes, of at most 1 MiB.
            namespace: the program or skill that alone may use it; empty for every one.

        Raises:
            SecretInvalid: the name or the value breaks a rule.
            VaultBusy: another process was writing all the time.
            VaultNotWritten: the disk is full, read-only or broken; the file is unchanged.
            VaultLocked, VaultDamaged: as for `entries`.
        """
        check_namespace(namespace)
        self._store([(namespace, check_name(name), _checked(name, value))])

    def put_all(self, values: Mapping[tuple[str, str], str | bytes]) -> None:
        """Store several values, by namespace and name, in one save: all of them or none.

        Raises:
            SecretInvalid, VaultBusy, VaultNotWritten, VaultLocked, VaultDamaged: as for `put`.
        """
        checked = []
        for (namespace, name), value in values.items():
            check_namespace(namespace)
            checked.append((namespace, check_name(name), _checked(name, value)))
        if checked:
            self._store(checked)

    def remove(self, name: str, *, namespace: str = "") -> None:
        """Remove one secret. The backup, which is the previous generation, still has it until the next save.

        Raises:
            SecretNotFound: there is no secret of that name, or no vault; nothing was written.
            SecretInvalid, VaultBusy, VaultNotWritten, VaultLocked, VaultDamaged: as for `put`.
        """
        check_namespace(namespace)
        self._take_out(namespace, check_name(name))

    def add_canary(self, name: str, value: str | bytes | None = None) -> None:
        """Store a decoy, which is never given to a program. If its value appears anywhere, somebody read the vault.

        Args:
            name: as for any secret.
            value: of the decoy; by default 40 random letters and digits.

        Raises:
            SecretInvalid, VaultBusy, VaultNotWritten, VaultLocked, VaultDamaged: as for `put`.
        """
        decoy = "".join(secrets.choice(_LETTERS) for _ in range(40)) if value is None else value
        self._store([(CANARIES, check_name(name), check_value(name, decoy))])

    def remove_canary(self, name: str) -> None:
        """Remove a decoy.

        Raises:
            SecretNotFound, SecretInvalid, VaultBusy, VaultNotWritten, VaultLocked, VaultDamaged: as for `remove`.
        """
        self._take_out(CANARIES, check_name(name))

    def create(self) -> bool:
        """Make an empty vault unless there is one. Return whether one was made. An existing vault is not opened.

        Raises:
            VaultLocked: no provider has a key to lock it with.
            VaultBusy, VaultNotWritten, VaultDamaged: as for `put`.
        """
        with self._writing() as writer:
            if writer.read() is not None:
                return False
            document, keys, made = self._new()
            with self._wraps.retired_on_failure(made, document.header.vault_id):
                self._save(writer, document.header, (), keys)
            return True

    # --- keys -------------------------------------------------------------------------------------------------------

    def rekey(self, *, add: Sequence[KeyProvider] = (), remove: Collection[str] = ()) -> None:
        """Change which keys open the vault. The data key stays the same, and no value is sealed again.

        Each new key has to open the data key once before anything is written.

        Args:
            add: providers of the keys to add.
            remove: ids of the keys to remove, as in `VaultStatus.keys`; for a key of an unknown kind, that kind.

        Raises:
            SecretNotFound: no key has that id.
            VaultLocked: no key that this version can use would be left, or a new key opens the vault already or fails.
            VaultBusy, VaultNotWritten, VaultDamaged: as for `put`.
        """
        with self._writing() as writer:
            previous = self._present(writer)
            document, _ = self._open(previous, self._known_generation())
            header = document.header
            dek = self._unlocker.data_key(header)
            change = self._wraps.change_keys(header, dek, add=add, remove=remove)
            with self._wraps.retired_on_failure(change.made, header.vault_id):
                header = replace(self._advance(header, seals=0), wraps=change.wraps)
                # After a removal, a copy of the earlier file would still open with the key that was removed.
                backup = None if change.replaced else previous
                new_keys = Keys.derive(dek, header)
                self._save(writer, header, document.records, new_keys, backup=backup, is_backup_too=backup is None)
        self._wraps.retire(change.replaced, header.vault_id)

    def rotate(self, *, providers: Sequence[KeyProvider] = (), drop: Collection[str] = ()) -> None:
        """Make a new data key and seal every value under it, in one save. The old one then opens no new generation.

        Every key that opens the vault must be available, because it has to seal the new data key too.

        Args:
            providers: of further keys than those that this object was made with, e.g. a recovery passphrase.
            drop: ids of the keys to remove; for a key of an unknown kind, that kind.

        Raises:
            VaultLocked: a key is neither available nor in `drop`; the message gives its kind and id.
            SecretNotFound, VaultBusy, VaultNotWritten, VaultDamaged: as for `rekey`.
        """
        with self._writing() as writer:
            previous = self._present(writer)
            document, keys = self._open(previous, self._known_generation())
            header, records, new_keys, change = self._rotated(document, keys, providers, drop)
            with self._wraps.retired_on_failure(change.made, header.vault_id):
                self._save(writer, header, records, new_keys, is_backup_too=True)
        self._wraps.retire(change.replaced, header.vault_id)

    def lock(self) -> None:
        """Make every process that has this vault open forget its keys: this one now, others at their next use of it.

        A process that got its key as text loses that too, and can't open the vault again.

        Raises:
            VaultBusy, VaultNotWritten, VaultDamaged: as for `put`.
        """
        with self._writing() as writer:
            if not writer.write_beside(self._files.locked, b""):
                raise VaultDamaged(
                    f"{self._files.locked} can't be written", hint="stop the processes that have the vault open"
                )
        self._unlocker.forget()

    def restore(self, source: Path | None = None, *, keys: Collection[str] = ()) -> Restoration:
        """Save an older generation as the newest one, so that it is no longer refused as a rollback.

        If the present file is the newest and opens, it becomes the backup, and only secrets are restored: the keys and
        the data key of the present file stay. If not, it is renamed, and the keys of the restored file open the vault.

        Args:
            source: the file to restore, by default the backup. The vault's own path accepts the present file although
                it is older.
            keys: ids of keys that may open the vault again although they were removed.

        Raises:
            KeysReturn: other keys would open the vault again; nothing was written. The error has what would change.
            SecretNotFound: `source` does not exist.
            SourceUnreadable: `source` is in another folder and can't be read. Its mode is not checked: it is sealed.
            VaultLocked, VaultDamaged: `source` does not open; nothing was written.
            VaultBusy, VaultNotWritten: as for `put`.
        """
        path = self._files.backup if source is None else source
        with self._writing() as writer:
            data = self._files.read_beside(path) if path.parent == self.path.parent else _read_elsewhere(path)
            if data is None:
                raise SecretNotFound(f"{path} does not exist", hint="name the file to restore")
            older, older_keys = self._authentic(data)
            present = None if path == self.path else writer.peek()
            known, current = self._newest(present)
            if current is None or present is None:
                done = self._not_compared(path, older, known, writer, agreed=keys)
                header = self._advance(older.header, known, seals=0)
                aside = self._save(writer, header, older.records, older_keys, keeps_present=path != self.path)
                return replace(done, aside=aside)
            document, present_keys = current
            done = compare(older, document, lambda *pair: self._is_same(pair, older_keys, present_keys))
            header, records = self._advance(document.header, older.header, known, seals=0), older.records
            if older_keys.records != present_keys.records:  # so that no old data key comes back either
                header = self._advance(document.header, older.header, known, seals=len(records))
                records = tuple(self._reseal(record, older_keys, present_keys, header) for record in records)
            self._save(writer, header, records, present_keys, backup=present)
        return done

    # --- opening ----------------------------------------------------------------------------------------------------

    def _load(self) -> tuple[Document, Keys] | None:
        """Read and open the file.

        The known generation is read first: a save between the two reads then makes the file look newer, not older.
        """
        known = self._known_generation()
        return None if (data := self._files.read()) is None else self._open(data, known)

    def _open(self, data: bytes, known: KnownGeneration | None) -> tuple[Document, Keys]:
        """Return the parsed file and its keys, after checking that it was not changed and is not an older one."""
        document, keys = self._authentic(data)
        self._check_newest(document, known)
        return document, keys

    def _authentic(self, data: bytes) -> tuple[Document, Keys]:
        try:
            document = decode(data)
        except Malformed as error:
            raise self._damaged(error) from None
        keys = self._unlocker.keys(document.header, epoch=self._files.epoch())
        if not crypto.same(document.expected_mac(keys.mac), document.mac):
            raise self._not_opened("its key is right, so the file was changed")
        return document, keys

    def _newest(self, data: bytes | None) -> tuple[KnownGeneration | None, tuple[Document, Keys] | None]:
        """Return what is remembered, and a file with its keys if it opens and is not older than that."""
        try:
            known = self._known_generation()
        except VaultRolledBack:
            return None, None
        try:
            opened = None if data is None else self._authentic(data)
        except (VaultLocked, VaultDamaged):
            return known, None
        if opened is None or known is None:
            return known, opened
        is_newest = known.compare(KnownGeneration.of(opened[0])) in (Order.SAME, Order.NEWER)
        return known, opened if is_newest else None

    def _not_compared(
        self, path: Path, older: Document, known: KnownGeneration | None, writer: Writer, agreed: Collection[str]
    ) -> Restoration:
        """Return what restoring a file changes when there is no newest file, after checking that its keys may return.

        Raises:
            KeysReturn: they may not.
        """
        ids = known.keys if known is not None and known.vault_id == older.header.vault_id else None
        wraps = () if ids is None and writer.is_first() else returning(older, ids)
        found = Restoration(keys=tuple(key_slot(wrap) for wrap in wraps))
        if refused := [wrap for wrap in wraps if key_name(wrap) not in agreed]:
            named = ", ".join(f"{wrap.kind} {key_name(wrap)}" for wrap in refused)
            flags = " ".join(f"--accept-key {key_name(wrap)}" for wrap in refused)
            raise KeysReturn(
                f"{path} opens with keys that {'do' if ids is not None else 'perhaps do'} not open the vault any more: "
                f"{named}",
                hint=f"if they may open it again, add {flags}",
                restoration=found,
            )
        return found

    def _is_same(self, pair: tuple[Record, Record], older_keys: Keys, newest_keys: Keys) -> bool:
        return self._unseal(older_keys, pair[0]) == self._unseal(newest_keys, pair[1])

    def _check_newest(self, document: Document, known: KnownGeneration | None) -> None:
        found = KnownGeneration.of(document)
        order = Order.NEWER if known is None else known.compare(found)
        if order in (Order.OLDER, Order.OTHER):
            assert known is not None
            what = (
                f"is generation {found.generation}, and generation {known.generation} was here before"
                if order is Order.OLDER
                else "is another vault than the one that was here before"
            )
            raise VaultRolledBack(
                f"{self.path} {what}",
                hint="find out who put it there; `silo vault restore --accept-rollback` uses it nevertheless",
            )
        if order is Order.NEWER:
            self._remember(found)

    def _known_generation(self) -> KnownGeneration | None:
        data = self._files.read_beside(self._files.known_generation)
        try:
            return None if data is None else KnownGeneration.parse(data)
        except ValueError:
            raise VaultRolledBack(
                f"{self._files.known_generation} is damaged, so {self.path} can't be checked to be the newest",
                hint="if you know that it is, `silo vault restore --accept-rollback` uses it",
            ) from None

    def _remember(self, found: KnownGeneration) -> None:
        """Remember a newer file that another process wrote, if the writers' lock is free."""
        with suppress(VaultError), self._files.writing(timeout_s=0.0) as writer:
            known = self._known_generation()
            if known is None or known.compare(found) is Order.NEWER:
                writer.write_beside(self._files.known_generation, found.encode())

    def _all(self, *, are_canaries: bool) -> Iterable[tuple[tuple[str, str], Secret]]:
        if (loaded := self._load()) is None:
            return
        document, keys = loaded
        for record in document.records:
            if (record.namespace == CANARIES) is are_canaries:
                yield (record.namespace, record.name), self._secret(keys, record)

    def _secret(self, keys: Keys, record: Record) -> Secret:
        return Secret(record.name, self._unseal(keys, record).decode(errors="surrogateescape"))

    def _unseal(self, keys: Keys, record: Record) -> bytes:
        context = record_context(keys.vault_id, record.namespace, record.name, record.version)
        try:
            return crypto.unseal(keys.records, record.nonce, record.sealed, context)
        except crypto.Unauthentic:
            raise self._not_opened(f"the record of {record.name} does not open") from None

    def _not_opened(self, detail: str) -> VaultLocked:
        return VaultLocked(
            f"cannot open {self.path}: the key is wrong, or the file was changed",
            hint=f"{detail}; the previous generation is {self._files.backup}",
        )

    def _damaged(self, error: Malformed) -> VaultDamaged:
        return VaultDamaged(
            f"{self.path} {error}",
            hint="open it with the newer program that wrote it"
            if error.newer
            else f"nothing was changed; if {self._files.backup} is good, `silo vault restore` restores it",
        )

    # --- writing ----------------------------------------------------------------------------------------------------

    def _writing(self) -> AbstractContextManager[Writer]:
        return self._files.writing(timeout_s=self._lock_timeout_s)

    def _present(self, writer: Writer) -> bytes:
        if (data := writer.read()) is None:
            raise SecretNotFound(f"{self.path} does not exist yet", hint="add a secret, which creates the vault")
        return data

    def _store(self, values: Sequence[tuple[str, str, bytes]]) -> None:
        with self._writing() as writer:
            previous = writer.read()
            made: tuple[MadeWrap, ...] = ()
            change: WrapChange | None = None
            if previous is None:
                document, keys, made = self._new()
            else:
                document, keys = self._open(previous, self._known_generation())
            header, records = document.header, document.records
            if header.seals + len(values) > crypto.MAX_SEALS:
                # This data key must not seal anything more, so the new value comes with a new data key.
                header, records, keys, change = self._rotated(document, keys, (), ())
                made = change.made
                header = replace(header, seals=header.seals + len(values))
            elif previous is not None:
                header = self._advance(header, seals=len(values))
            else:
                header = replace(header, seals=len(values))
            changed = {(namespace, name) for namespace, name, _ in values}
            sealed = [self._seal(keys, header, *value, modified=int(self._clock())) for value in values]
            # Usually nothing is replaced. Finding that out is cheaper than filtering ten thousand records.
            is_all_new = not any(document.find(*place) for place in changed)
            left = records if is_all_new else [record for record in records if record[:2] not in changed]
            with self._wraps.retired_on_failure(made, header.vault_id):
                backup = previous if change is None else None
                self._save(writer, header, [*left, *sealed], keys, backup=backup, is_backup_too=change is not None)
        if change is not None:
            self._wraps.retire(change.replaced, header.vault_id)

    def _take_out(self, namespace: str, name: str) -> None:
        if self._files.read() is None:
            raise SecretNotFound(
                f"there is no secret {name}: {self.path} does not exist", hint="there is nothing to remove"
            )
        with self._writing() as writer:
            previous = self._present(writer)
            document, keys = self._open(previous, self._known_generation())
            left = [record for record in document.records if record[:2] != (namespace, name)]
            if len(left) == len(document.records):
                raise _not_found(namespace, name, document)
            self._save(writer, self._advance(document.header, seals=0), left, keys, backup=previous)

    def _seal(self, keys: Keys, header: Header, namespace: str, name: str, value: bytes, *, modified: int) -> Record:
        nonce = self._random(crypto.NONCE_BYTES)
        context = record_context(header.vault_id, namespace, name, header.generation)
        sealed = crypto.seal(keys.records, nonce, value, context)
        return encode_record(namespace, name, version=header.generation, modified=modified, nonce=nonce, sealed=sealed)

    def _save(
        self,
        writer: Writer,
        header: Header,
        records: Sequence[Record],
        keys: Keys,
        *,
        backup: bytes | None = None,
        is_backup_too: bool = False,
        keeps_present: bool = False,
    ) -> Path | None:
        """Write a new generation, and remember it.

        Args:
            backup: the new backup; None leaves it as it is.
            is_backup_too: the new generation itself becomes the backup, because an earlier one must open no more.
            keeps_present: as for `Writer.replace`, which also says what is returned.
        """
        try:
            data = encode(header, records, keys.mac)
        except Malformed as error:
            raise VaultDamaged(f"{self.path} {error}", hint="remove secrets that are no longer used") from None
        aside = writer.replace(data, backup=data if is_backup_too else backup, keeps_present=keeps_present)
        # If this write fails, an older generation is remembered. The new file is newer than that, so it is accepted.
        new = KnownGeneration.of_header(header, data[-MAC_BYTES:])
        if not writer.write_beside(self._files.known_generation, new.encode()):
            self._check_accepted(new)
        return aside

    def _check_accepted(self, new: KnownGeneration) -> None:
        """Raise an error if a new file, which could not be remembered, is refused because of what is remembered."""
        try:
            known = self._known_generation()
        except VaultRolledBack:
            is_accepted = False
        else:
            is_accepted = known is None or known.compare(new) in (Order.SAME, Order.NEWER)
        if not is_accepted:
            raise VaultNotWritten(
                f"{self.path} is in place, but {self._files.known_generation} can't be written, so it is refused",
                hint="check the disk, then accept it: `silo vault restore --accept-rollback`",
            )

    def _new(self) -> tuple[Document, Keys, tuple[MadeWrap, ...]]:
        dek, vault_id = self._random(crypto.KEY_BYTES), self._random(VAULT_ID_BYTES)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        made = self._unlocker.wrap_new(dek, vault_id=vault_id, random=self._random)
        header = Header(vault_id, generation=1, seals=0, created=created, wraps=(made[1],))
        return Document(b"", header, (), b""), Keys.derive(dek, header), (made,)

    def _advance(self, header: Header, *others: Header | KnownGeneration | None, seals: int) -> Header:
        """Return a header with the next generation, after `seals` more values. Counters never fall below any other's.

        Args:
            header: of the file that goes on.
            others: other generations that were here; None is left out.
            seals: how many values are sealed under the data key of this header now.
        """
        before = [header, *(other for other in others if other is not None)]
        generation, sealed = max(one.generation for one in before), max(one.seals for one in before) + seals
        if generation >= MAX_COUNTER:
            raise VaultDamaged(
                f"{self.path} has reached the highest generation",
                hint="make a new vault, and add the secrets to it again",
            )
        if sealed > crypto.MAX_SEALS:
            raise VaultLocked(
                f"the data key of {self.path} has sealed as many values as it may",
                hint="make a new one first: `silo vault rotate`",
            )
        return replace(header, generation=generation + 1, seals=sealed)

    def _rotated(
        self, document: Document, keys: Keys, extra: Sequence[KeyProvider], drop: Collection[str]
    ) -> tuple[Header, tuple[Record, ...], Keys, WrapChange]:
        """Return the vault with a new data key, sealed under every key that is not dropped; nothing is written."""
        present = document.header
        dek = self._random(crypto.KEY_BYTES)
        change = self._wraps.change_data_key(present, dek, providers=extra, drop=drop)
        with self._wraps.retired_on_failure(change.made, present.vault_id):
            header = replace(self._advance(present, seals=0), seals=len(document.records), wraps=change.wraps)
            new_keys = Keys.derive(dek, header)
            records = tuple(self._reseal(record, keys, new_keys, header) for record in document.records)
        return header, records, new_keys, change

    def _reseal(self, record: Record, keys: Keys, new_keys: Keys, header: Header) -> Record:
        value = self._unseal(keys, record)
        return self._seal(new_keys, header, record.namespace, record.name, value, modified=record.modified)


def _read_elsewhere(path: Path) -> bytes:
    from silo_vault.transfer.source import read_source

    return read_source(path)


def _place(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace and namespace != CANARIES else name


def _checked(name: str, value: str | bytes) -> bytes:
    return check_text(name, value) if isinstance(value, str) else check_value(name, value)


def _not_found(namespace: str, name: str, document: Document) -> SecretNotFound:
    names = [record.name for record in document.records if record.namespace == namespace]
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"add {name} first"
    return SecretNotFound(f"there is no secret {_place(namespace, name)} in the vault", hint=hint)


_LETTERS = string.ascii_letters + string.digits
