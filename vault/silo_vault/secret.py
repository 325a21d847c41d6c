"""One secret: its value in a type that does not show it, and the rules for names and values.

What Python can't do is said here once: the value is an ordinary `str` inside, copies of it may stay in memory after the last
reference is gone, and nothing in this library wipes them. What keeps them from others is `silo_vault.process`.
"""

from __future__ import annotations

import re
from typing import NoReturn, final

from silo_vault.errors import SecretInvalid

NAME_PATTERN = "[A-Z][A-Z0-9_]{0,127}"
"""What a name of a secret looks like: an environment variable's, so that it is one in every program that it comes from."""

NAMESPACE_PATTERN = "[a-z][a-z0-9_-]{0,63}"
"""What a namespace looks like: the name of the one program, or skill, that its secrets are for."""

MAX_VALUE_BYTES = 64 * 1024
"""Longest value. The largest things that people keep here are private keys and service account files, below 16 KiB."""

_NAME = re.compile(NAME_PATTERN)
_NAMESPACE = re.compile(NAMESPACE_PATTERN)


@final
class Secret:
    """A value that shows itself only when asked to.

    `repr`, `str`, `format` and tracebacks give the name. It can't be pickled, so it does not leave the process by accident.
    """

    __slots__ = ("_name", "_value")

    def __init__(self, name: str, value: str) -> None:
        self._name = name
        self._value = value

    @property
    def name(self) -> str:
        """The name under which the vault holds it."""
        return self._name

    def reveal(self) -> str:
        """The value. Keep the result for as short a time as possible, and out of messages."""
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
        # What was given is not quoted: people paste the value where the name belongs.
        raise SecretInvalid(
            "that can't be the name of a secret",
            hint="a name has capital letters, digits and underscores, starts with a letter and has at most 128 characters, "
            "e.g. GITHUB_TOKEN",
        )
    return name


def check_namespace(namespace: str) -> str:
    """Return `namespace` if secrets may have it; the empty one is for all.

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
    """Return the value in UTF-8 if it may be stored as `name`; no message ever shows it.

    Raises:
        SecretInvalid: it is empty, longer than `MAX_VALUE_BYTES`, not UTF-8, or holds a NUL.
    """
    try:
        encoded = value.encode() if isinstance(value, str) else value.decode().encode()
    except UnicodeError:
        # `from None`: the message of a UnicodeError quotes what it could not read.
        raise SecretInvalid(
            f"the value for {name} is not UTF-8", hint="encode binary values, e.g. with base64"
        ) from None
    if not encoded:
        raise SecretInvalid(f"the value for {name} is empty", hint="check where it comes from, then add it again")
    if len(encoded) > MAX_VALUE_BYTES:
        raise SecretInvalid(
            f"the value for {name} has {len(encoded)} bytes; {MAX_VALUE_BYTES} are allowed",
            hint="store the key of a large file here, and the file itself elsewhere",
        )
    if b"\0" in encoded:
        raise SecretInvalid(f"the value for {name} holds a NUL", hint="encode binary values, e.g. with base64")
    return encoded
