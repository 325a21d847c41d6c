"""One secret: its value in a type that does not show it, and the rules for names and values.

Python can't erase a value from memory. Inside, it is an ordinary `str`. Copies may stay in memory after the last
reference is gone, and nothing in this library overwrites them. `silo_vault.process` keeps other processes from reading
them.
"""

from __future__ import annotations

import re
from typing import NoReturn, final

from silo_vault.errors import SecretInvalid

NAME_PATTERN = "[A-Z][A-Z0-9_]{0,127}"
"""The form of a secret's name. It is that of an environment variable, where most secrets come from."""

NAMESPACE_PATTERN = "[a-z][a-z0-9_-]{0,63}"
"""The form of a namespace: the name of the one program or skill that may use its secrets."""

MAX_VALUE_BYTES = 64 * 1024
"""Longest value. The largest common ones are private keys and service account files, which are below 16 KiB."""

_NAME = re.compile(NAME_PATTERN)
_NAMESPACE = re.compile(NAMESPACE_PATTERN)


@final
class Secret:
    """A value that only `reveal` shows.

    `repr`, `str`, `format` and tracebacks show the name. It can't be pickled, so it stays in the process.
    """

    __slots__ = ("_name", "_value")

    def __init__(self, name: str, value: str) -> None:
        self._name = name
        self._value = value

    @property
    def name(self) -> str:
        """The name of the secret in its vault."""
        return self._name

    def reveal(self) -> str:
        """Return the value. Drop the result as soon as possible, and never put it in a message."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self._name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} can't be pickled or copied")


def check_name(name: str) -> str:
    """Return `name` if a secret may have it.

    Raises:
        SecretInvalid: it does not match `NAME_PATTERN`.
    """
    if not _NAME.fullmatch(name):
        # The text is not quoted: people sometimes paste the value in place of the name.
        raise SecretInvalid(
            "that can't be the name of a secret",
            hint="a name has capital letters, digits and underscores, starts with a letter and has at most "
            "128 characters, e.g. GITHUB_TOKEN",
        )
    return name


def check_namespace(namespace: str) -> str:
    """Return `namespace` if secrets may have it. The empty one is open to every program.

    Raises:
        SecretInvalid: it does not match `NAMESPACE_PATTERN`.
    """
    if namespace and not _NAMESPACE.fullmatch(namespace):
        raise SecretInvalid(
            "that can't be a namespace of secrets",
            hint="it has small letters, digits, '_' and '-', starts with a letter and has at most 64 characters",
        )
    return namespace


def check_value(name: str, value: str | bytes) -> bytes:
    """Return the value in UTF-8 if it may be stored as `name`. No message shows it.

    Raises:
        SecretInvalid: it is empty, longer than `MAX_VALUE_BYTES`, not UTF-8, or holds a NUL.
    """
    try:
        encoded = value.encode() if isinstance(value, str) else value.decode().encode()
    except UnicodeError:
        # `from None`: the message of a UnicodeError quotes the value.
        raise SecretInvalid(
            f"the value for {name} is not UTF-8", hint="encode binary values, e.g. with base64"
        ) from None
    if not encoded:
        raise SecretInvalid(f"the value for {name} is empty", hint="check its source, then add it again")
    if len(encoded) > MAX_VALUE_BYTES:
        raise SecretInvalid(
            f"the value for {name} has {len(encoded)} bytes; {MAX_VALUE_BYTES} are allowed",
            hint="encrypt a large file, keep it elsewhere, and store its key here",
        )
    if b"\0" in encoded:
        raise SecretInvalid(f"the value for {name} holds a NUL", hint="encode binary values, e.g. with base64")
    return encoded
