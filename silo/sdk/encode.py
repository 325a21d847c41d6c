"""Turn a tool's return value into JSON, text and files, or say which value can't be. `silo.guest` sends the result.

The checks are in the skill's own process, because only there can the author be told which value is wrong. The host
checks again, because a skill can also write to the channel itself.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import numbers
import pathlib
import uuid
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, SupportsFloat

from silo.sdk.context import cut
from silo.sdk.errors import InvokeFailed
from silo.sdk.files import File, guess_extension
from silo.sdk.results import AgentResponse
from silo.wire.frames import MAX_JSON_BYTES
from silo.wire.messages import MAX_FILES, MAX_TEXT_CHARS, Json
from silo.wire.rules import is_media_type, is_safe_name
from silo.wire.strict_json import MAX_CONTAINERS as MAX_WIRE_CONTAINERS
from silo.wire.strict_json import MAX_VALUES as MAX_WIRE_VALUES

MAX_DEPTH: Final = 32
"""How deep a result may nest. The wire allows 64; no model reads half of that."""

MAX_VALUES: Final = MAX_WIRE_VALUES - 1024
"""Values in a result; the rest is for the message around it. A larger result belongs in a `File`. The limit also stops
a small object that unfolds without end before it has filled the guest's memory."""

MAX_CONTAINERS: Final = MAX_WIRE_CONTAINERS - 1024
"""Lists and objects in a result."""

MAX_INTEGER_BITS: Final = 4096
"""Python refuses to print integers of more than 4,300 digits (14,000 bits); longer ones are better returned as text."""

_HEADS_BYTES: Final = MAX_FILES * 4 * 1024
"""Room for the names and media types of the files in the message that carries a result."""


Place = str | tuple["Place", "str | int"]
"""The path of a value: `"result"`, or a place and a key or index in it. It becomes text only in an error message."""


class Unencodable(Exception):
    """A value can't be JSON; the message starts with the path to it, e.g. `result.rows[3].at`."""

    def __init__(self, where: Place, problem: str) -> None:
        super().__init__(f"{_spell(where)} {problem}")


@dataclass(frozen=True)
class Outcome:
    """A result, ready for the wire.

    Attributes:
        text: what a model reads; data alone is shown as compact JSON.
        data: JSON, meaningful only if `has_data`.
        files: at most 32, each with a safe name.
        is_error: the tool itself reports a failure.
    """

    text: str
    data: Any
    has_data: bool
    files: tuple[File, ...]
    is_error: bool


def outcome_of(returned: object) -> Outcome:
    """Turn a tool's return value into an outcome.

    Text stays text, None is empty, a `File`, bytes, or a list of either are files, and an `AgentResponse` has its own
    text, data and files. Everything else is data.

    Raises:
        InvokeFailed: `result-invalid`, with the place in the message, or `result-too-large`.
    """
    try:
        if isinstance(returned, AgentResponse):
            outcome = _of_response(returned)
        elif returned is None:
            outcome = Outcome("", None, False, (), False)
        elif isinstance(returned, str):  # an enum of texts too
            outcome = Outcome(_text(returned, "result"), None, False, (), False)
        elif isinstance(returned, File | bytes | bytearray):
            outcome = Outcome("", None, False, _files([returned], "result", is_list=False), False)
        elif isinstance(returned, list | tuple) and returned and all(isinstance(r, File | bytes) for r in returned):
            outcome = Outcome("", None, False, _files(returned, "result"), False)
        else:
            data = to_json(returned, "result")
            outcome = Outcome(compact(data), data, True, (), False)
    except Unencodable as error:
        raise InvokeFailed("result-invalid", str(error)) from None
    _check_size(outcome)
    return outcome


def to_json(value: object, where: Place) -> Json:
    """Turn a value into JSON types.

    Raises:
        Unencodable: NaN, infinity, bytes, a file, an object of unknown type, a lone surrogate, a cycle, too deep or too
            much.
    """
    return _Encoder().encode(value, where, 0)


def compact(data: Json) -> str:
    """Write JSON without spaces, with characters beyond ASCII as they are."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class _Encoder:
    def __init__(self) -> None:
        self._left = MAX_VALUES
        self._containers_left = MAX_CONTAINERS
        self._open: set[int] = set()

    def encode(self, value: object, where: Place, depth: int) -> Json:
        self._left -= 1
        if self._left < 0:
            raise Unencodable(where, f"is beyond the {MAX_VALUES} values that a result may have; return a File instead")
        if value is None or value is True or value is False:
            return value
        if type(value) is int and -(2**53) < value < 2**53:  # nearly all numbers; skips the slow checks below
            return value
        if isinstance(value, enum.Enum):
            return self.encode(value.value, where, depth)
        if isinstance(value, str):
            return _text(value, where)
        if isinstance(value, int | numbers.Integral):  # numpy's integers as well
            return _integer(int(value), where)
        if isinstance(value, float | numbers.Real):
            return _real(value, where)
        if (text := _as_text(value, where)) is not None:
            return text
        return self._container(value, where, depth)

    def _container(self, value: object, where: Place, depth: int) -> Json:
        if depth >= MAX_DEPTH:
            raise Unencodable(where, f"nests deeper than {MAX_DEPTH}; return a flatter value")
        self._containers_left -= 1
        if self._containers_left < 0:
            raise Unencodable(
                where, f"is beyond the {MAX_CONTAINERS} lists and objects that a result may have; return a File instead"
            )
        if id(value) in self._open:
            raise Unencodable(where, "contains itself; return a value without cycles")
        self._open.add(id(value))
        encoded = self._unfold(value, where, depth + 1)
        self._open.discard(id(value))
        return encoded

    def _unfold(self, value: object, where: Place, depth: int) -> Json:
        if isinstance(value, File | bytes | bytearray | memoryview):
            raise Unencodable(
                where,
                f"is {_kind(value)}, which JSON can't hold; "
                "return a File alone, in a list, or as AgentResponse(files=[...])",
            )
        if isinstance(value, AgentResponse):
            raise Unencodable(where, "is an AgentResponse inside of another value; return it alone")
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._object({f.name: getattr(value, f.name) for f in dataclasses.fields(value)}, where, depth)
        dump = getattr(value, "model_dump", None)
        if callable(dump) and not isinstance(value, type):
            try:
                dumped = dump(mode="json", by_alias=True)
            except ValueError as error:
                raise Unencodable(where, f"can't be turned into JSON by pydantic: {error}") from None
            return self.encode(dumped, where, depth)
        if isinstance(value, tuple) and hasattr(value, "_asdict"):
            return self._object(value._asdict(), where, depth)
        if isinstance(value, Mapping):
            return self._object(value, where, depth)
        if isinstance(value, AbstractSet):
            # A set has no order; the same result must be the same text in every call.
            return sorted((self.encode(item, (where, "..."), depth) for item in value), key=compact)
        if isinstance(value, Sequence):
            return [self.encode(item, (where, index), depth) for index, item in enumerate(value)]
        raise Unencodable(where, f"is {_kind(value)}, which JSON can't hold; {_advice(value)}")

    def _object(self, entries: Mapping[Any, object], where: Place, depth: int) -> Json:
        found: dict[str, Any] = {}
        for key, item in entries.items():
            name = key.value if isinstance(key, enum.Enum) else key
            if isinstance(name, int) and not isinstance(name, bool):
                name = str(name)
            if not isinstance(name, str):
                raise Unencodable(where, f"has the key {_short(key)}; the keys of a JSON object are strings")
            if not _is_text(name):
                raise Unencodable(where, f"has the key {_short(name)}, a lone surrogate, which UTF-8 can't hold")
            name = str.__str__(name)
            if name in found:
                raise Unencodable(where, f"has two keys that are {_short(name)} in JSON")
            found[name] = self.encode(item, (where, name), depth)
        return found


def _of_response(response: AgentResponse) -> Outcome:
    has_data = response.raw_data is not None
    data = to_json(response.raw_data, "result.raw_data") if has_data else None
    text = _text(response.llm_text, "result.llm_text")
    failure = _text(str(response.error_message or ""), "result.error_message")
    if failure and failure not in text:
        text = f"{text}\n{failure}" if text else failure
    if not text and has_data:
        text = compact(data)
    return Outcome(text, data, has_data, _files(tuple(response.files), "result.files"), response.status == "error")


def _files(found: Sequence[object], where: str, *, is_list: bool = True) -> tuple[File, ...]:
    if len(found) > MAX_FILES:
        raise Unencodable(where, f"has {len(found)} files, allowed are {MAX_FILES}; put them into one archive")
    files = []
    for index, item in enumerate(found):
        place = f"{where}[{index}]" if is_list else where
        file = File(bytes(item)) if isinstance(item, bytes | bytearray) else item
        if not isinstance(file, File):
            raise Unencodable(place, f"is {_kind(file)}, not a File")
        if not isinstance(file.media_type, str) or not is_media_type(file.media_type):
            raise Unencodable(place, f"has the media type {_short(file.media_type)}; write it as 'type/subtype'")
        name = file.name or f"file-{index + 1}{guess_extension(file.media_type)}"
        if not isinstance(name, str) or not _is_text(name) or not is_safe_name(name):
            raise Unencodable(place, f"has the name {_short(name)}; take a bare file name, such as 'report.pdf'")
        files.append(dataclasses.replace(file, name=name))
    return tuple(files)


def _as_text(value: object, where: Place) -> str | None:
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            raise Unencodable(where, f"is {value}, which JSON can't hold; return None")
        return str(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, pathlib.PurePath):
        return _text(str(value), where)
    return None


def _text(value: str, where: Place) -> str:
    # A plain `str`, so that a subclass can't change its value between check and use.
    text = str.__str__(value)
    if not _is_text(text):
        raise Unencodable(where, "has a lone surrogate, which UTF-8 can't hold; decode with errors='replace'")
    return text


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _integer(value: int, where: Place) -> int:
    if value.bit_length() > MAX_INTEGER_BITS:
        raise Unencodable(
            where, f"is an integer of {value.bit_length()} bits; return it as text, e.g. hex({_spell(where)})"
        )
    return value


def _real(value: SupportsFloat, where: Place) -> float:
    try:
        number = float(value)
    except OverflowError:  # a fraction
        raise Unencodable(where, "is a number too large for a float; return it as text") from None
    if not math.isfinite(number):
        raise Unencodable(where, f"is {number}, which JSON can't hold; return None")
    return number


def _check_size(outcome: Outcome) -> None:
    """Refuse a result whose text, or text and data together, are too large for one message."""
    if len(outcome.text) > MAX_TEXT_CHARS:
        raise InvokeFailed(
            "result-too-large",
            f"the text of the result has {len(outcome.text)} characters, allowed are {MAX_TEXT_CHARS}; "
            "return a File instead",
        )
    budget = MAX_JSON_BYTES - _HEADS_BYTES
    if not outcome.has_data and len(outcome.text) * 6 <= budget:  # the longest escape has six characters
        return
    size = len(compact(outcome.text).encode()) + (len(compact(outcome.data).encode()) if outcome.has_data else 0)
    if size > budget:
        raise InvokeFailed(
            "result-too-large",
            f"the result has {size} bytes as JSON, text and data together; allowed are {budget}: return a File instead",
        )


def _spell(where: Place) -> str:
    if isinstance(where, str):
        return where
    parent, key = where
    return (
        f"{_spell(parent)}.{key}" if isinstance(key, str) and key.isidentifier() else f"{_spell(parent)}[{_short(key)}]"
    )


def _kind(value: object) -> str:
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _short(value: object) -> str:
    return cut(repr(value).encode(errors="replace").decode(), 80, mark="…")


def _advice(value: object) -> str:
    if hasattr(value, "__await__"):
        return "await it"
    if hasattr(value, "__next__"):
        return "write list(...) around it"
    if hasattr(value, "to_dict"):
        return "call its to_dict()"
    if hasattr(value, "tolist"):
        return "call its tolist()"
    return "return plain values, a dataclass or a pydantic model"
