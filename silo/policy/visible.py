"""What the rules make of a tool before there is a call: which verdicts are possible at all, and so what a caller need not see. Pure.

Deciding about a call is `silo.policy.evaluate`'s; hiding and showing are done by `silo.discovery.search` and `silo.server`.

A tool that is denied whatever its arguments is hidden: neither listed nor found, and without influence on what is. It is no secret:
a call by its name is refused with the user's reason, because an agent that was told "unknown" would go on looking, and a user who
forgot the rule would look for a bug. What a caller can learn is that a name which it guessed is installed, and why it may not use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from silo.model import Caller, Decision, Skill, SkillHeader, Tool
from silo.policy.evaluate import decide
from silo.policy.rules import Rule, Verdict

Outlook = Literal["runs", "asks", "depends", "denied"]
"""What a caller has to expect of a call: it runs, a person is asked first, its arguments decide, or it is refused whatever they are."""


def possible_verdicts(tool: Tool, header: SkillHeader, caller: Caller, rules: Sequence[Rule]) -> frozenset[Verdict]:
    """Return the verdicts that a call may get, over all arguments; more than one only if rules look at the arguments.

    `silo.policy.evaluate.decide` never returns another one. It may not return each of them, since patterns are not compared with
    what the tool's schema allows.
    """
    concerned = [rule for rule in rules if rule.names(tool) and caller.kind in rule.callers]
    always = {rule.verdict for rule in concerned if not rule.arguments}
    if "deny" in always:
        return frozenset({"deny"})
    asks_by_itself = header.require_approval or tool.require_approval
    found = {rule.verdict for rule in concerned if rule.arguments}
    if "ask" in always:
        found -= {"allow"}  # which an ask rule wins over
        found.add("ask")
    elif "allow" in always or not asks_by_itself:
        found.add("allow")
    else:
        found.add("ask")
    return frozenset(found)


def outlook(tool: Tool, header: SkillHeader, caller: Caller, rules: Sequence[Rule]) -> Outlook:
    """Return what a caller has to expect of a call whose arguments are not known yet."""
    possible = possible_verdicts(tool, header, caller, rules)
    if possible == {"deny"}:
        return "denied"
    if possible == {"allow"}:
        return "runs"
    return "depends" if "allow" in possible else "asks"


def outlooks(skills: Iterable[Skill], caller: Caller, rules: Sequence[Rule]) -> Mapping[str, Outlook]:
    """Return the outlook of every tool, by its id."""
    return {tool.id: outlook(tool, skill.header, caller, rules) for skill in skills for tool in skill.tools}


def refusal(tool: Tool, header: SkillHeader, caller: Caller, rules: Sequence[Rule]) -> Decision | None:
    """Return the decision on a tool that is denied whatever its arguments are, so that nobody looks at them; None for any other."""
    return decide(tool, header, {}, caller, rules) if outlook(tool, header, caller, rules) == "denied" else None
