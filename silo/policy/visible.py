"""What the rules say about a tool before there is a call: its possible verdicts, and who may know of it. Pure.

`silo.policy.evaluate` decides about a call. `silo.providers.skills` calls this module once for all installed skills and
keeps the result.

A tool that is denied whatever its arguments is hidden: it is neither listed nor found, and it does not influence how
other tools are ranked. It isn't a secret: a call by its name is refused with the user's reason, because an agent that
was told "unknown" would go on looking, and a user who forgot the rule would look for a bug. So a caller that guesses a
name can learn that the tool is installed, and why it may not use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from silo.model import Caller, Decision, Skill, SkillHeader, Tool
from silo.policy.evaluate import decide
from silo.policy.rules import Rule, Verdict

ExpectedVerdict = Literal["runs", "asks", "depends", "denied"]
"""What a caller can expect of a call: it runs, a person is asked first, its arguments decide, or it is refused."""


@dataclass(frozen=True)
class Visible:
    """What was installed at one moment, as one caller may see it. Skills are sorted by namespace, tools by id.

    Attributes:
        skills: those with tools that the caller may use, and only with these tools.
        tools: all tools of these skills.
        expected: the expected verdict of each installed tool, by id, hidden ones included.
        hidden: the tools that are refused whatever their arguments.
        installed: all skills with all their tools. It is left out of comparisons: a caller must not notice a change of
            what is hidden.
    """

    skills: tuple[Skill, ...]
    tools: tuple[Tool, ...]
    expected: Mapping[str, ExpectedVerdict]
    hidden: tuple[Tool, ...]
    installed: tuple[Skill, ...] = field(compare=False, repr=False)


def visible_to(caller: Caller, installed: Sequence[Skill], rules: Sequence[Rule]) -> Visible:
    """Return what a caller may know of the installed skills."""
    expected = {
        tool.id: expected_verdict(tool, skill.header, caller, rules) for skill in installed for tool in skill.tools
    }
    return with_expected(installed, expected)


def with_expected(installed: Sequence[Skill], expected: Mapping[str, ExpectedVerdict]) -> Visible:
    """Return what a caller may know of, given the expected verdicts; a tool without one is hidden."""

    def is_visible(tool: Tool) -> bool:
        return expected.get(tool.id, "denied") != "denied"

    by_name = sorted(installed, key=lambda skill: skill.namespace)
    tools = sorted((tool for skill in by_name for tool in skill.tools), key=lambda tool: tool.id)
    skills = (replace(skill, tools=tuple(filter(is_visible, skill.tools))) for skill in by_name)
    return Visible(
        skills=tuple(skill for skill in skills if skill.tools),
        tools=tuple(filter(is_visible, tools)),
        expected=expected,
        hidden=tuple(tool for tool in tools if not is_visible(tool)),
        installed=tuple(installed),  # a tuple stays the same object: `silo.discovery.indexes` compares by identity
    )


def possible_verdicts(tool: Tool, header: SkillHeader, caller: Caller, rules: Sequence[Rule]) -> frozenset[Verdict]:
    """Return the verdicts that a call may get, over all arguments; more than one only if rules look at the arguments.

    `silo.policy.evaluate.decide` never returns another verdict. It may never return some of these, because patterns are
    not compared with what the tool's schema allows.
    """
    concerned = [rule for rule in rules if rule.names(tool) and caller.kind in rule.callers]
    always = {rule.verdict for rule in concerned if not rule.arguments}
    if "deny" in always:
        return frozenset({"deny"})
    asks_by_itself = header.require_approval or tool.require_approval
    found = {rule.verdict for rule in concerned if rule.arguments}
    if "ask" in always:
        found -= {"allow"}  # an `ask` rule wins over it
        found.add("ask")
    elif "allow" in always or not asks_by_itself:
        found.add("allow")
    else:
        found.add("ask")
    return frozenset(found)


def expected_verdict(tool: Tool, header: SkillHeader, caller: Caller, rules: Sequence[Rule]) -> ExpectedVerdict:
    """Return what a caller can expect of a call whose arguments are not known yet."""
    possible = possible_verdicts(tool, header, caller, rules)
    if possible == {"deny"}:
        return "denied"
    if possible == {"allow"}:
        return "runs"
    return "depends" if "allow" in possible else "asks"


def refusal(tool: Tool, header: SkillHeader, caller: Caller, rules: Sequence[Rule]) -> Decision | None:
    """Return the decision on a tool that is denied whatever its arguments are; None for any other tool."""
    is_denied = expected_verdict(tool, header, caller, rules) == "denied"
    return decide(tool, header, {}, caller, rules) if is_denied else None
