"""What would become of a call, by the first steps of the pipeline. Nothing runs, and nothing is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from anyio import to_thread
from silo_interaction import Question

from silo.approvals.questions import call_question
from silo.calls.check import fill
from silo.calls.pipeline import CallPipeline
from silo.errors import ArgumentsInvalid
from silo.model import Call, Decision, Tool
from silo.policy.evaluate import Finding
from silo.schema.canonical import HashedArguments


@dataclass(frozen=True)
class CallExplanation:
    """What the rules make of a call, and what would happen then.

    Attributes:
        decision: the verdict on the arguments as far as they were given.
        findings: what each rule that names the tool had to do with it.
        refused: why the call would end before a rule is asked: its arguments are not what the tool's schema takes.
        question: what a person would be asked; None if nobody would be.
    """

    tool: Tool
    decision: Decision
    findings: tuple[Finding, ...]
    refused: ArgumentsInvalid | None = None
    question: Question | None = None


async def explain_call(pipeline: CallPipeline, call: Call) -> CallExplanation:
    """Take a call through the steps that touch nothing, and say what they come to.

    Arguments may be left out, all or some: rules are asked about what is given.

    Raises:
        SkillUnknown, SkillChanged, ToolUnknown: as a call of it would.
        ArgumentsInvalid, FileRefused: the arguments are not JSON, or a file among them is none that a call may have.
    """
    skill, tool = await pipeline.resolve(call)
    refused = None
    try:
        given = (await pipeline.check(call, skill, tool)).call
    except ArgumentsInvalid as error:
        given = await to_thread.run_sync(fill, call, tool, pipeline.rules)
        # Without any, the question is about the tool; and where the tool is forbidden, nobody looks at arguments.
        if call.arguments and pipeline.forbidden(call, skill, tool) is None:
            refused = error
    found = await pipeline.decide(given, skill, tool)
    question = None
    if found.decision.verdict == "ask" and refused is None:
        arguments, why = HashedArguments(given.arguments), found.decision.reason
        question = call_question(given, arguments, skill, tool, None, why=why, before=None, now={})
    return CallExplanation(tool, found.decision, found.findings, refused, question)
