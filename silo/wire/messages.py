"""The messages between host and guest, as dataclasses; parsed strictly, because a guest is hostile.

Two channels carry frames (`silo.wire.frames`): *control*, between the host and the guest's first process, and *call*,
between the host and the process that runs the skill. `docs/reference/wire.md` has their order. This module does no I/O.

Control: host sends `Hold` (answered by `Held`) and `Resume`; guest sends `Booted`, `Exited`.
Call: guest sends `Described` or `Failed` once the skill is imported; host sends `Rehearse` (answered by `Rehearsed`)
any number of times, then one `Run` followed by the blobs of its document and files; guest sends `Progress` any number
of times, then `Finished` followed by the blobs of its files, or `Failed`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final

from silo.wire.frames import JSON, WireError, encode

MAX_FILES = 32
"""The most files of a call, and of a result."""

MAX_NAME_CHARS = 255
MAX_TEXT_CHARS = 4 * 1024 * 1024
MAX_DEPTH = 64
"""How deep the JSON of a message may nest; Python's own parser allows about a thousand levels."""


@dataclass(frozen=True)
class FileHead:
    """Announces a file whose bytes follow as blobs: a bare name, a media type (RFC 6838) and a size in bytes."""

    name: str
    media_type: str
    size: int


@dataclass(frozen=True)
class Hold:
    """Host → init: let no code of the skill run before the next `Resume`; the guest will be saved, or will wait."""

    TYPE: ClassVar[str] = "hold"


@dataclass(frozen=True)
class Held:
    """Init → host: the answer to `Hold`; everything of the skill stands still.

    Attributes:
        realtime_ns: the guest's clock, in nanoseconds since the epoch (CLOCK_REALTIME).
    """

    TYPE: ClassVar[str] = "held"
    realtime_ns: int


@dataclass(frozen=True)
class Resume:
    """Host → init: the data that a guest that was held needs before any code of the skill runs.

    Attributes:
        entropy: 64 bytes in hex, credited to the guest kernel's pool (`man 4 random`, RNDADDENTROPY).
        realtime_ns: nanoseconds since the epoch (CLOCK_REALTIME).
        hostname: unique for each guest.
    """

    TYPE: ClassVar[str] = "resume"
    entropy: str = field(repr=False)
    realtime_ns: int
    hostname: str


@dataclass(frozen=True)
class Booted:
    """Init → host: the kernel has booted and the skill's process is started."""

    TYPE: ClassVar[str] = "booted"
    kernel: str
    python: str


@dataclass(frozen=True)
class Exited:
    """Init → host: the skill's process ended; the guest does nothing more.

    Attributes:
        status: exit status, or minus the number of the signal that ended it.
        oom_kills: how many processes the guest kernel's OOM killer ended, where the guest can read it.
    """

    TYPE: ClassVar[str] = "exited"
    status: int
    oom_kills: int


@dataclass(frozen=True)
class Described:
    """Guest → host: the skill is imported and warm; `skill` is its description, which `silo.catalog` checks."""

    TYPE: ClassVar[str] = "described"
    skill: dict[str, Any]
    import_s: float
    warmup_s: float


@dataclass(frozen=True)
class Rehearse:
    """Host → guest: run the path of a call once, so that its code is warm; before any argument or secret.

    Blobs of `document_size` bytes follow: a document like that of `Run`, but empty.
    """

    TYPE: ClassVar[str] = "rehearse"
    document_size: int


@dataclass(frozen=True)
class Rehearsed:
    """Guest → host: the answer to `Rehearse`."""

    TYPE: ClassVar[str] = "rehearsed"


@dataclass(frozen=True)
class Run:
    """Host → guest: the one call. Blobs follow: the document of `document_size` bytes, then the files in order.

    The document is the JSON object `{"arguments": {...}, "secrets": {...}}`, which the skill finds on its STDIN.

    Attributes:
        marker: written to stdout and stderr after the last byte of the skill, so that the host knows where its output
            ends.
    """

    TYPE: ClassVar[str] = "run"
    tool: str
    document_size: int
    marker: str
    files: tuple[FileHead, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Guest → host: how far the call is, as MCP has it: `progress` grows, `total` may be unknown."""

    TYPE: ClassVar[str] = "progress"
    progress: float
    total: float | None = None
    message: str | None = None


@dataclass(frozen=True)
class Finished:
    """Guest → host: the tool returned. Blobs of `files` follow in order.

    Attributes:
        text: for a model to read.
        data: any JSON value, meaningful only if `has_data`.
        is_error: the tool itself reports a failure (`AgentResponse(status="error")`).
    """

    TYPE: ClassVar[str] = "finished"
    text: str
    data: Any = None
    has_data: bool = False
    files: tuple[FileHead, ...] = ()
    is_error: bool = False


@dataclass(frozen=True)
class Failed:
    """Guest → host: the call has no result.

    Attributes:
        code: one of `FAILURE_CODES`.
        message: one line.
        traceback: Python's, or empty.
    """

    TYPE: ClassVar[str] = "failed"
    code: str
    message: str
    traceback: str = ""


FAILURE_CODES = frozenset(
    {
        "skill-syntax-error",
        "skill-import-error",
        "skill-exception",
        "skill-exited",
        "result-invalid",
        "result-too-large",
        "secret-undeclared",
        "arguments-invalid",
        "tool-unknown",
        "skill-metadata-invalid",
    }
)
"""The codes that a guest may report; each is also a code of `silo.errors`."""

Json = Any
"""A JSON value in Python's types; the parser of a message checks which."""

FILE_MARK: Final = "x-silo-file"
"""Marks the schema of a file, so that the host can replace the agent's value by `{"$file": index}`."""

Message = Hold | Held | Resume | Booted | Exited | Described | Rehearse | Rehearsed | Run | Progress | Finished | Failed

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode

_TYPES: dict[str, type[Any]] = {
    kind.TYPE: kind
    for kind in (Hold, Held, Resume, Booted, Exited, Described, Rehearse, Rehearsed, Run, Progress, Finished, Failed)
}


def encode_message(message: Message) -> bytes:
    """Return the frame for `message`.

    Raises:
        WireError: it is too long, or has a value that isn't JSON (NaN, a lone surrogate).
    """
    # Not `dataclasses.asdict`: it copies every value of a result, and under emulation each new path of code costs time.
    body = {"type": message.TYPE, **vars(message)}
    if "files" in body:
        body["files"] = [vars(head) for head in body["files"]]
    try:
        payload = _encode(body).encode()
    except (ValueError, TypeError) as error:
        raise WireError(f"a {message.TYPE} message cannot be encoded: {error}") from error
    return encode(JSON, payload)


def decode_trusted(payload: bytes) -> Message:
    """Parse a message of the host, for the guest, without the checks that only a hostile sender makes necessary.

    Under emulation, code that a clone runs for the first time makes its call slow, and parsing is most of that code.
    """
    body = json.loads(payload)
    kind = _TYPES[body.pop("type")]
    if "files" in body:
        body["files"] = tuple(FileHead(**head) for head in body["files"])
    message: Message = kind(**body)
    return message


def decode_message(payload: bytes) -> Message:
    """Parse the payload of a JSON frame.

    Raises:
        WireError: the payload is not UTF-8, is not strict JSON (RFC 8259: duplicate keys, NaN and lone surrogates are
            refused), nests deeper than `MAX_DEPTH`, has an unknown type, an unknown or missing field, or a value out of
            bounds.
    """
    body = parse_json(payload)
    if not isinstance(body, dict):
        raise WireError("a message must be a JSON object")
    name = body.pop("type", None)
    kind = _TYPES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise WireError("a message of unknown type")
    known = {f.name for f in fields(kind)}
    if unknown := sorted(set(body) - known):
        raise WireError(f"a {kind.TYPE} message has the unknown field {unknown[0][:80]!r}")
    if "files" in body:
        body["files"] = _file_heads(body["files"])
    try:
        message: Message = kind(**body)
    except TypeError as error:
        raise WireError(f"a {kind.TYPE} message lacks a field: {error}") from error
    _check(message)
    return message


def parse_json(payload: bytes) -> Json:
    """Parse hostile JSON into Python values; refuses the same JSON as `decode_message`."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WireError("not UTF-8") from error
    if _depth(text) > MAX_DEPTH:
        raise WireError(f"nested deeper than {MAX_DEPTH}")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite)
    except WireError:
        raise
    except ValueError as error:
        raise WireError(f"not JSON: {error}") from error
    if "\\u" in text:
        _refuse_surrogates(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise WireError("an object has the same key twice")
    return value


def _refuse_constant(name: str) -> Json:
    raise WireError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise WireError(f"the number {text[:40]} is too large")
    return value


def _refuse_surrogates(value: Json) -> None:
    r"""Refuse lone surrogates, which JSON can have as escapes (`"\ud800"`) and UTF-8 can't."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError as error:
                raise WireError("a string has a lone surrogate") from error
        elif isinstance(item, dict):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _depth(text: str) -> int:
    """Return how deep brackets nest outside of strings; for text that isn't JSON, an upper bound."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _file_heads(value: Json) -> tuple[FileHead, ...]:
    if not isinstance(value, list) or len(value) > MAX_FILES:
        raise WireError(f"files must be a list of at most {MAX_FILES}")
    heads = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"name", "media_type", "size"}:
            raise WireError("a file has a name, a media_type and a size")
        name, media_type, size = item["name"], item["media_type"], item["size"]
        if not isinstance(name, str) or not isinstance(media_type, str):
            raise WireError("a file's name and media type are strings")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise WireError("a file's size is a number of bytes")
        if not is_safe_name(name) or not is_media_type(media_type):
            raise WireError(f"not a file name and media type: {name[:80]!r}, {media_type[:80]!r}")
        heads.append(FileHead(name, media_type, size))
    return tuple(heads)


def is_safe_name(name: str) -> bool:
    """Whether `name` is a bare, printable, visible file name without special characters of a shell or file system."""
    return (
        0 < len(name) <= MAX_NAME_CHARS
        and len(name.encode(errors="replace")) <= MAX_NAME_CHARS
        and name.isprintable()
        and not any(c in name for c in '/\\:*?"<>|')
        and not any(
            0x200B <= ord(c) <= 0x200F or 0x202A <= ord(c) <= 0x202E or 0x2066 <= ord(c) <= 0x2069 for c in name
        )
        and name[0] not in ".-~ "
        and name[-1] not in ". "
    )


def is_media_type(value: str) -> bool:
    """Whether `value` is `type/subtype` by RFC 6838 §4.2, without parameters."""
    kind, slash, subtype = value.partition("/")
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&-^_.+")
    return bool(slash) and all(0 < len(part) <= 127 and set(part) <= allowed for part in (kind, subtype))


def _check(message: Message) -> None:
    """Check the types and bounds of the fields that JSON leaves open."""
    for f in fields(message):
        value = getattr(message, f.name)
        if f.name in _STRINGS and not (isinstance(value, str) and len(value) <= MAX_TEXT_CHARS):
            raise WireError(f"{message.TYPE}.{f.name} must be a string of at most {MAX_TEXT_CHARS} characters")
        if f.name in _INTEGERS and (not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63):
            raise WireError(f"{message.TYPE}.{f.name} must be an integer")
        if f.name in _NUMBERS and not _is_number(value):
            raise WireError(f"{message.TYPE}.{f.name} must be a number")
        if f.name in _BOOLEANS and not isinstance(value, bool):
            raise WireError(f"{message.TYPE}.{f.name} must be true or false")
    if isinstance(message, Progress):
        if message.total is not None and not _is_number(message.total):
            raise WireError("progress.total must be a number or null")
        if message.message is not None and not (isinstance(message.message, str) and len(message.message) <= 1000):
            raise WireError("progress.message must be a string of at most 1,000 characters or null")
    if isinstance(message, Failed) and message.code not in FAILURE_CODES:
        raise WireError(f"a guest may not report the code {message.code[:80]!r}")
    if isinstance(message, Described) and not isinstance(message.skill, dict):
        raise WireError("described.skill must be an object")
    if isinstance(message, Run | Rehearse) and message.document_size < 0:
        raise WireError(f"{message.TYPE}.document_size must not be negative")


def _is_number(value: object) -> bool:
    """Whether `value` is a number that a float can hold; JSON's integers are unbounded."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2.0**1023


_STRINGS = frozenset({"entropy", "marker", "hostname", "kernel", "python", "tool", "text", "code", "traceback"})
_INTEGERS = frozenset({"realtime_ns", "status", "oom_kills", "document_size"})
_NUMBERS = frozenset({"import_s", "warmup_s", "progress"})
_BOOLEANS = frozenset({"has_data", "is_error"})
