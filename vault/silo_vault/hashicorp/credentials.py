"""Finds the credentials for a login: tokens, secret-ids and JWTs, from files or from memory. `tokens` sends them."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from silo_vault.errors import KeyUnavailable, VaultLocked
from silo_vault.hashicorp.settings import ServerSettings

MAX_FILE_BYTES = 64 * 1024
"""Of a file with a token. The longest are JWTs with many claims, below 16 KiB, as HTTP servers limit headers."""

_VISIBLE = re.compile("[!-~]+")


class Credentials:
    """Finds the credentials again for each login.

    Only those that were given as text or can't be read twice are kept in memory, until `forget`.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._token = settings.token
        self._jwt = settings.jwt
        self._secret_id: str | None = None
        self._spent: set[bytes] = set()
        self._lock = threading.Lock()

    def token(self) -> str:
        """Return the token from the settings, or from its file.

        Raises:
            KeyUnavailable: there is no token.
            VaultLocked: it is malformed, or its file is open to other users or belongs to one.
        """
        settings = self._settings
        if settings.token:
            return _kept(self._token, "VAULT_TOKEN")
        assert settings.token_file is not None
        return _read(settings.token_file, "the token", forbidden=0o077, owners={os.geteuid()})

    def login(self, unwrap: Callable[[str], str]) -> dict[str, str]:
        """Return the body of a login request.

        Args:
            unwrap: returns the secret-id for a response-wrapping token, which works only once.

        Raises:
            KeyUnavailable: there are no credentials.
            VaultLocked: they are malformed, or their file is open to other users.
        """
        settings = self._settings
        if settings.auth == "approle":
            return {"role_id": settings.role_id, "secret_id": self._find_secret_id(unwrap)}
        if settings.jwt:
            jwt = _kept(self._jwt, settings.jwt_variable or "the JWT")
        else:
            assert settings.jwt_file is not None
            # Kubernetes makes these files readable for everyone in the pod, so their mode isn't checked.
            jwt = _read(settings.jwt_file, "the JWT", forbidden=0, owners=None)
        return {"role": settings.role, "jwt": jwt}

    def note_refusal(self) -> None:
        """Drop the secret-id in memory after a refused login. It may be used up, and its file may have a new one."""
        with self._lock:
            self._secret_id = None

    def forget(self) -> None:
        """Drop all credentials in memory. Those that have no file are then lost."""
        with self._lock:
            self._token = self._jwt = self._secret_id = None

    def _find_secret_id(self, unwrap: Callable[[str], str]) -> str:
        settings = self._settings
        path = settings.secret_id_file
        assert path is not None
        with self._lock:
            kept = self._secret_id
        if kept is not None:
            return kept
        # Root may own the file, for a service that runs as another user.
        text = _read(path, "the secret-id", forbidden=0o007, owners={os.geteuid(), 0})
        if settings.secret_id_wrapping_path:
            used = hashlib.sha256(text.encode()).digest()
            if used in self._spent:  # else our own use of it would look like a theft
                raise KeyUnavailable(
                    f"this process has already used the wrapped secret-id in {path}",
                    hint="write a new one to the file: `bao write -wrap-ttl=5m -f auth/approle/role/ROLE/secret-id`",
                )
            secret_id = _checked(unwrap(text), "the secret-id")
            self._spent.add(used)
        else:
            secret_id = text
        if settings.remove_secret_id_file:
            _remove(path)
        if settings.secret_id_wrapping_path or settings.remove_secret_id_file:
            with self._lock:
                self._secret_id = secret_id
        return secret_id


def _kept(text: str | None, what: str) -> str:
    if text is None:
        raise KeyUnavailable(f"{what} was forgotten when the vault was locked", hint="start this process again with it")
    return _checked(text, what)


def _checked(text: str, what: str) -> str:
    # Checked before any HTTP library gets it: they quote a header that they refuse.
    if not _VISIBLE.fullmatch(text):
        raise VaultLocked(
            f"{what} is empty, or has white space or characters that no token has",
            hint="use it exactly as it was issued",
        )
    return text


def _read(path: Path, what: str, *, forbidden: int, owners: set[int] | None) -> str:
    try:
        # O_NONBLOCK: opening a pipe must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise VaultLocked(f"{path} is not a file", hint=f"give the path of the file with {what}")
            if owners is not None and found.st_uid not in owners:
                raise VaultLocked(
                    f"{path} belongs to another user (uid {found.st_uid})",
                    hint=f"change the owner: `chown {os.geteuid()} {path}`",
                )
            if stat.S_IMODE(found.st_mode) & forbidden:
                raise VaultLocked(f"{path} is open to other users", hint=f"run `chmod 600 {path}`")
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise KeyUnavailable(f"{what} is missing: {path} does not exist", hint="create it, or log in again") from None
    except OSError as error:
        raise VaultLocked(f"{path} can't be read: {error.strerror}", hint="check its owner and its mode") from None
    if len(data) > MAX_FILE_BYTES:
        raise VaultLocked(f"{path} has more than {MAX_FILE_BYTES} bytes", hint=f"give the path of the file with {what}")
    # Latin-1 decodes every byte. `_checked` refuses what isn't ASCII, without quoting it.
    return _checked(data.decode("latin-1").strip(" \t\r\n"), f"{what} in {path}")


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise VaultLocked(
            f"{path} can't be removed: {error.strerror}",
            hint="let this user write to its folder, or set remove_secret_id_file = false",
        ) from None
