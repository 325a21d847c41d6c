"""Requests to a server and its answers. Pure: `transport` sends them, and `attempts` sends them again.

An answer comes from another machine, so it is parsed strictly, and its text is shown only if it can't contain a secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from silo_vault.errors import KeyUnreachable

MAX_BODY_BYTES = 1024 * 1024
"""Of one answer. The largest is a KV entry, and servers keep those below 1 MiB."""

Method = Literal["GET", "POST"]

_T = TypeVar("_T")
_MAX_SAID_CHARS = 160
_MIN_HIDDEN_CHARS = 6
_SECONDS = re.compile("[0-9]{1,4}")


@dataclass(frozen=True, repr=False)
class ServerRequest:
    """One request.

    Attributes:
        path: below `/v1/`.
        token: sent as `X-Vault-Token` if it is not None.
        is_single_use: it uses something up, so sending it twice may do harm.
    """

    method: Method
    path: str
    token: str | None
    body: Mapping[str, str] | None = None
    is_single_use: bool = False

    @property
    def hidden(self) -> tuple[str, ...]:
        """The values that no message may show."""
        return tuple(value for value in (self.token, *(self.body or {}).values()) if value)


@dataclass(frozen=True, repr=False)
class ServerAnswer:
    """One answer.

    Attributes:
        body: its JSON object; None if there is none.
        retry_after_s: how long the server asks clients to wait; 0 if it didn't say.
    """

    address: str
    status: int
    body: Mapping[str, Any] | None
    retry_after_s: float = 0.0

    @classmethod
    def parse(cls, address: str, status: int, body: bytes, *, retry_after: str | None) -> ServerAnswer:
        """Parse an answer. A body that is not one JSON object becomes None."""
        wait_s = float(retry_after) if retry_after and _SECONDS.fullmatch(retry_after) else 0.0
        return cls(address, status, _parsed(body), wait_s)

    def take(self, kind: type[_T], *names: str) -> _T:
        """Return the value at the end of these names, which must have exactly this type (`true` isn't a number).

        Raises:
            KeyUnreachable: there is no such value, so this isn't the expected server.
        """
        value = self.find(*names)
        if type(value) is not kind:
            raise self.unexpected()
        return value

    def find(self, *names: str) -> object:
        """Return the value at the end of these names, or None."""
        value: object = self.body
        for name in names:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def says(self, words: str) -> bool:
        """Whether an error in the answer contains these words, given in lower case."""
        return any(words in error.lower() for error in self._errors())

    def error_text(self, hidden: tuple[str, ...]) -> str:
        """Return the first error for a message, as `: text`; an empty text if it might show what was sent."""
        raw = next(iter(self._errors()), "")
        text = "".join(letter if letter.isprintable() else " " for letter in raw)
        if not text.strip() or any(
            value in raw or value in text for value in hidden if len(value) >= _MIN_HIDDEN_CHARS
        ):
            return ""
        return f": {text[:_MAX_SAID_CHARS]}"

    def unexpected(self) -> KeyUnreachable:
        """Return the error for an answer that HashiCorp Vault and OpenBao don't give."""
        return KeyUnreachable(
            f"{self.address} gave an answer (HTTP {self.status}) that is not HashiCorp Vault's or OpenBao's",
            hint="check VAULT_ADDR, and whether there is a proxy between this machine and the server",
        )

    def _errors(self) -> list[str]:
        errors = self.find("errors")
        return [error for error in errors if isinstance(error, str)] if isinstance(errors, list) else []


class NoServerAnswer(Exception):
    """There is no complete answer. The reason continues the message `ADDRESS can't be reached: …`.

    Attributes:
        was_sent: the server may have acted on the request.
        is_final: another attempt would fail the same way.
        hint: what to do about it.
    """

    def __init__(self, reason: str, *, hint: str = "", was_sent: bool = False, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.was_sent = was_sent
        self.is_final = is_final


def _parsed(body: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(body.decode(), parse_constant=_refuse, object_pairs_hook=_object)
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError contain the text, so they stop here
        return None
    return value if isinstance(value, dict) else None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a name occurs twice")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
