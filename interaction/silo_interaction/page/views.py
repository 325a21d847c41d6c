"""From questions to what the templates show, with nothing left out and everything odd spelt out. Pure; HTML is the templates'.

Text goes out as segments that the templates escape one by one; nothing here makes markup.
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
"""From here on a value gets a region that scrolls and a search box: about what a screen holds beside the rest."""

_PREVIEW_CHARS = 100
"""Enough to tell two questions of a kind apart. Nobody decides by it: the buttons are where everything is shown."""


@dataclass(frozen=True)
class Segment:
    """A piece of text; `is_spelt` if it stands for characters that can't be seen."""

    text: str
    is_spelt: bool


Line = tuple[Segment, ...]
Lines = tuple[Line, ...]


@dataclass(frozen=True)
class Argument:
    """A value that will be used, whole.

    Attributes:
        name: as a line; `label` is the same as plain text.
        size: in words, and that nothing is missing.
    """

    name: Line
    label: str
    kind: str
    lines: Lines
    size: str
    is_long: bool


@dataclass(frozen=True)
class Item:
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
    wants: bool


@dataclass(frozen=True)
class Group:
    """Questions that are alike, oldest first. `title` is empty if they were given no name."""

    title: Line
    items: tuple[Item, ...]


@dataclass(frozen=True)
class WantedView:
    """A secret to type in."""

    name: Line
    label: str
    description: Lines
    keeper: str


@dataclass(frozen=True)
class Detail:
    """One question, whole."""

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
class Past:
    """What became of a question."""

    id: str
    title: Line
    heading: str
    text: str
    state: QuestionState
    reason: Line


def line(text: str) -> Line:
    """Return a text as one line: line breaks are spelt out, too."""
    return _segments(text, visible(text))


def lines(text: str) -> Lines:
    """Return a text as lines; at least one."""
    return tuple(_segments(raw, shown) for raw, shown in zip(text.split("\n"), visible_lines(text), strict=True))


def ordered(waiting: Sequence[PostedQuestion]) -> list[PostedQuestion]:
    """Return questions as the queue shows them: groups next to each other, by their oldest question."""
    groups: dict[str, list[PostedQuestion]] = {}
    for number, posted in enumerate(waiting):
        groups.setdefault(posted.question.group or f"\0{number}", []).append(posted)
    return [posted for group in groups.values() for posted in group]


def queue(waiting: Sequence[PostedQuestion], now: float) -> tuple[Group, ...]:
    """Return the queue. Questions without a group stand in one that has no title."""
    groups: dict[str, list[Item]] = {}
    for posted in ordered(waiting):
        groups.setdefault(posted.question.group, []).append(_item(posted, now))
    return tuple(Group(line(name), tuple(items)) for name, items in groups.items())


def detail(posted: PostedQuestion, now: float) -> Detail:
    """Return one question with all that it says."""
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


def waits(posted: PostedQuestion, now: float) -> bool:
    """Tell if a question can still be answered; the board may not have noticed yet that its time is over."""
    return posted.state == "waiting" and posted.expires_at > now


def past(posted: PostedQuestion, now: float) -> Past:
    """Return what became of a question."""
    state: QuestionState = "expired" if posted.state == "waiting" and not waits(posted, now) else posted.state
    wants = posted.question.wanted is not None
    said: dict[QuestionState, str] = {
        "waiting": "is still waiting",
        "approved": "was handed over" if wants else "was approved for a while" if posted.grace else "was approved once",
        "denied": "was not given" if wants else "was denied",
        "expired": "was not answered in time",
        "withdrawn": "was withdrawn by whoever asked",
    }
    at = f" at {_clock(posted.decided_at)}" if posted.decided_at is not None else ""
    title = posted.question.title
    return Past(posted.id, line(title), visible(title), said[state] + at, state, line(posted.reason))


def duration(seconds: float) -> str:
    """Return a time span in words, to the second below an hour."""
    whole = max(0, int(seconds))
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = [(hours, "hour"), (minutes, "minute"), (0 if hours else rest, "second")]
    words = [f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in parts if count]
    return " ".join(words) or "0 seconds"


def count(number: int, thing: str) -> str:
    """Return `1 argument`, `1,024 arguments`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _segments(raw: str, shown: str) -> Line:
    """Split what `visible` made of a text into what it left alone and what it spelt out.

    Not by looking for `<U+…>` in it: a stranger can write that, too, and it must not look as if we had. `visible` goes character by
    character, and a spelt one never begins with itself (`<` can be seen), so the two texts can be read side by side.
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


def _item(posted: PostedQuestion, now: float) -> Item:
    question = posted.question
    return Item(
        id=posted.id,
        title=line(question.title),
        who=line(question.who),
        danger=lines(question.danger) if question.danger else (),
        asked=_clock(posted.asked_at),
        expires_at=int(posted.expires_at),
        left=duration(posted.expires_at - now),
        preview=line(_preview(question.arguments)),
        arguments=count(len(question.arguments), "argument") if question.arguments else "",
        changes=count(len(question.changes), "change") if question.changes else "",
        wants=question.wanted is not None,
    )


def _preview(arguments: Sequence[tuple[str, Json]]) -> str:
    """Return how the arguments begin; of a large one no more is looked at than is shown."""
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
    # A text of several lines is shown as these lines: as JSON it would be one line full of \n that nobody reads. What it is stands
    # beside it, so that it can't pass for JSON.
    is_text = isinstance(value, str) and "\n" in value
    text = value if isinstance(value, str) and is_text else json.dumps(value, ensure_ascii=False, indent=2)
    shown = lines(text)
    size = f"{count(len(text), 'character')} in {count(len(shown), 'line')}, all shown"
    kind = "text, as it is" if is_text else "JSON"
    is_long = len(text) > _LONG_CHARS or len(shown) > _LONG_LINES
    return Argument(line(name), visible(name), kind, shown, size, is_long)


def _wanted(wanted: WantedSecret | None) -> WantedView | None:
    if wanted is None:
        return None
    description = lines(wanted.description) if wanted.description else ()
    return WantedView(line(wanted.name), visible(wanted.name), description, visible(wanted.keeper))


def _clock(at: float) -> str:
    """Return a time of day: the browser is on this machine, and so in its time zone."""
    return datetime.fromtimestamp(at, tz=UTC).astimezone().strftime("%H:%M:%S")
