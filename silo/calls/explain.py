"""Predicts what would happen to a call, with the first steps of the pipeline. Nothing runs, and nothing is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from anyio import to_thread
from silo_interaction import Question

from silo.approvals.questions import call_question
from silo.calls.check import complete
from silo.calls.pipeline import CallPipeline
from silo.errors import ArgumentsInvalid
from silo.model import Call, Decision, Tool
from silo.policy.evaluate import Finding
from silo.schema.canonical import HashedArguments


@dataclass(frozen=True)
class CallExplanation:
    """The verdict of the rules on a call, and what would happen then.

    Attributes:
        decision: the verdict on the given arguments.
        findings: for each rule that names the tool, whether and why it applies.
        refused: the error that would end the call before the rules: its arguments don't fit the tool's schema.
        question: what a person would be asked; None if nobody would be asked.
    """

    tool: Tool
    decision: Decision
    findings: tuple[Finding, ...]
    refused: ArgumentsInvalid | None = None
    question: Question | None = None


async def explain_call(pipeline: CallPipeline, call: Call) -> CallExplanation:
    """Take a call through the steps without side effects, and return their outcome.

    Some or all arguments may be left out: the rules are applied to the given ones.

    Raises:
        SkillUnknown, SkillChanged, ToolUnknown: as a call would.
        ArgumentsInvalid, FileRefused: the arguments are not JSON, or a call may not have one of the files.
    """
    skill, tool = await pipeline.resolve(call)
    refused = None
    try:
        given = (await pipeline.check(call, skill, tool)).call
    except ArgumentsInvalid as error:
        given = await to_thread.run_sync(complete, call, skill, tool, pipeline.checkers, pipeline.rules)
        # Without arguments, the question is about the tool; if the tool is forbidden, arguments are not looked at.
        if call.arguments and pipeline.forbidden(call, skill, tool) is None:
            refused = error
    found = await pipeline.decide(given, skill, tool)
    question = None
    if found.decision.verdict == "ask" and refused is None:
        arguments, why = HashedArguments(given.arguments), found.decision.reason
        question = call_question(given, arguments, skill, tool, None, why=why, before=None, now={})
    return CallExplanation(tool, found.decision, found.findings, refused, question)
