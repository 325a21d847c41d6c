"""One rule, and whether it applies to a call. `silo.policy.evaluate` combines the rules into a decision."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from silo.model import Caller, Tool
from silo.policy.patterns import Arguments, Glob, any_mismatch, is_unknown, whole_mismatch

Verdict = Literal["allow", "ask", "deny"]
CallerKind = Literal["cli", "mcp", "library"]

CALLERS: tuple[CallerKind, ...] = ("cli", "mcp", "library")


@dataclass(frozen=True)
class Rule:
    """One of the user's rules about calls.

    Attributes:
        name: its place in the configuration, e.g. `silo.toml rule 2`.
        tools: patterns for the tool's id; one must match.
        arguments: patterns by dotted path; each argument must match one of its patterns.
        callers: the kinds of caller to which the rule applies.
        reason: for a person and for the agent; may be empty.
    """

    name: str
    verdict: Verdict
    tools: tuple[Glob, ...]
    arguments: Mapping[str, tuple[Glob, ...]] = field(default_factory=dict)
    callers: tuple[CallerKind, ...] = CALLERS
    reason: str = ""

    def names(self, tool: Tool) -> bool:
        """Whether the rule is about this tool, whatever the arguments."""
        return any(glob.matches(tool.id) for glob in self.tools)

    def mismatch(self, arguments: Arguments, caller: Caller) -> str | None:
        """Return why the rule does not apply to a call of a tool that it names, or None if it applies.

        Args:
            arguments: as the tool gets them, defaults included.
            caller: who makes the call.
        """
        if caller.kind not in self.callers:
            return f"it is for {_listed(self.callers)}, and this call comes through {caller.kind}"
        compare = whole_mismatch if self.verdict == "allow" else any_mismatch
        for path, globs in self.arguments.items():
            why = compare(arguments, path, globs)
            if why is not None:
                return why
        return None

    def assumed(self, arguments: Arguments) -> tuple[str, ...]:
        """Return the arguments that the rule looks at and whose values are not known, as `is_unknown` has it.

        A rule that denies or asks applies to them, a rule that allows doesn't.
        """
        return tuple(path for path in self.arguments if is_unknown(arguments, path))


def tool_glob(text: str) -> Glob:
    """Return a pattern for ids of tools.

    Raises:
        ValueError: no possible id matches, so the rule would have no effect.
    """
    if not _TOOL_PATTERN.fullmatch(text):
        raise ValueError(f"{text[:80]!r} isn't a pattern for tools: a-z, 0-9, '_', one dot, '*' and '?'")
    if not set(text) & set(".*?"):
        skill, separator, tool = text.partition("__")
        meant = f"{skill}.{tool}" if separator else f"{text}.*"
        raise ValueError(f"{text[:80]!r} matches no tool; write {meant[:80]!r}")
    if text.count(".") > 1:
        raise ValueError(f"{text[:80]!r} matches no tool: an id is 'skill.tool', with one dot")
    return Glob(text)


_TOOL_PATTERN = re.compile(r"[a-z0-9_.*?-]{1,200}")


def check_path(path: str) -> str:
    """Return a dotted path to an argument, in Unicode's form NFC, as Python has names.

    Raises:
        ValueError: a part of it is empty.
    """
    if not all(path.split(".")):
        raise ValueError(f"{path[:80]!r} isn't a path to an argument: names with single dots between them")
    return unicodedata.normalize("NFC", path)


def _listed(callers: Sequence[str]) -> str:
    return " and ".join(callers)
