"""Opens the data key of a vault with the first provider that has a key, and keeps it in memory for as long as allowed.

`silo_vault.vault` uses the data key; the modules in `silo_vault.keys` are the providers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from silo_vault import crypto
from silo_vault.errors import AccessRefused, KeyUnavailable, KeyUnreachable, VaultLocked
from silo_vault.format import KNOWN_KINDS, AnyWrap, Header, TransitWrap, UnknownWrap, Wrap
from silo_vault.keys.base import KeyProvider, RandomBytes
from silo_vault.sharing import SharedQuestions


@dataclass(frozen=True, repr=False)
class Keys:
    """The keys derived from the data key of an open vault: one for records, one for the MAC of the file."""

    vault_id: bytes
    wraps: tuple[AnyWrap, ...]
    records: bytes
    mac: bytes

    @classmethod
    def derive(cls, dek: bytes, header: Header) -> Keys:
        """Derive the keys from the data key."""
        return cls(
            header.vault_id,
            header.wraps,
            records=crypto.derive(dek, vault_id=header.vault_id, purpose="records"),
            mac=crypto.derive(dek, vault_id=header.vault_id, purpose="file mac"),
        )


class Unlocker:
    """Opens data keys. Safe to use from several threads, which ask a keyring or stretch a passphrase only once."""

    def __init__(
        self,
        providers: Sequence[KeyProvider],
        *,
        path: Path,
        backup: Path,
        epoch: object = None,
        grace_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Name the providers, in the order in which they are tried.

        Args:
            path: of the vault, for messages.
            backup: path of the previous generation, for messages.
            epoch: the present value of what `keys` is given.
            grace_s: how long an open vault stays open after a server that must be asked again can't be reached. It does
                not apply to a refusal.
            clock: the monotonic clock, in seconds.
        """
        self.providers = tuple(providers)
        self._path = path
        self._backup = backup
        self._grace_s = grace_s
        self._clock = clock
        self._lock = threading.Lock()  # never held while a provider is asked
        self._questions: SharedQuestions[object, tuple[bytes, KeyProvider]] = SharedQuestions(clock)
        self._keys: Keys | None = None
        self._good_until: float | None = None
        self._epoch = epoch

    def keys(self, header: Header, *, epoch: object) -> Keys:
        """Return the keys of a vault, from memory while that is allowed.

        Args:
            epoch: a value that changes when the vault is locked on purpose; a new one empties the memory.

        Raises:
            VaultLocked: no provider opens it; if a server is the reason, `AccessRefused` or `KeyUnreachable`.
        """
        with self._lock:
            if epoch != self._epoch:
                self._forget()
                self._epoch = epoch
            if (known := self._known(header, grace_s=0.0)) is not None:
                return known
        try:
            dek, provider = self._asked(header, epoch)
        except VaultLocked as error:
            with self._lock:
                is_bridged = isinstance(error, KeyUnreachable)  # never a refusal
                if is_bridged and (known := self._known(header, grace_s=self._grace_s)) is not None:
                    return known
                self._keys = None
            raise
        keys = Keys.derive(dek, header)
        with self._lock:
            if epoch == self._epoch:  # else the vault was locked meanwhile: the keys are used once and not kept
                self._keys = keys
                self._good_until = None if provider.recheck_s is None else self._clock() + provider.recheck_s
        return keys

    def data_key(self, header: Header) -> bytes:
        """Return the data key itself, which wrapping needs. It is always unwrapped again, and not kept.

        Raises:
            VaultLocked: as for `keys`.
        """
        return self._asked(header, self._epoch)[0]

    def forget(self) -> None:
        """Forget the keys in memory, and make the providers forget theirs."""
        with self._lock:
            self._forget()

    def wrap_new(self, dek: bytes, *, vault_id: bytes, random: RandomBytes) -> tuple[KeyProvider, Wrap | TransitWrap]:
        """Return the data key of a new vault, sealed by the first provider that has a key, and that provider.

        Raises:
            VaultLocked: no provider has a key.
        """
        missing: list[KeyUnavailable] = []
        for provider in self.providers:
            try:
                return provider, provider.wrap(dek, vault_id=vault_id, random=random)
            except KeyUnavailable as error:
                if isinstance(error, KeyUnreachable):  # configured, so another key must not silently take its place
                    raise
                missing.append(error)
        raise VaultLocked(
            f"no key to lock {self._path} with: {'; '.join(error.message for error in missing) or 'none is set up'}",
            hint=missing[0].hint if missing else "configure a key for the vault",
        )

    def open_wrap(self, wrap: AnyWrap, *, vault_id: bytes) -> tuple[KeyProvider, bytes] | None:
        """Return the provider that opens this wrap, and the data key in it; None if none does."""
        for provider, candidate in self._candidates((wrap,)):
            try:
                return provider, provider.unwrap(candidate, vault_id=vault_id)
            except VaultLocked:
                continue
        return None

    def _asked(self, header: Header, epoch: object) -> tuple[bytes, KeyProvider]:
        """Unwrap the data key, outside of the lock: a server or a keyring may take its time."""
        return self._questions.ask((header.vault_id, header.wraps, epoch), lambda: self._unwrap(header))

    def _known(self, header: Header, *, grace_s: float) -> Keys | None:
        known = self._keys
        if known is None or (known.vault_id, known.wraps) != (header.vault_id, header.wraps):
            return None
        return known if self._good_until is None or self._clock() < self._good_until + grace_s else None

    def _forget(self) -> None:
        self._keys = None
        self._good_until = None
        self._questions.forget()
        for provider in self.providers:
            provider.forget()

    def _candidates(self, wraps: Sequence[AnyWrap]) -> Iterator[tuple[KeyProvider, Wrap | TransitWrap]]:
        for provider in self.providers:
            for wrap in wraps:
                if not isinstance(wrap, UnknownWrap) and wrap.kind == provider.kind:
                    yield provider, wrap

    def _unwrap(self, header: Header) -> tuple[bytes, KeyProvider]:
        missing: list[KeyUnavailable] = []
        wrong: list[VaultLocked] = []
        for provider, wrap in self._candidates(header.wraps):
            try:
                return provider.unwrap(wrap, vault_id=header.vault_id), provider
            except KeyUnavailable as error:
                missing.append(error)
            except AccessRefused:
                raise  # access was revoked, and another key must not hide that
            except VaultLocked as error:
                wrong.append(error)
        if wrong:
            raise VaultLocked(
                f"cannot open {self._path}: the key is wrong, or the file was changed",
                hint=f"{'; '.join(error.hint for error in wrong)}; the previous generation is {self._backup}",
            )
        if unreachable := next((error for error in missing if isinstance(error, KeyUnreachable)), None):
            raise unreachable
        if missing:
            raise VaultLocked(
                f"no key for {self._path}: {'; '.join(error.message for error in missing)}", hint=missing[0].hint
            ) from missing[0]
        kinds = ", ".join(sorted({wrap.kind for wrap in header.wraps}))
        raise VaultLocked(
            f"no key for {self._path}: it opens with a key of kind {kinds}, and none of that kind is configured here",
            hint="configure one"
            if KNOWN_KINDS & {wrap.kind for wrap in header.wraps}
            else "use the newer program that wrote it",
        )
