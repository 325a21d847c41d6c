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

MAX_VALUE_BYTES = 1024 * 1024
"""Longest value. Private keys and service account files are below 16 KiB, key stores (PKCS #12, JKS) below 100 KiB."""

_NAME = re.compile(NAME_PATTERN)
_NAMESPACE = re.compile(NAMESPACE_PATTERN)


@final
class Secret:
    """A value that only `reveal` and `reveal_bytes` show.

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
        """Return the value. Drop the result as soon as possible, and never put it in a message.

        The bytes of a binary value that are not UTF-8 are lone surrogates in it (`surrogateescape`, PEP 383).
        """
        return self._value

    def reveal_bytes(self) -> bytes:
        """Return the value as it was stored; text in UTF-8."""
        return self._value.encode(errors="surrogateescape")

    @property
    def is_binary(self) -> bool:
        """Whether the value is not text: it is not UTF-8, or holds a NUL."""
        return is_binary(self._value)

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


def is_binary(value: str) -> bool:
    """Whether a value, as `Secret.reveal` returns it, is not text."""
    return "\0" in value or any("\udc80" <= character <= "\udcff" for character in value)


def check_value(name: str, value: str | bytes) -> bytes:
    """Return the value as bytes if it may be stored as `name`. No message shows it.

    Args:
        name: of the secret, for messages.
        value: any bytes; or text, which may hold lone surrogates as in `Secret.reveal`.

    Raises:
        SecretInvalid: it is empty, longer than `MAX_VALUE_BYTES`, or text with other lone surrogates.
    """
    try:
        encoded = value.encode(errors="surrogateescape") if isinstance(value, str) else value
    except UnicodeError:
        # `from None`: the message of a UnicodeError quotes the value.
        raise SecretInvalid(f"the value for {name} is not UTF-8", hint="check its source, then add it again") from None
    if not encoded:
        raise SecretInvalid(f"the value for {name} is empty", hint="check its source, then add it again")
    if len(encoded) > MAX_VALUE_BYTES:
        raise SecretInvalid(
            f"the value for {name} has {len(encoded):,} bytes; {MAX_VALUE_BYTES:,} are allowed",
            hint="encrypt the large file with a key of its own, give the file to the tool, and store the key here",
        )
    return encoded


def check_text(name: str, value: str | bytes) -> bytes:
    """As `check_value`, for a source that only has text.

    Raises:
        SecretInvalid: as for `check_value`; or it is not UTF-8, or holds a NUL.
    """
    encoded = check_value(name, value)
    if is_binary(encoded.decode(errors="surrogateescape")):
        why = "holds a NUL" if b"\0" in encoded else "is not UTF-8"
        raise SecretInvalid(
            f"the value for {name} {why}, so it is not text",
            hint="a binary value is added from a file: `silo vault add NAME --from-file PATH`",
        )
    return encoded
