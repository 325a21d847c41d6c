"""Decide whether a call may run, or must ask a person first. Pure: a function from call and rules to a decision.

`silo.approvals.consent` asks, waits and remembers answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from silo.model import Caller, Decision, SkillHeader, Tool
from silo.policy.patterns import Arguments
from silo.policy.rules import Rule, Verdict


@dataclass(frozen=True)
class Finding:
    """Whether a rule that names the tool applies to a call.

    Attributes:
        mismatch: why it does not apply; None if it does.
        assumed: the arguments whose values are not known, and for which it applies to be safe.
    """

    rule: Rule
    mismatch: str | None
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """A decision, and every rule that names the tool, in the order of the file."""

    decision: Decision
    findings: tuple[Finding, ...]


def decide(
    tool: Tool, header: SkillHeader, arguments: Mapping[str, Any], caller: Caller, rules: Sequence[Rule]
) -> Decision:
    """Return the decision of the user's rules about a call; where none applies, that of its skill and tool.

    Of the rules that apply, `deny` wins over `ask`, and `ask` over `allow`, in any order: a rule that somebody adds
    further up must not undo a restriction. An `allow` overrides the approval that skill and tool ask for, because the
    user wrote it.

    Args:
        arguments: checked, with the defaults of the tool's schema, and a `File` where the tool takes one.
    """
    return explain(tool, header, arguments, caller, rules).decision


def explain(
    tool: Tool, header: SkillHeader, arguments: Mapping[str, Any], caller: Caller, rules: Sequence[Rule]
) -> Explanation:
    """Return the decision of `decide`, and whether each rule applied."""
    whole = Arguments(arguments, tool.input_schema)
    findings = tuple(_find(rule, whole, caller) for rule in rules if rule.names(tool))
    for verdict in _STRICTEST_FIRST:
        for finding in findings:
            if finding.rule.verdict == verdict and finding.mismatch is None:
                return Explanation(_said_by(finding), findings)
    return Explanation(_said_by_skill(tool, header), findings)


def _find(rule: Rule, arguments: Arguments, caller: Caller) -> Finding:
    mismatch = rule.mismatch(arguments, caller)
    return Finding(rule, mismatch, rule.assumed(arguments) if mismatch is None else ())


_STRICTEST_FIRST: tuple[Verdict, ...] = ("deny", "ask", "allow")

_SAYS: Mapping[Verdict, str] = {"deny": "denies it", "ask": "asks a person first", "allow": "allows it"}


def _said_by(finding: Finding) -> Decision:
    rule = finding.rule
    reason = rule.reason or f"{rule.name} {_SAYS[rule.verdict]}"
    if finding.assumed:
        reason += f" ({finding.assumed[0]} is not given, and its default is not known)"
    return Decision(rule.verdict, reason, rule.name)


def _said_by_skill(tool: Tool, header: SkillHeader) -> Decision:
    """Return `ask` if the skill's header or the tool itself requires approval, else `allow`.

    Either is enough: a decorator may require approval where the header does not, and can't remove what the header
    requires. A tool's own claims that it is harmless (`Tool.hints`) are untrusted and play no part.
    """
    if header.require_approval:
        return Decision("ask", f"the skill {header.namespace!r} asks a person before every call")
    if tool.require_approval:
        return Decision("ask", f"the tool {tool.id!r} asks a person before every call")
    return Decision("allow", "neither skill nor tool requires approval")
