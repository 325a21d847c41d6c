"""A key that is an entry in a KV engine of HashiCorp Vault or OpenBao: 32 bytes in hex or base64, read at each use.

Unlike with `silo_vault.keys.transit`, the key comes to this machine. Anyone who reads this process's memory once has it
for good.
"""

from __future__ import annotations

from typing import final

from silo_vault.errors import KeyUnavailable, VaultLocked
from silo_vault.format import TransitWrap, Wrap
from silo_vault.hashicorp.kv_secrets import SCHEME, KvSecrets, parse_reference
from silo_vault.hashicorp.server import HashicorpServer
from silo_vault.keys.base import RandomBytes, unwrap_under, wrap_under
from silo_vault.keys.texts import raw_key


@final
class KvKey:
    """Wraps under a key of 32 bytes in one field of one entry."""

    kind = "kv"
    recheck_s = 900.0
    """As for `TransitKey`."""

    def __init__(self, server: HashicorpServer) -> None:
        """Use the entry that the server's settings name.

        Raises:
            VaultLocked: they name no entry.
            SecretInvalid: they name an entry that can't exist.
        """
        path = server.settings.kek_path
        if not path:
            raise VaultLocked("kek_path is not set", hint='name the entry, e.g. kek_path = "secret/silo#kek"')
        self._reference = parse_reference(SCHEME + path.removeprefix(SCHEME))
        self._secrets = KvSecrets(server, max_cache_s=0)  # it is needed rarely, and is safer outside memory
        self._server = server
        self.label = f"the key {self._reference} of {server.address}"

    def __repr__(self) -> str:
        return f"KvKey({str(self._reference)!r}, {self._server!r})"

    def wrap(self, dek: bytes, *, vault_id: bytes, random: RandomBytes, is_new: bool = True) -> Wrap:
        """As `KeyProvider.wrap`; never makes the entry.

        Raises:
            AccessRefused: the server refused.
            KeyUnreachable: the server gave no usable answer.
            VaultLocked: the entry does not exist or isn't a key.
        """
        if (kek := self._read()) is None:
            # Not `KeyUnavailable`, after which another key would be used instead.
            raise VaultLocked(f"{self.label} does not exist", hint=self._how_to_make())
        return wrap_under(kek, dek, kind=self.kind, kdf=None, vault_id=vault_id, random=random)

    def unwrap(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> bytes:
        """As `KeyProvider.unwrap`.

        Raises:
            AccessRefused: the server refused.
            KeyUnreachable: the server gave no usable answer.
            KeyUnavailable: the entry does not exist.
            VaultLocked: the entry isn't a key, or is another key.
        """
        assert isinstance(wrap, Wrap)
        if (kek := self._read()) is None:
            raise KeyUnavailable(
                f"{self.label} does not exist", hint="if it was deleted, `bao kv undelete` may bring it back"
            )
        return unwrap_under(kek, wrap, vault_id=vault_id, label=self.label)

    def retire(self, wrap: Wrap | TransitWrap, *, vault_id: bytes) -> None:
        """Do nothing: no server state belongs to a wrap."""

    def forget(self) -> None:
        """Make the server object forget its token."""
        self._server.forget()

    def _read(self) -> bytes | None:
        secret = self._secrets.read(self._reference.path, self._reference.field)
        if secret is None:
            return None
        if (kek := raw_key(secret.reveal())) is None:
            # A passphrase is not accepted: nobody has to remember this key, so it can be random.
            raise VaultLocked(f"{self.label} is not 32 bytes in hex or base64", hint=self._how_to_make())
        return kek

    def _how_to_make(self) -> str:
        mount, _, rest = self._reference.path.partition("/")
        put = f"bao kv put -mount={mount} {rest} {self._reference.field}=-"
        return f"make it: `openssl rand -hex 32 | tr -d '\\n' | {put}`"
