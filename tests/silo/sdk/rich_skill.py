"""A skill that uses all that a tool's signature can say; `golden/rich.json` is its description."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, Required, TypedDict
from uuid import UUID

from silo import AgentResponse, File, Length, Pattern, Range, Skill

skill = Skill("rich")

UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


class Point(NamedTuple):
    x: float
    y: float = 0.0


@dataclass(frozen=True)
class Item:
    """One line of an order.

    Attributes:
        name: what is sold.
        price: in euros, for one.
    """

    name: str
    price: Decimal
    amount: Annotated[int, Range(ge=1, le=99)] = 1
    tags: list[str] = field(default_factory=list)


@dataclass
class Node:
    value: int
    children: list[Node] = field(default_factory=list)


class Options(TypedDict, total=False):
    """How to sort."""

    key: Required[str]
    reverse: bool


class Filter(TypedDict):
    field: str
    limit: NotRequired[int]


class Report(TypedDict):
    total: Decimal
    by_day: dict[str, int]


@skill.tool(require_approval=True, time_to_live=60, secrets=["API_KEY"], network=["api.example.org"], title="All of it")
def everything(
    text: str,
    number: int,
    ratio: float,
    flag: bool,
    nothing: None,
    anything: Any,
    bare,  # a parameter without annotation is the case
    names: list[str],
    unique: set[int],
    pair: tuple[str, int],
    row: tuple[float, ...],
    table: dict[str, list[int]],
    by_mood: dict[Mood, int],
    choice: Literal["a", "b", 3],
    colour: Colour,
    level: Level,
    maybe: str | None,
    either: int | str | list[int],
    item: Item,
    items: list[Item],
    tree: Node,
    options: Options,
    filter: Filter,  # noqa: A002
    point: Point,
    user: UserId,
    when: datetime,
    day: date,
    at: time,
    key: UUID,
    amount: Decimal,
    where: Path,
    document: File,
    raw: bytes | None,
    attachments: list[File],
    limit: Annotated[int, "How many at most.", Range(ge=1, le=100)] = 20,
    code: Annotated[str, Pattern("^[A-Z]{3}$"), Length(3, 3)] = "EUR",
    few: Annotated[list[str] | None, Length(max_length=5)] = None,
    mood: Mood = Mood.GOOD,
    start: date = date(2024, 2, 29),
    nodefault: int = None,  # type: ignore[assignment]  # noqa: RUF013
) -> Report:
    """Take everything.

    Longer text,
    on two lines.

    Args:
        text: any text
            that goes on here.
        number (int): a number.
        limit: loses against Annotated.
        document: what to read.

    Returns:
        A report.
    """
    raise NotImplementedError


@skill.tool
async def plain() -> str:
    """Say hello."""
    return "hello"


@skill.tool(name="chart", read_only=True, destructive=False, idempotent=True, secrets=())
def make_chart(points: list[Point]) -> File:
    """Draw.

    Parameters
    ----------
    points : list of Point
        Where the
        line goes.
    """
    raise NotImplementedError


@skill.tool()
def respond(node: Node | None = None) -> AgentResponse:
    """Respond.

    :param node: a tree
    :type node: Node
    :return: something
    """
    raise NotImplementedError


@skill.tool()
def tree() -> Node:
    return Node(1)


@skill.tool()
def rows() -> list[tuple[str, int | None]]:
    return []


@skill.instructions()
def manual() -> str:
    return "# How to use it\n"
