"""The messages between host and guest, as dataclasses, and the one table of what each may contain.

`MESSAGES` has the type, range and size of every field, in both directions. The parser checks messages by it, the tests
are generated from it, and so is the table of `docs/reference/wire.md`. `silo.wire.strict_json` parses the JSON.

Two channels carry frames (`silo.wire.frames`): *control*, between the host and the guest's first process, and *call*,
between the host and the process that runs the skill. `docs/reference/wire.md` has their order. This module does no I/O.

Control: host sends `Hold` (answered by `Held`) and `Resume`; guest sends `Booted`, `Exited`.
Call: guest sends `Described` or `Failed` once the skill is imported; host sends `Rehearse` (answered by `Rehearsed`)
any number of times, then one `Run` followed by the blobs of its document and files; guest sends `Progress` any number
of times, then `Finished` followed by the blobs of its files, or `Failed`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Final

from silo.wire.frames import JSON, MAX_JSON_BYTES, WireError, encode
from silo.wire.rules import AnyObject, AnyValue, Files, Flag, Maybe, Number, OneOf, Rule, Text, Whole
from silo.wire.strict_json import WINDOW_BYTES, Steps, finish, steps_to_fields
from silo.wire.strict_json import Json as Json

MAX_FILES = 32
"""The most files of a call, and of a result."""

MAX_TEXT_CHARS = 4 * 1024 * 1024
MAX_PROGRESS_CHARS = 1000
MAX_FAILURE_CHARS = 4000
MAX_TRACEBACK_CHARS = 17_000
"""A little more than `silo.sdk.tracebacks` sends, with a mark where it was cut."""

MAX_CONTROL_BYTES = 4 * 1024
"""The longest payload on the control channel."""

MAX_DESCRIPTION_BYTES = 2 * 1024 * 1024
"""The longest description of a skill: its manual, and up to 128 tools with their schemas."""


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

    The document is the JSON object `{"arguments": {...}, "secrets": {...}, "files": [...]}`, which the skill finds on
    its STDIN. Each entry of `files` is the way to the place of a file among the arguments.

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
        message: one line, for the caller.
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

FILE_MARK: Final = "x-silo-file"
"""Marks the schema of a file, so that the host can put the file in the place of the agent's value."""

Message = Hold | Held | Resume | Booted | Exited | Described | Rehearse | Rehearsed | Run | Progress | Finished | Failed


class Sender(StrEnum):
    """Who sends a message."""

    HOST = "host"
    INIT = "init"
    RUNNER = "runner"


@dataclass(frozen=True)
class Form:
    """What a message may contain.

    Attributes:
        sender: who may send it. On the host, each channel has one sender: the other end.
        longest: how many bytes its payload may have.
        rules: the rule of each field. A field with a default may be left out.
    """

    sender: Sender
    longest: int
    rules: Mapping[str, Rule]


_HEX = "[0-9a-f]*"
_SECONDS = Number(0, 1e9)
_DOCUMENT_BYTES = Whole(0, 2**30)
"""Arguments have at most 1 MiB, and secrets can be longer; a guest has less memory than this."""

_SMALL_BYTES = 8 * 1024
"""For texts of at most 1,000 characters, each of which may be an escape of six bytes."""

MESSAGES: Final[Mapping[type[Any], Form]] = MappingProxyType(
    {
        Booted: Form(
            Sender.INIT,
            MAX_CONTROL_BYTES,
            {"kernel": Text(128, is_printable=True), "python": Text(32, is_printable=True)},
        ),
        Hold: Form(Sender.HOST, MAX_CONTROL_BYTES, {}),
        Held: Form(Sender.INIT, MAX_CONTROL_BYTES, {"realtime_ns": Whole(0, 2**63 - 1)}),
        Exited: Form(Sender.INIT, MAX_CONTROL_BYTES, {"status": Whole(-255, 255), "oom_kills": Whole(0, 2**31 - 1)}),
        Resume: Form(
            Sender.HOST,
            MAX_CONTROL_BYTES,
            {
                "entropy": Text(128, 128, pattern=(_HEX, "hex digits")),
                "realtime_ns": Whole(0, 2**63 - 1),
                "hostname": Text(64, 1, is_printable=True),
            },
        ),
        Described: Form(
            Sender.RUNNER, MAX_DESCRIPTION_BYTES, {"skill": AnyObject(), "import_s": _SECONDS, "warmup_s": _SECONDS}
        ),
        Rehearse: Form(Sender.HOST, _SMALL_BYTES, {"document_size": _DOCUMENT_BYTES}),
        Rehearsed: Form(Sender.RUNNER, _SMALL_BYTES, {}),
        Run: Form(
            Sender.HOST,
            64 * 1024,
            {
                "tool": Text(255, 1, is_printable=True),
                "document_size": _DOCUMENT_BYTES,
                "marker": Text(64, 1, pattern=(_HEX, "hex digits")),
                "files": Files(MAX_FILES),
            },
        ),
        Progress: Form(
            Sender.RUNNER,
            _SMALL_BYTES,
            {"progress": Number(), "total": Maybe(Number()), "message": Maybe(Text(MAX_PROGRESS_CHARS))},
        ),
        Finished: Form(
            Sender.RUNNER,
            MAX_JSON_BYTES,
            {
                "text": Text(MAX_TEXT_CHARS),
                "data": AnyValue(),
                "has_data": Flag(),
                "files": Files(MAX_FILES),
                "is_error": Flag(),
            },
        ),
        Failed: Form(
            Sender.RUNNER,
            128 * 1024,
            {
                "code": OneOf(FAILURE_CODES),
                "message": Text(MAX_FAILURE_CHARS),
                "traceback": Text(MAX_TRACEBACK_CHARS),
            },
        ),
    }
)
"""Every message of the wire, and what it may contain."""

_TYPES: Final[Mapping[str, type[Any]]] = MappingProxyType({kind.TYPE: kind for kind in MESSAGES})

_REQUIRED: Final[Mapping[type[Any], frozenset[str]]] = MappingProxyType(
    {kind: frozenset(f.name for f in fields(kind) if f.default is MISSING) for kind in MESSAGES}
)


# --- encoding and decoding --------------------------------------------------------------------------------------------

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode


@dataclass(frozen=True)
class Received:
    """A message of the other end, checked.

    Attributes:
        message: the message.
        sizes: bytes of each field: of a string in UTF-8, of everything else as it was in JSON.
    """

    message: Message
    sizes: Mapping[str, int]


def encode_message(message: Message) -> bytes:
    """Return the frame for `message`. Checks no rule but that of its length: the receiver checks them all.

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
    longest = MESSAGES[type(message)].longest
    if len(payload) > longest:
        raise WireError(_too_long(message.TYPE, longest, len(payload)))
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
    """Parse a short message at once; raises as `steps_to_message`."""
    return finish(steps_to_message(payload)).message


def steps_to_message(payload: bytes, sender: Sender | None = None) -> Steps[Received]:
    """Parse the payload of a JSON frame, in steps of bounded work (see `silo.wire.strict_json`).

    Args:
        payload: the payload.
        sender: who is at the other end, if only its messages are expected.

    Raises:
        WireError: the payload is not strict JSON, has more values or nests deeper than `silo.wire.strict_json` allows,
            or is not a message that `MESSAGES` describes and this sender may send.
    """
    body, sizes = yield from steps_to_fields(payload)
    name = body.pop("type", None)
    kind = _TYPES.get(name) if type(name) is str else None
    if kind is None:
        raise WireError(f"the field 'type' must be one of {', '.join(sorted(_TYPES))}")
    form = MESSAGES[kind]
    if sender is not None and form.sender is not sender:
        raise WireError(f"a {kind.TYPE} message comes from the {form.sender}, not from the {sender}")
    if len(payload) > form.longest:
        raise WireError(_too_long(kind.TYPE, form.longest, len(payload)))
    _check(kind.TYPE, body, form.rules, _REQUIRED[kind])
    for key, value in body.items():
        if type(value) is str:
            sizes[key] = yield from _steps_to_size(value)
    if "files" in body:
        body["files"] = tuple(FileHead(**head) for head in body["files"])
    return Received(kind(**body), sizes)


def _steps_to_size(text: str) -> Steps[int]:
    """Return how many bytes a text has in UTF-8."""
    if text.isascii():
        return len(text)
    size = 0
    for start in range(0, len(text), WINDOW_BYTES):
        size += len(text[start : start + WINDOW_BYTES].encode())
        if start:
            yield
    return size


def check(message: Message) -> None:
    """Check a message that is about to be sent.

    Raises:
        WireError: it is not what `MESSAGES` describes.
    """
    body = dict(vars(message))
    if "files" in body:
        body["files"] = [vars(head) for head in body["files"]]
    _check(message.TYPE, body, MESSAGES[type(message)].rules, frozenset(body))


def _check(name: str, body: Mapping[str, Json], rules: Mapping[str, Rule], required: frozenset[str]) -> None:
    if not body.keys() <= rules.keys():
        raise WireError(f"a {name} message has an unknown field")
    if missing := sorted(required - body.keys()):
        raise WireError(f"a {name} message lacks the field '{missing[0]}'")
    for key, value in body.items():
        if not rules[key].allows(value):
            raise WireError(f"the field '{key}' of '{name}' must be {rules[key]}, not {_shown(value)}")


def _shown(value: Json) -> str:
    """Say what a value is, without its content, which may hold a secret."""
    if value is None or type(value) is bool:
        return json.dumps(value)
    if type(value) in (int, float):
        return f"a number with {len(str(value))} characters" if abs(value) >= 2**63 else str(value)
    if type(value) is str:
        return f"a string of {len(value):,} characters"
    return f"a list of {len(value):,}" if type(value) is list else "an object"


def _too_long(name: str, longest: int, length: int) -> str:
    return f"a {name} message may have {longest:,} bytes, not {length:,}"
