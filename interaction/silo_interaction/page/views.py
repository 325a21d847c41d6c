"""Prepare questions for the templates: complete, with every unusual character spelt out. Pure.

The templates make all of the HTML. Text is passed on as segments that they escape one by one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from silo_interaction.board import PostedQuestion, QuestionState
from silo_interaction.question import Json, WantedSecret
from silo_interaction.visible import visible, visible_lines

_LONG_CHARS, _LONG_LINES = 800, 12
"""A longer value gets a region that scrolls and a search box; about what fits on a screen beside the rest."""

_PREVIEW_CHARS = 100
"""Enough to tell two similar questions apart. To decide, a person opens the page that shows the whole question."""


@dataclass(frozen=True)
class Segment:
    """A piece of text; `is_spelt` if it spells out characters that can't be seen."""

    text: str
    is_spelt: bool


Line = tuple[Segment, ...]
Lines = tuple[Line, ...]


@dataclass(frozen=True)
class Argument:
    """An argument of the call, with its whole value.

    Attributes:
        name: as a line.
        label: the name as plain text.
        kind: how the value is shown: as text or as JSON.
        size: in words, and that everything is shown.
    """

    name: Line
    label: str
    kind: str
    lines: Lines
    size: str
    is_long: bool


@dataclass(frozen=True)
class QueueItem:
    """A question in the queue."""

    id: str
    title: Line
    who: Line
    danger: Lines
    asked: str
    expires_at: int
    left: str
    preview: Line
    arguments: str
    changes: str
    wants_secret: bool


@dataclass(frozen=True)
class Group:
    """Questions of one group, oldest first. `title` is empty for questions without a group."""

    title: Line
    items: tuple[QueueItem, ...]


@dataclass(frozen=True)
class WantedView:
    """A secret to type in, for the templates."""

    name: Line
    label: str
    description: Lines
    keeper: str


@dataclass(frozen=True)
class Detail:
    """One question with its whole text, for the templates."""

    id: str
    digest: str
    title: Line
    heading: str
    who: Line
    danger: Lines
    facts: tuple[tuple[Line, Lines], ...]
    arguments: tuple[Argument, ...]
    changes: tuple[Line, ...]
    grace: str
    asked: str
    expires: str
    expires_at: int
    left: str
    wanted: WantedView | None


@dataclass(frozen=True)
class EndedQuestion:
    """A question that no longer waits, and how it ended."""

    id: str
    title: Line
    heading: str
    text: str
    state: QuestionState
    reason: Line


def line(text: str) -> Line:
    """Return a text as one line, in which line breaks are spelt out."""
    return _segments(text, visible(text))


def lines(text: str) -> Lines:
    """Return a text as one or more lines."""
    return tuple(_segments(raw, shown) for raw, shown in zip(text.split("\n"), visible_lines(text), strict=True))


def in_queue_order(waiting: Sequence[PostedQuestion]) -> list[PostedQuestion]:
    """Return questions in the order of the queue: group by group, the group with the oldest question first."""
    groups: dict[str, list[PostedQuestion]] = {}
    for number, posted in enumerate(waiting):
        groups.setdefault(posted.question.group or f"\0{number}", []).append(posted)
    return [posted for group in groups.values() for posted in group]


def queue(waiting: Sequence[PostedQuestion], now: float) -> tuple[Group, ...]:
    """Return the queue. Questions without a group are in a group without a title."""
    groups: dict[str, list[QueueItem]] = {}
    for posted in in_queue_order(waiting):
        groups.setdefault(posted.question.group, []).append(_item(posted, now))
    return tuple(Group(line(name), tuple(items)) for name, items in groups.items())


def detail(posted: PostedQuestion, now: float) -> Detail:
    """Prepare one question with its whole text."""
    question = posted.question
    return Detail(
        id=posted.id,
        digest=posted.digest,
        title=line(question.title),
        heading=visible(question.title),
        who=line(question.who),
        danger=lines(question.danger) if question.danger else (),
        facts=tuple((line(label), lines(text)) for label, text in question.facts),
        arguments=tuple(_argument(name, value) for name, value in question.arguments),
        changes=tuple(line(text) for text in question.changes),
        grace=duration(question.grace_s) if question.grace_s > 0 else "",
        asked=_clock(posted.asked_at),
        expires=_clock(posted.expires_at),
        expires_at=int(posted.expires_at),
        left=duration(posted.expires_at - now),
        wanted=_wanted(question.wanted),
    )


def is_waiting(posted: PostedQuestion, now: float) -> bool:
    """Tell whether a question can still be answered; the board may not have noticed yet that it expired."""
    return posted.state == "waiting" and posted.expires_at > now


def ended(posted: PostedQuestion, now: float) -> EndedQuestion:
    """Describe how a question ended."""
    state: QuestionState = "expired" if posted.state == "waiting" and not is_waiting(posted, now) else posted.state
    wants_secret = posted.question.wanted is not None
    said: dict[QuestionState, str] = {
        "waiting": "is still waiting",
        "approved": "was handed over"
        if wants_secret
        else "was approved for a while"
        if posted.grace
        else "was approved once",
        "denied": "was not given" if wants_secret else "was denied",
        "expired": "was not answered in time",
        "withdrawn": "was withdrawn by the program that asked",
    }
    at = f" at {_clock(posted.decided_at)}" if posted.decided_at is not None else ""
    title = posted.question.title
    return EndedQuestion(posted.id, line(title), visible(title), said[state] + at, state, line(posted.reason))


def duration(seconds: float) -> str:
    """Return a time span in words, exact to the second below an hour."""
    whole = max(0, int(seconds))
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = [(hours, "hour"), (minutes, "minute"), (0 if hours else rest, "second")]
    words = [f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in parts if count]
    return " ".join(words) or "0 seconds"


def counted(number: int, thing: str) -> str:
    """Return `1 argument`, `1,024 arguments`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _segments(raw: str, shown: str) -> Line:
    """Split the output of `visible` into the parts that it left alone and the parts that it spelt out.

    A search for `<U+…>` would not do: untrusted text can contain that literally, and must not be marked as ours.
    `visible` works character by character, and what it spells out never starts with the character itself (`<` is
    visible), so the two texts can be compared side by side.
    """
    segments: list[Segment] = []
    at = start = 0
    was_spelt = False
    for character in raw:
        is_spelt = shown[at] != character
        if is_spelt != was_spelt and at > start:
            segments.append(Segment(shown[start:at], was_spelt))
            start = at
        was_spelt = is_spelt
        at += len(f"<U+{ord(character):04X}>") if is_spelt else 1
    return (*segments, Segment(shown[start:], was_spelt)) if shown[start:] else tuple(segments)


def _item(posted: PostedQuestion, now: float) -> QueueItem:
    question = posted.question
    return QueueItem(
        id=posted.id,
        title=line(question.title),
        who=line(question.who),
        danger=lines(question.danger) if question.danger else (),
        asked=_clock(posted.asked_at),
        expires_at=int(posted.expires_at),
        left=duration(posted.expires_at - now),
        preview=line(_preview(question.arguments)),
        arguments=counted(len(question.arguments), "argument") if question.arguments else "",
        changes=counted(len(question.changes), "change") if question.changes else "",
        wants_secret=question.wanted is not None,
    )


def _preview(arguments: Sequence[tuple[str, Json]]) -> str:
    """Return the start of the arguments, without reading more of a large one than is shown."""
    text = ""
    for name, value in arguments:
        text += f"{', ' if text else ''}{name[:_PREVIEW_CHARS]}: "
        start = value[:_PREVIEW_CHARS] if isinstance(value, str) else value
        for piece in json.JSONEncoder(ensure_ascii=False).iterencode(start):
            text += piece
            if len(text) > _PREVIEW_CHARS:
                return text[:_PREVIEW_CHARS] + "…"
    return text


def _argument(name: str, value: Json) -> Argument:
    # Text of several lines is shown as these lines, because as JSON it would be one unreadable line full of \n. The
    # kind is shown beside it, so that the text can't pass for JSON.
    is_text = isinstance(value, str) and "\n" in value
    text = value if isinstance(value, str) and is_text else json.dumps(value, ensure_ascii=False, indent=2)
    shown = lines(text)
    size = f"{counted(len(text), 'character')} in {counted(len(shown), 'line')}, all shown"
    kind = "text, as it is" if is_text else "JSON"
    is_long = len(text) > _LONG_CHARS or len(shown) > _LONG_LINES
    return Argument(line(name), visible(name), kind, shown, size, is_long)


def _wanted(wanted: WantedSecret | None) -> WantedView | None:
    if wanted is None:
        return None
    description = lines(wanted.description) if wanted.description else ()
    return WantedView(line(wanted.name), visible(wanted.name), description, visible(wanted.keeper))


def _clock(at: float) -> str:
    """Return the time of day in this machine's time zone, which is also the browser's."""
    return datetime.fromtimestamp(at, tz=UTC).astimezone().strftime("%H:%M:%S")
