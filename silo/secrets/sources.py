"""Where a secret is looked up: one rule, and the places that it names. Leases on what was found are `silo.secrets.lease`'.

The rule, for the secret `NAME` that the skill `skill` declares:

1. a mapping in the configuration, for `skill.NAME`, else for `NAME`: that place, and no other;
2. HashiCorp Vault, where a path is configured: what belongs to the skill, else what is for all;
3. the OS keyring, where it is switched on: likewise;
4. the vault file: likewise.

The first that has it decides. A place that refuses, or does not answer, ends the search: what it would have said is not known, and
an older copy elsewhere must not pass for it.
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
    """A secret that shows itself only when asked to."""

    def reveal(self) -> str:
        """Return the value."""
        ...


class VaultFile(Protocol):
    """What is needed of the vault file: `silo_vault.Vault` is one."""

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


class ServerSecrets(Protocol):
    """What is needed of HashiCorp Vault: `silo_vault.hashicorp.KvSecrets` is one."""

    def read(self, path: str, field: str) -> Revealable | None:
        """Return the field of what lies at `mount/path`, or None if there is no such thing.

        Raises:
            VaultError: the server refuses, or does not answer.
        """
        ...


class KeyringSecrets(Protocol):
    """What is needed of the OS keyring: `silo_vault.KeyringSecrets` is one."""

    def read(self, username: str, *, service: str | None = None) -> Revealable | None:
        """Return an entry, or None if there is none.

        Raises:
            VaultError: the keyring is locked, or there is none.
        """
        ...


@dataclass(frozen=True)
class Reference:
    """One place of one secret, as the configuration names it.

    Attributes:
        kind: `vault`, `keyring` or `silo`.
        where: the path at the server, the service in the keyring, or the namespace in the vault file.
        what: the field, the user name, or the name.
    """

    kind: str
    where: str
    what: str
    text: str


def parse_reference(text: str) -> Reference:
    """Return what `vault://mount/path#field`, `keyring://service/user` or `silo://[skill/]NAME` refers to. Pure.

    Raises:
        ValueError: it is none of these; the message says what they look like.
    """
    for kind, pattern in (("vault", _SERVER), ("keyring", _KEYRING), ("silo", _FILE)):
        found = pattern.fullmatch(text)
        if found and not {".", ".."} & set(found[1].split("/") if found[1] else ()):
            return Reference(kind, found[1] or "", found[2], text)
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
    """All places, and the rule.

    Attributes:
        file: the vault file; a function, because it is opened only when it is needed.
        server: HashiCorp Vault, or None where it is not configured.
        server_path: `mount/path` of the secrets that need no mapping, or empty.
        keyring: the OS keyring, or None where nothing may be looked up there.
        use_keyring: whether secrets that are not mapped are looked up there as well.
        mapped: references by `NAME` and `skill.NAME`.
    """

    file: Callable[[], VaultFile]
    server: Callable[[], ServerSecrets] | None = None
    server_path: str = ""
    keyring: Callable[[], KeyringSecrets] | None = None
    use_keyring: bool = False
    mapped: Mapping[str, Reference] = field(default_factory=dict)

    def find(self, skill: str, name: str) -> Revealable | None:
        """Return a secret by the rule above, or None if no place has it. Blocks.

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

    def reference(self, skill: str, name: str) -> Reference | None:
        """Return the mapping that decides about a secret, if one does."""
        return self.mapped.get(f"{skill}.{name}") or self.mapped.get(name)

    def canaries(self) -> Mapping[str, Revealable]:
        """Return the decoys of the vault file.

        Raises:
            VaultError: there are some, and the vault does not open.
        """
        return self.file().canaries()

    def _read(self, reference: Reference) -> Revealable | None:
        match reference.kind:
            case "vault":
                return None if self.server is None else self.server().read(reference.where, reference.what)
            case "keyring":
                if self.keyring is None:
                    return None
                return self.keyring().read(reference.what, service=reference.where)
        return self.file().find(reference.what, (reference.where,))
