"""Turn a skill's description of itself, from inside a guest, into tools; strictly, because the guest may be hostile.

The header is the upper limit: a decorator that asks for more is refused, never reduced silently. `silo.sdk.describe`
makes the description; `silo.catalog.schema_rules` has the rules for schemas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from silo.catalog.hidden_characters import show_hidden
from silo.catalog.schema_rules import check_schema
from silo.errors import SkillMetadataInvalid
from silo.model import SkillHeader, Tool, ToolHints
from silo.names import suggestion

MAX_TOOLS: Final = 128
MAX_DESCRIPTION_CHARS: Final = 8 * 1024
MAX_TITLE_CHARS: Final = 200
MAX_INSTRUCTIONS_CHARS: Final = 64 * 1024
MAX_TIME_TO_LIVE_S: Final = 24 * 60 * 60
"""Nobody remembers an approval that was given longer ago."""

_TOOL_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")

_SKILL_KEYS = frozenset({"namespace", "summary", "instructions", "tools"})
_TOOL_KEYS = frozenset(
    {"name", "description", "input_schema", "output_schema", "require_approval", "time_to_live", "secrets", "network"}
    | {"title", "read_only", "destructive", "idempotent"}
)


@dataclass(frozen=True)
class Metadata:
    """The description of a skill, checked.

    Attributes:
        tools: sorted by name.
        summary: the script's docstring.
        instructions: the manual that `@skill.instructions()` returned, or None.
    """

    tools: tuple[Tool, ...]
    summary: str
    instructions: str | None


def read_metadata(said: Mapping[str, Any], header: SkillHeader) -> Metadata:
    """Check a description, from `silo.sandbox.skill.base.Description.skill`, against the header.

    Hidden characters in texts are made visible, so that a person who agrees and a model see the same text.

    Raises:
        SkillMetadataInvalid: a key is missing or unknown, a value has the wrong type or is too large, a name or schema
            is not allowed, the namespace is not the header's, a tool asks for more than the header grants, or the
            header has examples for a tool that does not exist.
    """
    reader = _MetadataReader(header)
    reader.keys(said, _SKILL_KEYS, "the skill")
    if said["namespace"] != header.namespace:
        raise reader.bad(
            f"the script calls itself {_shown(said['namespace'])}, its header '{header.namespace}'",
            hint=f"write Skill(\"{header.namespace}\"), or change 'namespace' in the header",
        )
    tools = said["tools"]
    if not isinstance(tools, list) or not tools:
        raise reader.bad("it has no tool", hint="put @skill.tool() over a function")
    if len(tools) > MAX_TOOLS:
        raise reader.bad(f"it has {len(tools)} tools, more than {MAX_TOOLS}", hint="split it into several skills")
    found: dict[str, Tool] = {}
    for one in tools:
        tool = reader.tool(one)
        if tool.name in found:
            raise reader.bad(f"it has two tools '{tool.name}'", hint="rename one of them")
        found[tool.name] = tool
    for name in header.examples:
        if name not in found:
            raise reader.bad(
                f"its header has examples for a tool {_shown(name)}, which it does not have",
                hint=suggestion(name, found, otherwise=f"take [tool.silo.tools.{name}] out of the header"),
            )
    return Metadata(
        tools=tuple(found[name] for name in sorted(found)),
        summary=reader.text(said, "summary", MAX_DESCRIPTION_CHARS, "the skill"),
        instructions=reader.optional_text(said, "instructions", MAX_INSTRUCTIONS_CHARS, "the skill"),
    )


class _MetadataReader:
    """Reads one skill's description, and raises errors with the skill's name."""

    def __init__(self, header: SkillHeader) -> None:
        self._header = header

    def bad(self, what: str, *, hint: str = "correct the script and install it again") -> SkillMetadataInvalid:
        return SkillMetadataInvalid(f"skill '{self._header.namespace}': {what}", hint=hint)

    def keys(self, said: object, known: frozenset[str], where: str) -> None:
        if not isinstance(said, Mapping) or said.keys() != known:
            raise self.bad(
                f"{where} does not describe itself as silo's SDK would",
                hint="describe tools with `from silo import Skill` alone; was the SDK changed by the script?",
            )

    def tool(self, said: object) -> Tool:
        self.keys(said, _TOOL_KEYS, "a tool")
        assert isinstance(said, Mapping)
        name = said["name"]
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
            raise self.bad(
                f"the tool's name {_shown(name)} is not allowed",
                hint="a name is 1 to 64 characters of a-z, 0-9 and '_', and starts with a letter",
            )
        where = f"tool '{name}'"
        output = said["output_schema"]
        self._subset(said["network"], self._header.network, "network", where)
        return Tool(
            skill=self._header.namespace,
            name=name,
            description=self.text(said, "description", MAX_DESCRIPTION_CHARS, where),
            input_schema=self._schema(said["input_schema"], "arguments", where),
            output_schema=None if output is None else self._schema(output, "result", where),
            # A decorator can add approval to what the header requires, never remove it.
            require_approval=self._flag(said, "require_approval", where) or self._header.require_approval,
            time_to_live_s=self._time_to_live(said["time_to_live"], where),
            secrets=self._subset(said["secrets"], tuple(self._header.secrets), "secrets", where),
            timeout_s=self._header.timeout_s,
            hints=ToolHints(
                title=self.optional_text(said, "title", MAX_TITLE_CHARS, where),
                read_only=self._optional_flag(said, "read_only", where),
                destructive=self._optional_flag(said, "destructive", where),
                idempotent=self._optional_flag(said, "idempotent", where),
            ),
        )

    def text(self, said: Mapping[str, Any], key: str, limit: int, where: str) -> str:
        value = said[key]
        if not isinstance(value, str):
            raise self.bad(f"{where}: '{key}' is not a text")
        if len(value) > limit:
            raise self.bad(f"{where}: '{key}' has more than {limit} characters", hint="shorten it")
        return show_hidden(value)

    def optional_text(self, said: Mapping[str, Any], key: str, limit: int, where: str) -> str | None:
        return None if said[key] is None else self.text(said, key, limit, where)

    def _flag(self, said: Mapping[str, Any], key: str, where: str) -> bool:
        value = said[key]
        if not isinstance(value, bool):
            raise self.bad(f"{where}: '{key}' is neither true nor false")
        return value

    def _optional_flag(self, said: Mapping[str, Any], key: str, where: str) -> bool | None:
        return None if said[key] is None else self._flag(said, key, where)

    def _time_to_live(self, value: object, where: str) -> int:
        if type(value) is not int or not 0 <= value <= MAX_TIME_TO_LIVE_S:
            raise self.bad(f"{where}: 'time_to_live' is not a number of seconds between 0 and {MAX_TIME_TO_LIVE_S}")
        return value

    def _subset(self, value: object, granted: tuple[str, ...], key: str, where: str) -> tuple[str, ...]:
        """Return the names that a tool asks for, each of which the header must grant; None asks for all."""
        if value is None:
            return tuple(sorted(granted))
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.bad(f"{where}: '{key}' is not a list of names")
        for one in value:
            if one not in granted:
                table = "[tool.silo.secrets]" if key == "secrets" else f"'{key}' of [tool.silo]"
                raise self.bad(
                    f"{where} asks for {_shown(one)}, which {table} in the header does not grant",
                    hint=suggestion(one, granted, otherwise="add it to the header, or take it from the decorator"),
                )
        return tuple(sorted(set(value)))

    def _schema(self, value: object, of: str, where: str) -> dict[str, Any]:
        try:
            return check_schema(value, of_arguments=of == "arguments")
        except (ValueError, RecursionError) as error:
            raise self.bad(
                f"{where}: the schema of its {of} is refused: {error}",
                hint="change the annotations that it was made from",
            ) from error


def _shown(value: object) -> str:
    return repr(show_hidden(str(value))[:100])
