"""Which keys open a vault: makes the wraps of its data key for a new set of keys, and gives up those that are replaced.

`silo_vault.vault` decides when the set changes (`rekey`, `rotate`) and writes the file. Here no file is written and no
value is sealed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

from silo_vault.errors import SecretNotFound, VaultError, VaultLocked
from silo_vault.format import MAX_WRAPS, AnyWrap, Header, Malformed, TransitWrap, UnknownWrap, Wrap, decode_header
from silo_vault.keys.base import KeyProvider, RandomBytes
from silo_vault.status import key_name, key_slot
from silo_vault.storage import VaultFiles
from silo_vault.unlock import Unlocker

MadeWrap = tuple[KeyProvider, Wrap | TransitWrap]
"""A new wrap, and the provider that made it."""


@dataclass(frozen=True)
class WrapChange:
    """A new set of wraps for a vault, before it is saved.

    Attributes:
        wraps: those that the next header has.
        made: the ones among them that are new, each with its provider.
        replaced: the wraps of the present header that the next one does not have.
    """

    wraps: tuple[AnyWrap, ...]
    made: tuple[MadeWrap, ...]
    replaced: tuple[AnyWrap, ...]


@final
class Wraps:
    """Makes and retires the wraps of one vault."""

    def __init__(self, unlocker: Unlocker, files: VaultFiles, *, random: RandomBytes) -> None:
        self._unlocker = unlocker
        self._files = files
        self._random = random

    def change_keys(
        self, header: Header, dek: bytes, *, add: Sequence[KeyProvider], remove: Collection[str]
    ) -> WrapChange:
        """Wrap the present data key under the keys that are added, and leave out the wraps of those that are removed.

        Args:
            header: the present one.
            dek: the present data key.
            add: providers of the keys to add.
            remove: names of keys, as `key_name` gives them.

        Raises:
            SecretNotFound: no key has one of these names.
            VaultLocked: no usable key would be left, a key is there already, or a new one does not open its wrap.
        """
        kept, removed = _split(header.wraps, remove)
        made: list[MadeWrap] = []
        with self.retired_on_failure(made, header.vault_id):
            for provider in add:  # one at a time, so that `made` has those before one that fails
                made += [(provider, self._wrap(provider, dek, header.vault_id))]
            wraps = (*kept, *(wrap for _, wrap in made))
            _check(wraps)
        return WrapChange(wraps, tuple(made), removed)

    def change_data_key(
        self, header: Header, dek: bytes, *, providers: Sequence[KeyProvider], drop: Collection[str]
    ) -> WrapChange:
        """Wrap a new data key under every key that opens the vault and is not dropped.

        Args:
            header: the present one.
            dek: the new data key.
            providers: of keys beyond those that the vault object was made with.
            drop: names of keys, as `key_name` gives them.

        Raises:
            SecretNotFound: no key has one of these names.
            VaultLocked: a key that is not dropped is not available, or no usable key would be left.
        """
        kept, _ = _split(header.wraps, drop)
        path = self._files.path
        opener = Unlocker([*self._unlocker.providers, *providers], path=path, backup=self._files.backup)
        made: list[MadeWrap] = []
        with self.retired_on_failure(made, header.vault_id):
            for wrap in kept:
                opened = opener.open_wrap(wrap, vault_id=header.vault_id)
                if opened is None:
                    raise VaultLocked(
                        f"the key {key_name(wrap)} ({wrap.kind}) of {path} is not available, "
                        "and it has to seal the new data key",
                        hint=f"provide it, or drop it: `silo vault rotate --drop {key_name(wrap)}`",
                    )
                made.append((opened[0], self._wrap(opened[0], dek, header.vault_id, is_new=False)))
            wraps = tuple(wrap for _, wrap in made)
            _check(wraps)
        return WrapChange(wraps, tuple(made), header.wraps)

    @contextmanager
    def retired_on_failure(self, made: Sequence[MadeWrap], vault_id: bytes) -> Iterator[None]:
        """Retire new wraps if what is done under this context fails, unless the vault's file has them all the same.

        After a save that succeeded, the caller retires `WrapChange.replaced`, once the vault's lock is free again.
        """
        try:
            yield
        except BaseException:
            self._retire_unwritten(made, vault_id)
            raise

    def retire(self, wraps: Iterable[AnyWrap], vault_id: bytes) -> None:
        """Have the providers give up what they made for wraps that are in no file any more."""
        for wrap in wraps:
            for provider in self._unlocker.providers:
                if not isinstance(wrap, UnknownWrap) and provider.kind == wrap.kind:
                    provider.retire(wrap, vault_id=vault_id)

    def _wrap(self, provider: KeyProvider, dek: bytes, vault_id: bytes, *, is_new: bool = True) -> Wrap | TransitWrap:
        """Have a key seal the data key, and check that it opens what it sealed, while the old keys still work."""
        wrap = provider.wrap(dek, vault_id=vault_id, random=self._random, is_new=is_new)
        try:
            if provider.unwrap(wrap, vault_id=vault_id) != dek:
                raise VaultLocked(
                    f"{provider.label} does not give back what it sealed",
                    hint="check that it works; nothing was changed",
                )
        except BaseException:
            provider.retire(wrap, vault_id=vault_id)
            raise
        return wrap

    def _retire_unwritten(self, made: Sequence[MadeWrap], vault_id: bytes) -> None:
        """Retire the wraps that the file does not have. It may have them: a save can fail at its last flush."""
        try:
            data = self._files.read()
            written = () if data is None else decode_header(data)[0].wraps
        except (VaultError, Malformed):
            return  # what the file has is unknown; a key too many does no harm
        for provider, wrap in made:
            if wrap not in written:
                provider.retire(wrap, vault_id=vault_id)


def _split(wraps: Sequence[AnyWrap], remove: Collection[str]) -> tuple[tuple[AnyWrap, ...], tuple[AnyWrap, ...]]:
    """Return the wraps that stay and those that go, by the name of their key."""
    known = {key_name(wrap) for wrap in wraps}
    if unknown := sorted(set(remove) - known):
        raise SecretNotFound(
            f"no key of the vault has the id {unknown[0][:32]!r}",
            hint="`silo vault status` shows the keys and their ids",
        )
    gone = tuple(wrap for wrap in wraps if key_name(wrap) in remove)
    return tuple(wrap for wrap in wraps if wrap not in gone), gone


def _check(wraps: Sequence[AnyWrap]) -> None:
    ids = [key_slot(wrap).key_id for wrap in wraps if not isinstance(wrap, UnknownWrap)]
    if not ids:
        raise VaultLocked("no key would be left that opens the vault", hint="add another one first")
    if len(set(ids)) < len(ids):
        raise VaultLocked("that key opens the vault already", hint="`silo vault status` shows the keys and their ids")
    if len(wraps) > MAX_WRAPS:
        raise VaultLocked(f"a vault has at most {MAX_WRAPS} keys", hint="remove one first")
