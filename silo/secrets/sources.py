"""Where a secret is looked up: the order of the places. `silo.secrets.lease` leases what was found.

The order, for the secret `NAME` that the skill `skill` declares:

1. a mapping in the configuration, for `skill.NAME`, else for `NAME`: only that place is tried;
2. HashiCorp Vault, if a path is configured: the skill's own secret, else the one for all skills;
3. the OS keyring, if it is switched on: in the same order;
4. the vault file: in the same order.

The first place that has the secret is used. A place that refuses or does not answer ends the search, because it may
have a newer value than the places after it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

_NAME = "[A-Z][A-Z0-9_]{0,127}"
_MAPPED = re.compile(rf"([a-z][a-z0-9_]{{0,63}}\.)?{_NAME}")
_PART = r"[A-Za-z0-9_.@%+=-]+"
_SERVER = re.compile(rf"vault://({_PART}(?:/{_PART})+)#([A-Za-z0-9_.-]{{1,128}})")
_KEYRING = re.compile(r"keyring://([^/\s]{1,128})/([^\s]{1,256})")
_FILE = re.compile(rf"silo://(?:([a-z][a-z0-9_-]{{0,63}})/)?({_NAME})")


class Revealable(Protocol):
    """A secret whose value must be asked for explicitly."""

    def reveal(self) -> str:
        """Return the value."""
        ...


class VaultFile(Protocol):
    """The vault file, as `silo_vault.Vault` implements it."""

    def find(self, name: str, namespaces: Sequence[str]) -> Revealable | None:
        """Return the secret of that name in the first namespace that has one, or None.

        Raises:
            VaultError: the vault does not open.
        """
        ...

    def canaries(self) -> Mapping[str, Revealable]:
        """Return the decoys by name; opens the vault only if there are some.

        Raises:
            VaultError: the vault does not open.
        """
        ...


class ServerLookup(Protocol):
    """HashiCorp Vault, as `silo_vault.hashicorp.KvSecrets` implements it."""

    def read(self, path: str, field: str) -> Revealable | None:
        """Return a field of the secret at `mount/path`, or None if there is none.

        Raises:
            VaultError: the server refuses, or does not answer.
        """
        ...


class KeyringLookup(Protocol):
    """The OS keyring, as `silo_vault.KeyringSecrets` implements it."""

    def read(self, username: str, *, service: str | None = None) -> Revealable | None:
        """Return an entry, or None if there is none.

        Raises:
            VaultError: the keyring is locked, or there is none.
        """
        ...


@dataclass(frozen=True)
class SecretReference:
    """The place of one secret, from the configuration.

    Attributes:
        kind: `vault`, `keyring` or `silo`.
        where: the path at the server, the service in the keyring, or the namespace in the vault file.
        what: the field at the server, the user name in the keyring, or the name in the vault file.
    """

    kind: str
    where: str
    what: str
    text: str


def parse_reference(text: str) -> SecretReference:
    """Parse `vault://mount/path#field`, `keyring://service/user` or `silo://[skill/]NAME`. Pure.

    Raises:
        ValueError: it has none of these forms; the message lists them.
    """
    for kind, pattern in (("vault", _SERVER), ("keyring", _KEYRING), ("silo", _FILE)):
        found = pattern.fullmatch(text)
        if found and not {".", ".."} & set(found[1].split("/") if found[1] else ()):
            return SecretReference(kind, found[1] or "", found[2], text)
    raise ValueError("must be vault://mount/path#field, keyring://service/user or silo://[skill/]NAME")


def check_mapped(name: str) -> str:
    """Return `name` if it can be mapped: `NAME`, or `skill.NAME`.

    Raises:
        ValueError: it is neither.
    """
    if not _MAPPED.fullmatch(name):
        raise ValueError("must be the name of a secret, NAME, or skill.NAME")
    return name


@dataclass(frozen=True)
class Sources:
    """All places of secrets, and the order in which they are searched.

    Attributes:
        file: the vault file; a function, because it is opened only when it is needed.
        server: HashiCorp Vault, or None if it is not configured.
        server_path: `mount/path` of the secrets that need no mapping, or empty.
        keyring: the OS keyring, or None if it may not be used.
        use_keyring: whether secrets that are not mapped are looked up in the keyring as well.
        mapped: references by `NAME` and `skill.NAME`.
    """

    file: Callable[[], VaultFile]
    server: Callable[[], ServerLookup] | None = None
    server_path: str = ""
    keyring: Callable[[], KeyringLookup] | None = None
    use_keyring: bool = False
    mapped: Mapping[str, SecretReference] = field(default_factory=dict)

    def find(self, skill: str, name: str) -> Revealable | None:
        """Return a secret from the first place that has it, or None. Blocks.

        Raises:
            VaultError: a place refuses, does not answer, or does not open.
        """
        reference = self.reference(skill, name)
        if reference is not None:
            return self._read(reference)
        if self.server is not None and self.server_path:
            server = self.server()
            for path in (f"{self.server_path}/{skill}", self.server_path):
                if (found := server.read(path, name)) is not None:
                    return found
        if self.keyring is not None and self.use_keyring:
            keyring = self.keyring()
            for username in (f"{skill}/{name}", name):
                if (found := keyring.read(username)) is not None:
                    return found
        return self.file().find(name, (skill, ""))

    def reference(self, skill: str, name: str) -> SecretReference | None:
        """Return the configured place of a secret, or None."""
        return self.mapped.get(f"{skill}.{name}") or self.mapped.get(name)

    def canaries(self) -> Mapping[str, Revealable]:
        """Return the decoys of the vault file.

        Raises:
            VaultError: there are some, and the vault does not open.
        """
        return self.file().canaries()

    def _read(self, reference: SecretReference) -> Revealable | None:
        match reference.kind:
            case "vault":
                return None if self.server is None else self.server().read(reference.where, reference.what)
            case "keyring":
                if self.keyring is None:
                    return None
                return self.keyring().read(reference.what, service=reference.where)
        return self.file().find(reference.what, (reference.where,))
