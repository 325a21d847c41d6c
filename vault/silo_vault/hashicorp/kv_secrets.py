"""Reads secrets from KV engines (version 1 and 2) of a server, named by references: `vault://mount/path#field`."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, final

from silo_vault.errors import SecretInvalid
from silo_vault.hashicorp.messages import ServerAnswer
from silo_vault.hashicorp.server import Conversation, HashicorpServer
from silo_vault.hashicorp.settings import is_path
from silo_vault.secret import Secret, check_text

SCHEME = "vault://"

MAX_CACHE_S = 300.0
"""How long a value may be used without asking again. Revoking access takes effect after at most five minutes."""

_RESERVED = frozenset({"auth", "cubbyhole", "identity", "sys"})
"""Paths at which no KV engine can be mounted. `auth/token/lookup-self`, for example, would return our own token."""

_FIELD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:=+~-]{0,127}")


@dataclass(frozen=True)
class Reference:
    """The place of a secret on a server.

    Attributes:
        path: mount and path, e.g. `secret/app/github`, without the `data/` of version 2.
        field: the name of the value in that entry.
    """

    path: str
    field: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.path}#{self.field}"


def parse_reference(text: str) -> Reference:
    """Parse `vault://mount/path#field`.

    Raises:
        SecretInvalid: it does not have this form. The message doesn't quote it, because people sometimes paste a value.
    """
    path, _, name = text.removeprefix(SCHEME).partition("#")
    if not text.startswith(SCHEME):
        raise _invalid()
    return _checked(path, name)


@final
class KvSecrets:
    """Reads fields of entries, and keeps their values in memory for a limited time."""

    def __init__(
        self, server: HashicorpServer, *, max_cache_s: float = MAX_CACHE_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read from this server.

        Args:
            server: that has the entries.
            max_cache_s: how long a value may be used without asking again, unless its lease is shorter; 0 for never.
            clock: the monotonic clock, in seconds.
        """
        self._server = server
        self._max_cache_s = max_cache_s
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self._epoch = 0
        server.on_drop(self.forget)

    def __repr__(self) -> str:
        return f"KvSecrets({self._server!r})"

    def read(self, path: str, field: str) -> Secret | None:
        """Return the value of a field, or None if the entry or the field doesn't exist or was deleted.

        Args:
            path: mount and path, e.g. `secret/app/github`. The version of the engine is detected.
            field: the name of the value in that entry.

        Raises:
            AccessRefused: the server refused. All values in memory are dropped then.
            KeyUnreachable: the server gave no usable answer.
            VaultLocked: there are no credentials to log in with.
            SecretInvalid: the path or the field is malformed, the engine isn't a KV engine, or the value is not text.
        """
        reference = _checked(path, field)
        with self._lock:
            epoch = self._epoch
        values = self._known(path)
        if values is None:
            entry = self._fetch(path)
            if entry is None:
                return None
            values = entry.values
            self._keep(path, entry, epoch=epoch)
        return None if (value := values.get(field)) is None else _secret(reference, value)

    def forget(self) -> None:
        """Drop all values."""
        with self._lock:
            self._entries.clear()
            self._epoch += 1

    def _known(self, path: str) -> Mapping[str, Any] | None:
        with self._lock:
            now = self._clock()
            self._entries = {name: entry for name, entry in self._entries.items() if now < entry[0]}
            known = self._entries.get(path)
            return None if known is None else known[1]

    def _keep(self, path: str, entry: _KvEntry, *, epoch: int) -> None:
        # Version 2 has no leases, and says 0. Version 1 says how often to ask again.
        keep_s = min(entry.lease_s, self._max_cache_s) if entry.lease_s > 0 else self._max_cache_s
        with self._lock:
            if keep_s > 0 and epoch == self._epoch:
                self._entries[path] = (self._clock() + keep_s, entry.values)

    def _fetch(self, path: str) -> _KvEntry | None:
        conversation = self._server.conversation()
        # Some servers hide this and answer 403. Reading the entry below shows whether it is allowed.
        mount = _mount(conversation.probe("GET", f"sys/internal/ui/mounts/{path}"), path)
        if mount is None:
            return _guess(conversation, path)
        name, version = mount
        if version == 1:
            return _entry_v1(conversation.ask("GET", path))
        answer = conversation.ask("GET", _data_path(name, path))
        entry = _entry_v2(answer)
        if entry is None and answer.status == 200:
            raise answer.unexpected()
        return entry


@dataclass(frozen=True, repr=False)
class _KvEntry:
    values: Mapping[str, Any]
    lease_s: int


def _guess(conversation: Conversation, path: str) -> _KvEntry | None:
    """Try version 2, then version 1. If either refuses and neither has it, it is refused: absence would be a guess."""
    refused: str | None = None
    for place, read in ((_data_path(path.partition("/")[0], path), _entry_v2), (path, _entry_v1)):
        answer = conversation.probe("GET", place)
        if answer.status == 403:
            refused = refused or place
        elif (entry := read(answer)) is not None:
            return entry
    if refused is not None:
        raise conversation.refusal("GET", refused)
    return None


def _checked(path: str, name: str) -> Reference:
    if not is_path(path) or not _FIELD.fullmatch(name):
        raise _invalid()
    mount, _, rest = path.partition("/")
    if not rest or mount in _RESERVED:
        raise _invalid()
    return Reference(path, name)


def _invalid() -> SecretInvalid:
    return SecretInvalid(
        "that can't be a reference to a secret on a server",
        hint="write vault://MOUNT/PATH#FIELD, e.g. vault://secret/app/github#token; without 'data/', '..', '?' and '%'",
    )


def _data_path(mount: str, path: str) -> str:
    return f"{mount}/data/{path[len(mount) + 1 :]}"


def _mount(answer: ServerAnswer, path: str) -> tuple[str, int] | None:
    """Return the mount of the engine of a path, and its version; None if the server does not tell."""
    if answer.status != 200:
        return None
    mount, kind = answer.take(str, "data", "path").rstrip("/"), answer.take(str, "data", "type")
    if not path.startswith(f"{mount}/"):
        raise answer.unexpected()
    if kind not in ("kv", "generic"):
        # Reading from other engines may have effects: a database engine creates a user.
        raise SecretInvalid(
            f"the engine at {mount} is of type {kind[:40]!a}, and secrets are read from KV engines only",
            hint="`bao secrets list` shows the engines and their types",
        )
    return mount, 2 if answer.find("data", "options", "version") == "2" else 1


def _entry_v1(answer: ServerAnswer) -> _KvEntry | None:
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise answer.unexpected()
    return _KvEntry(answer.take(dict, "data"), answer.take(int, "lease_duration"))


def _entry_v2(answer: ServerAnswer) -> _KvEntry | None:
    """Return an entry of version 2. None also for an answer of version 1, whose `data` is the entry itself."""
    if answer.status == 404:  # also with a body: a deleted version that can be restored
        return None
    if answer.status != 200:
        raise answer.unexpected()
    data = answer.take(dict, "data")
    if not isinstance(data.get("data"), dict) or not isinstance(data.get("metadata"), dict):
        return None
    return _KvEntry(data["data"], answer.take(int, "lease_duration"))


def _secret(reference: Reference, value: object) -> Secret:
    if not isinstance(value, str):
        raise SecretInvalid(
            f"{reference} has the JSON type {_JSON_TYPES[type(value)]}, and only text can be a secret",
            hint="write it as text, as `bao kv put` does; a file can be encoded with base64",
        )
    check_text(str(reference), value)
    return Secret(str(reference), value)


_JSON_TYPES: Mapping[type, str] = MappingProxyType(
    {bool: "boolean", int: "number", float: "number", list: "array", dict: "object"}
)
