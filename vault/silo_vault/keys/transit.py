"""The key in the transit engine of HashiCorp Vault or OpenBao, which wraps and unwraps the data key and never leaves the server.

The engine's `rewrap` is not used: OpenBao 2.7.2 can't rewrap what was made with `associated_data`. After the engine's key was rotated,
the vault is re-keyed instead, which decrypts and encrypts anew.
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
    """Each unwrapping is a request. A quarter of an hour is what somebody whose access was revoked may go on for."""

    def __init__(self, server: HashicorpServer) -> None:
        """Use the transit key that the server's settings name."""
        self._server = server
        self._mount = server.settings.transit_mount
        self._key = server.settings.transit_key
        self.label = f"the transit key {self._mount}/{self._key} of {server.address}"

    def __repr__(self) -> str:
        return f"TransitKey({self._mount}/{self._key}, {self._server!r})"

    def wrap(self, dek: bytes, *, vault_id: bytes, random: RandomBytes) -> TransitWrap:
        """As `KeyProvider.wrap`; `random` is not used, the nonce is the server's.

        Raises:
            AccessRefused: the server said no.
            KeyUnreachable: the server can't be asked.
            VaultLocked: there is no such key on the server, or it is of a type that can't be used.
        """
        conversation = self._server.conversation()
        # Asked for first: `encrypt` makes a key that does not exist, and a misspelt name would lock a vault to a new key.
        key = conversation.ask("GET", f"{self._mount}/keys/{self._key}")
        if key.status == 404:
            # Not `KeyUnavailable`: then another key would be taken in its place.
            raise VaultLocked(
                f"{self.label} does not exist", hint=f"make it: `bao write -f {self._mount}/keys/{self._key}`"
            )
        if key.status != 200:
            raise key.unexpected()
        if (kind := key.take(str, "data", "type")) not in _AEAD_TYPES or key.take(bool, "data", "derived"):
            raise VaultLocked(
                f"{self.label} is of type {kind[:40]!a}{' and derived' if kind in _AEAD_TYPES else ''}, which does not do here",
                hint="make one of type aes256-gcm96 that is not derived, and name it as transit_key",
            )
        body = {"plaintext": _base64(dek), "associated_data": self._associated_data(vault_id)}
        answer = conversation.ask("POST", f"{self._mount}/encrypt/{self._key}", body)
        if answer.status != 200:
            raise VaultLocked(
                f"{self.label} did not encrypt (HTTP {answer.status})", hint="see the server's own log for why"
            )
        ciphertext = answer.take(str, "data", "ciphertext")
        if not TRANSIT_CIPHERTEXT.fullmatch(ciphertext):
            raise answer.unexpected()
        return TransitWrap(transit_key_id(self._mount, self._key), self._mount, self._key, ciphertext)

    def unwrap(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> bytes:
        """As `KeyProvider.unwrap`.

        Raises:
            AccessRefused: the server said no.
            KeyUnreachable: the server can't be asked.
            KeyUnavailable: the vault wants another transit key, or the server has it no more, or not in that version.
            VaultLocked: the server's key does not open the wrap.
        """
        assert isinstance(wrap, TransitWrap)
        if (wrap.mount, wrap.key) != (self._mount, self._key):
            # What the file says is not followed: whoever can change it could send our token to any path on the server.
            raise KeyUnavailable(
                f"the vault wants the transit key {wrap.mount}/{wrap.key}, and the settings name {self._mount}/{self._key}",
                hint="if that is right, set transit_mount and transit_key to it",
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
                f"{self.label} is gone",
                hint="a key of the same name opens nothing; bring it back from the server's backup, or use the vault's other key",
            )
        version = wrap.ciphertext.split(":")[1]
        if answer.says("too old"):
            raise KeyUnavailable(
                f"{self.label} no longer opens what its version {version} sealed",
                hint="rotate the vault after its min_decryption_version was lowered: "
                f"`bao write {self._mount}/keys/{self._key}/config min_decryption_version={version[1:]}`",
            )
        # Wrong context, changed ciphertext and "too new" (a key made anew under the old name) are one: it does not open.
        raise VaultLocked(
            f"{self.label} does not open it",
            hint=f"{self.label} refused it (HTTP {answer.status}): it was sealed for another vault, or by another key of that name",
        )

    def retire(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> None:
        """Nothing was made for a wrap."""

    def forget(self) -> None:
        """Have the server object forget its token."""
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
