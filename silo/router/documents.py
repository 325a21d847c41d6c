"""A tool as the router reads it: cleaned texts by field, each with a weight; and a digest of it all. No terms, no ranking."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from silo.model import Tool
from silo.router.hygiene import clean, neutral
from silo.schema.walk import entries, properties


@dataclass(frozen=True)
class SkillAbout:
    """What is said of a skill as a whole, and counts for each of its tools."""

    description: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """What there is to rank a tool by, as it was written; `texts` cleans it.

    Attributes:
        id: unique among what is ranked together.
        group: the skill's name.
        schema: JSON Schema of the arguments; names, descriptions and enumerated values are read.
        examples: requests that this tool, and no other, answers.
    """

    id: str
    name: str
    description: str = ""
    title: str = ""
    group: str = ""
    group_description: str = ""
    schema: Mapping[str, Any] | None = None
    tags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Field:
    """One kind of text.

    Attributes:
        weight: how much a word in it counts.
        b: how much its length takes from that, from 0 to 1.
        length: how many terms it has in an ordinary tool. A constant, not the mean of the catalogue: so a tool's scores do not
            depend on which other tools there are, and adding or hiding one recomputes nothing.
        chars: how much of it is read.
    """

    name: str
    weight: float
    b: float
    length: float
    chars: int


FIELDS = (
    Field("name", 3.0, 0.6, 3, 200),
    Field("group", 1.0, 0.6, 3, 200),
    Field("title", 1.0, 0.3, 4, 200),
    Field("description", 1.0, 0.65, 12, 2000),
    Field("parameter names", 0.6, 0.5, 6, 1000),
    Field("parameters", 0.6, 0.65, 30, 4000),
    Field("tags", 1.0, 0.3, 4, 300),
    Field("group description", 0.3, 0.65, 12, 600),
    Field("examples", 0.6, 0.65, 20, 3000),
)
"""Weights and length normalisation that served four public sets of tools best; changes of a third hardly show."""

NAME, GROUP, TITLE, DESCRIPTION, PARAMETER_NAMES, PARAMETERS, TAGS, GROUP_DESCRIPTION, EXAMPLES = range(len(FIELDS))

MAX_EXAMPLES = 10
"""Examples of one tool that are read; gains flatten there, and an author shall not buy rank with the eleventh."""

MAX_EXAMPLE_CHARS = 300


def document(tool: Tool, *, about: SkillAbout | None = None, examples: Sequence[str] = ()) -> Document:
    """Return what there is to rank a tool by."""
    about = about or SkillAbout()
    return Document(
        id=tool.id,
        name=tool.name,
        description=tool.description,
        title=tool.hints.title or "",
        group=tool.skill,
        group_description=about.description,
        schema=tool.input_schema,
        tags=about.tags,
        examples=tuple(examples),
    )


def texts(document: Document) -> tuple[str, ...]:
    """Return the cleaned text of each of `FIELDS`, without what instructs the model."""
    parameters = properties(document.schema or {})
    examples = [clean(example, limit=MAX_EXAMPLE_CHARS) for example in document.examples[:MAX_EXAMPLES]]
    raw = (
        document.name,
        document.group,
        document.title,
        document.description,
        " ".join(str(name) for name in parameters),
        " ".join(_words(parameters)),
        " ".join(document.tags),
        document.group_description,
        "\n".join(examples),
    )
    return tuple(
        neutral(clean(text, limit=field.chars)) if text else "" for field, text in zip(FIELDS, raw, strict=True)
    )


def digest(document: Document) -> bytes:
    """Return 16 bytes that change with anything that is ranked."""
    content = [
        document.id,
        document.name,
        document.description,
        document.title,
        document.group,
        document.group_description,
        document.schema,
        document.tags,
        document.examples,
    ]
    # Lone surrogates can come with a stranger's JSON; they are escaped here, and invisible to the ranking.
    return hashlib.blake2b(json.dumps(content, default=_plain).encode(), digest_size=16).digest()


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else repr(value)


def _words(schemas: Mapping[str, Any]) -> Iterator[str]:
    """Yield descriptions, titles and enumerated values anywhere in schemas; deep ones are not followed to their end."""
    for key, value in entries(schemas, max_depth=_MAX_DEPTH, max_items=_MAX_ITEMS, closed=frozenset({"enum"})):
        if key in {"description", "title"} and isinstance(value, str):
            yield value
        elif key == "enum" and isinstance(value, list):
            yield from (item for item in value[:_MAX_ITEMS] if isinstance(item, str))


_MAX_DEPTH = 12
_MAX_ITEMS = 50
