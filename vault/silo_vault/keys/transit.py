"""A key in the transit engine of HashiCorp Vault or OpenBao. The server wraps and unwraps; the key never leaves it.

The engine's `rewrap` is not used, because OpenBao 2.7.2 can't rewrap ciphertext that has `associated_data`. After the
engine's key was rotated, re-key the vault instead, which decrypts and encrypts again.
"""

from __future__ import annotations

import base64
from typing import final

from silo_vault.crypto import KEY_BYTES
from silo_vault.errors import KeyUnavailable, VaultLocked
from silo_vault.format import TRANSIT_CIPHERTEXT, TransitWrap, Wrap, transit_context, transit_key_id
from silo_vault.hashicorp.server import HashicorpServer
from silo_vault.keys.base import RandomBytes

_AEAD_TYPES = frozenset({"aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"})


@final
class TransitKey:
    """Wraps with one key of one transit engine."""

    kind = "transit"
    recheck_s = 900.0
    """Each unwrapping is a request. After access is revoked, an open vault works for up to a quarter of an hour."""

    def __init__(self, server: HashicorpServer) -> None:
        """Use the transit key that the server's settings name."""
        self._server = server
        self._mount = server.settings.transit_mount
        self._key = server.settings.transit_key
        self.label = f"the transit key {self._mount}/{self._key} of {server.address}"

    def __repr__(self) -> str:
        return f"TransitKey({self._mount}/{self._key}, {self._server!r})"

    def wrap(self, dek: bytes, *, vault_id: bytes, random: RandomBytes, is_new: bool = True) -> TransitWrap:
        """As `KeyProvider.wrap`. `random` is not used, because the server makes the nonce.

        Raises:
            AccessRefused: the server refused.
            KeyUnreachable: the server gave no usable answer.
            VaultLocked: the key does not exist on the server, or has a type that can't be used.
        """
        conversation = self._server.conversation()
        # This comes first because `encrypt` makes a missing key: a misspelt name would lock a vault to a new key.
        key = conversation.ask("GET", f"{self._mount}/keys/{self._key}")
        if key.status == 404:
            # Not `KeyUnavailable`, after which another key would be used instead.
            raise VaultLocked(
                f"{self.label} does not exist", hint=f"make it: `bao write -f {self._mount}/keys/{self._key}`"
            )
        if key.status != 200:
            raise key.unexpected()
        if (kind := key.take(str, "data", "type")) not in _AEAD_TYPES or key.take(bool, "data", "derived"):
            raise VaultLocked(
                f"{self.label} is of type {kind[:40]!a}{' and derived' if kind in _AEAD_TYPES else ''}, "
                "which can't be used here",
                hint="make a key of type aes256-gcm96 that is not derived, and set transit_key to its name",
            )
        body = {"plaintext": _base64(dek), "associated_data": self._associated_data(vault_id)}
        answer = conversation.ask("POST", f"{self._mount}/encrypt/{self._key}", body)
        if answer.status != 200:
            raise VaultLocked(f"{self.label} did not encrypt (HTTP {answer.status})", hint="the server's log says why")
        ciphertext = answer.take(str, "data", "ciphertext")
        if not TRANSIT_CIPHERTEXT.fullmatch(ciphertext):
            raise answer.unexpected()
        return TransitWrap(transit_key_id(self._mount, self._key), self._mount, self._key, ciphertext)

    def unwrap(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> bytes:
        """As `KeyProvider.unwrap`.

        Raises:
            AccessRefused: the server refused.
            KeyUnreachable: the server gave no usable answer.
            KeyUnavailable: the vault needs another transit key, or the server no longer has it or its version.
            VaultLocked: the server's key does not open the wrap.
        """
        assert isinstance(wrap, TransitWrap)
        if (wrap.mount, wrap.key) != (self._mount, self._key):
            # The name in the file is not used: anyone who can change the file could send our token to any path.
            raise KeyUnavailable(
                f"the vault needs the transit key {wrap.mount}/{wrap.key}, "
                f"but the settings name {self._mount}/{self._key}",
                hint="if the vault is right, set transit_mount and transit_key to that key",
            )
        body = {"ciphertext": wrap.ciphertext, "associated_data": self._associated_data(vault_id)}
        answer = self._server.conversation().ask("POST", f"{self._mount}/decrypt/{self._key}", body)
        if answer.status == 200:
            dek = _octets(answer.take(str, "data", "plaintext"))
            if dek is None:
                raise answer.unexpected()
            return dek
        if answer.says("encryption key not found") or answer.status == 404:
            raise KeyUnavailable(
                f"{self.label} no longer exists",
                hint="restore it from the server's backup, or use another key of the vault; "
                "a new key of the same name does not open it",
            )
        version = wrap.ciphertext.split(":")[1]
        if answer.says("too old"):
            raise KeyUnavailable(
                f"{self.label} no longer opens what its version {version} sealed",
                hint="lower its min_decryption_version, then rotate the vault: "
                f"`bao write {self._mount}/keys/{self._key}/config min_decryption_version={version[1:]}`",
            )
        # A wrong context, a changed ciphertext and "too new" (a new key under the old name) all mean: it does not open.
        raise VaultLocked(
            f"{self.label} does not open it",
            hint=f"{self.label} refused it (HTTP {answer.status}): "
            "it was sealed for another vault, or by another key of that name",
        )

    def retire(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> None:
        """Do nothing: no server state belongs to a wrap."""

    def forget(self) -> None:
        """Make the server object forget its token."""
        self._server.forget()

    def _associated_data(self, vault_id: bytes) -> str:
        return _base64(transit_context(vault_id, self._mount, self._key))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _octets(text: str) -> bytes | None:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, or not ASCII
        return None
    return data if len(data) == KEY_BYTES else None
