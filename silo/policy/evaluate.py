"""Decide whether a call may run, or must ask a person first. Pure: a function from what was agreed to a decision.

Asking, waiting and remembering answers are `silo.pipeline.approvals`'.
"""

from __future__ import annotations

from silo.model import Decision, SkillHeader, Tool


def decide(tool: Tool, header: SkillHeader) -> Decision:
    """Return `ask` if the skill's header or the tool itself requires approval, else `allow`.

    Either is enough: a decorator may ask where the header does not, and can't take back what the header asks for.
    What a tool says of its own harmlessness (`Tool.hints`) is a stranger's word and plays no part.
    """
    if header.require_approval:
        return Decision("ask", f"the skill {header.namespace!r} asks a person before every call")
    if tool.require_approval:
        return Decision("ask", f"the tool {tool.id!r} asks a person before every call")
    return Decision("allow", "neither skill nor tool requires approval")
