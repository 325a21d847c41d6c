"""The texts of a tool that are ranked: cleaned, by field, each field with a weight; and their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from silo.model import Tool
from silo.router.cleaning import clean, without_instructions
from silo.schema.walk import entries, properties


@dataclass(frozen=True)
class SkillAbout:
    """The texts about a whole skill, which count for each of its tools."""

    description: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ToolDocument:
    """The original texts by which a tool is ranked; `texts` cleans them.

    Attributes:
        id: unique among the documents that are ranked together.
        group: the skill's name.
        schema: JSON Schema of the arguments; names, descriptions and enumerated values are used.
        examples: requests that only this tool answers.
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
class TextField:
    """One kind of text.

    Attributes:
        weight: how much a word in it counts.
        b: how much its length reduces that weight, from 0 to 1.
        length: how many terms it has in an ordinary tool. A constant, not the mean of the catalogue: a tool's scores do
            not depend on other tools, and adding or hiding one recomputes nothing.
        chars: how many characters of it are read.
    """

    name: str
    weight: float
    b: float
    length: float
    chars: int


FIELDS = (
    TextField("name", 3.0, 0.6, 3, 200),
    TextField("group", 1.0, 0.6, 3, 200),
    TextField("title", 1.0, 0.3, 4, 200),
    TextField("description", 1.0, 0.65, 12, 2000),
    TextField("parameter names", 0.6, 0.5, 6, 1000),
    TextField("parameters", 0.6, 0.65, 30, 4000),
    TextField("tags", 1.0, 0.3, 4, 300),
    TextField("group description", 0.3, 0.65, 12, 600),
    TextField("examples", 0.6, 0.65, 20, 3000),
)
"""The weights and length normalisation that worked best on four public sets of tools; a third more hardly matters."""

NAME, GROUP, TITLE, DESCRIPTION, PARAMETER_NAMES, PARAMETERS, TAGS, GROUP_DESCRIPTION, EXAMPLES = range(len(FIELDS))

MAX_EXAMPLES = 10
"""How many examples of a tool are read; more hardly improve the search, and must not buy an author a better rank."""

MAX_EXAMPLE_CHARS = 300


def document(tool: Tool, *, about: SkillAbout | None = None, examples: Sequence[str] = ()) -> ToolDocument:
    """Return the texts by which a tool is ranked."""
    about = about or SkillAbout()
    return ToolDocument(
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


def texts(document: ToolDocument) -> tuple[str, ...]:
    """Return the cleaned text of each of `FIELDS`, without phrases that instruct the model."""
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
        without_instructions(clean(text, limit=field.chars)) if text else ""
        for field, text in zip(FIELDS, raw, strict=True)
    )


def digest(document: ToolDocument) -> bytes:
    """Return 16 bytes that change with any of the texts."""
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
    # Untrusted JSON can have lone surrogates; they are escaped here, and the ranking ignores them.
    return hashlib.blake2b(json.dumps(content, default=_plain).encode(), digest_size=16).digest()


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else repr(value)


def _words(schemas: Mapping[str, Any]) -> Iterator[str]:
    """Yield descriptions, titles and enumerated values anywhere in schemas, to a limited depth."""
    for key, value in entries(schemas, max_depth=_MAX_DEPTH, max_items=_MAX_ITEMS, closed=frozenset({"enum"})):
        if key in {"description", "title"} and isinstance(value, str):
            yield value
        elif key == "enum" and isinstance(value, list):
            yield from (item for item in value[:_MAX_ITEMS] if isinstance(item, str))


_MAX_DEPTH = 12
_MAX_ITEMS = 50
