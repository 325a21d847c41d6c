"""Keys in the keyring of the operating system: Secret Service, KWallet, Keychain, Credential Locker.

There is one entry for each key of each vault.

Most runs of silo need no keyring, so slow modules are imported where they are used: `keyring` (200 ms).
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, Protocol, TypeVar, cast, final

from silo_vault.crypto import KEY_BYTES
from silo_vault.errors import KeyUnavailable, VaultLocked
from silo_vault.format import TransitWrap, Wrap
from silo_vault.keys.base import RandomBytes, unwrap_under, wrap_under
from silo_vault.secret import Secret, check_text
from silo_vault.sharing import SharedQuestions

T = TypeVar("T")

SERVICE = "silo"
SECRETS_SERVICE = "silo-secrets"
"""Secrets have a service of their own, so that cleaning them up can't delete a key."""

ANSWER_TIMEOUT_S = 60.0
"""A keyring that is locked may ask a person for its password, who needs some time to type it."""

_KEY = re.compile(f"[0-9a-f]{{{2 * KEY_BYTES}}}")

_TRUSTED_MODULES = (
    "keyring.backends.SecretService",
    "keyring.backends.libsecret",
    "keyring.backends.kwallet",
    "keyring.backends.macOS",
    "keyring.backends.Windows",
)
"""Backends of `keyring` that ask the operating system. Others keep passwords in a plain file or nowhere."""


class PasswordStore(Protocol):
    """The methods of `keyring.backend.KeyringBackend` that are used here."""

    def get_password(self, service: str, username: str) -> str | None:
        """Return the entry, or None if there is none."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Make or replace the entry."""

    def delete_password(self, service: str, username: str) -> None:
        """Remove the entry."""


@final
class KeyringKey:
    """Wraps under 32 random bytes that the OS keyring keeps, in one entry for each key of each vault."""

    kind = "keyring"
    label = "the OS keyring"
    recheck_s = None

    def __init__(self, store: PasswordStore | None = None) -> None:
        """Use this store, or by default the operating system's, which is looked up when a key is needed."""
        self._store = store

    def wrap(self, dek: bytes, *, vault_id: bytes, random: RandomBytes, is_new: bool = True) -> Wrap:
        """As `KeyProvider.wrap`. Makes the entry, and reads it back before it returns a wrap that depends on it."""
        store, key = self._open(), random(KEY_BYTES)
        wrap = wrap_under(key, dek, kind=self.kind, kdf=None, vault_id=vault_id, random=random)
        entry = _entry(vault_id, wrap)
        try:
            self._keep(store, entry, key.hex())
        except BaseException:
            self.retire(wrap, vault_id=vault_id)  # it may be there all the same
            raise
        return wrap

    def _keep(self, store: PasswordStore, entry: str, text: str) -> None:
        try:
            store.set_password(SERVICE, entry, text)
            kept = store.get_password(SERVICE, entry)
        except Exception as error:
            _explain(error)
        if kept != text:
            raise VaultLocked(
                "the OS keyring did not keep the key that it was given",
                hint="check that it works (e.g. with `keyring diagnose`), or use SILO_MASTER_KEY instead",
            )

    def unwrap(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> bytes:
        """As `KeyProvider.unwrap`."""
        assert isinstance(wrap, Wrap)
        store, entry = self._open(), _entry(vault_id, wrap)
        try:
            text = _in_time(lambda: store.get_password(SERVICE, entry))
        except Exception as error:
            _explain(error)
        if text is None:
            raise KeyUnavailable(
                f"the OS keyring has no entry {SERVICE!r} / {entry!r}",
                hint="log in as the user who made the vault, or restore that keyring from its backup",
            )
        if not _KEY.fullmatch(text):
            raise VaultLocked(
                f"the entry {SERVICE!r} / {entry!r} of the OS keyring is not a key",
                hint="restore it from its backup",
            )
        return unwrap_under(bytes.fromhex(text), wrap, vault_id=vault_id, label=self.label)

    def retire(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> None:
        """Remove the entry. One that is left behind is harmless, because it opens nothing."""
        with suppress(Exception):  # the vault is already written, so no error of the keyring matters
            self._open().delete_password(SERVICE, _entry(vault_id, wrap))

    def forget(self) -> None:
        """Do nothing: no key is kept in memory."""

    def _open(self) -> PasswordStore:
        if self._store is None:
            self._store = _system_store()
        return self._store


@final
class KeyringSecrets:
    """Reads secrets that people put into the OS keyring with its own programs (`secret-tool`, `keyring set`).

    Safe to use from several threads. Those that read the same entry at once share the answer.
    """

    def __init__(self, store: PasswordStore | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Use this store, or by default the operating system's, which is looked up when a secret is needed.

        Args:
            store: has the entries.
            clock: the monotonic clock, in seconds.
        """
        self._store = store
        self._questions: SharedQuestions[tuple[str | None, str], str | None] = SharedQuestions(clock)

    def read(self, username: str, *, service: str | None = None) -> Secret | None:
        """Return an entry, or None if it doesn't exist.

        Args:
            username: of the entry in the service, e.g. `GITHUB_TOKEN`.
            service: by default `silo-secrets`.

        Raises:
            KeyUnavailable: the keyring is locked, or there is none.
            SecretInvalid: the entry can't be a secret.
        """
        value = self._questions.ask((service, username), lambda: self._read(service or SECRETS_SERVICE, username))
        if value is None:
            return None
        return Secret(username, check_text(username, value).decode())

    def _read(self, service: str, username: str) -> str | None:
        store = self._store = self._store or _system_store()
        try:
            return _in_time(lambda: store.get_password(service, username))
        except Exception as error:
            _explain(error)


def _entry(vault_id: bytes, wrap: Wrap | TransitWrap) -> str:
    # One entry per vault, so that making two vaults at once, or deleting one, can't cost another vault its key. And one
    # per key, because a new key must not replace the old one before the vault file is written.
    return f"vault {vault_id.hex()} key {wrap.key_id.hex()}"


def _system_store() -> PasswordStore:
    import keyring
    from keyring.backends.chainer import ChainerBackend

    try:
        chosen = keyring.get_keyring()
        candidates = list(ChainerBackend.backends) if isinstance(chosen, ChainerBackend) else [chosen]
    except Exception as error:
        _explain(error)
    for candidate in candidates:
        if type(candidate).__module__.startswith(_TRUSTED_MODULES):
            return cast("PasswordStore", candidate)
    named = type(chosen).__module__
    if named == "keyring.backends.fail":
        raise KeyUnavailable(
            "there is no OS keyring here", hint="start a Secret Service such as gnome-keyring, or set SILO_MASTER_KEY"
        )
    raise KeyUnavailable(
        f"the keyring {named} is not the operating system's",
        hint="name an OS keyring in `keyringrc.cfg` (`keyring diagnose` shows its path), or set SILO_MASTER_KEY",
    )


def _in_time(read: Callable[[], T]) -> T:
    """Return what `read` returns. It can't be interrupted, so it runs in its own thread, which is left behind if late.

    Raises:
        KeyUnavailable: it took longer than `ANSWER_TIMEOUT_S`.
    """
    results: queue.SimpleQueue[tuple[T, None] | tuple[None, Exception]] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put((read(), None))
        except Exception as error:
            results.put((None, error))

    threading.Thread(target=run, name="silo-vault-keyring", daemon=True).start()
    try:
        found, problem = results.get(timeout=ANSWER_TIMEOUT_S)
    except queue.Empty:
        raise KeyUnavailable(
            f"the OS keyring did not answer within {ANSWER_TIMEOUT_S:.0f} s",
            hint="it may show a prompt that asks for its password; unlock it, then try again",
        ) from None
    if problem is not None:
        raise problem
    return cast("T", found)


def _explain(error: Exception) -> NoReturn:
    """Raise our error for one of a keyring. Its backends are plug-ins, and raise whatever their libraries raise."""
    if isinstance(error, KeyUnavailable):
        raise error
    from keyring.errors import KeyringLocked, NoKeyringError

    if isinstance(error, NoKeyringError):
        raise KeyUnavailable(
            "there is no OS keyring here", hint="start a Secret Service such as gnome-keyring, or set SILO_MASTER_KEY"
        ) from error
    if isinstance(error, KeyringLocked):
        raise KeyUnavailable(
            "the OS keyring is locked", hint="unlock it (log in to the desktop, or use its own program), then try again"
        ) from error
    raise KeyUnavailable(
        f"the OS keyring failed: {type(error).__name__}",
        hint="check that it works (e.g. with `keyring diagnose`), or set SILO_MASTER_KEY",
    ) from error
