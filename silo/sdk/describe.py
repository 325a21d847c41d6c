"""Describe a skill and its tools as JSON. The host checks all of it again (`silo.catalog.metadata`)."""

from __future__ import annotations

from typing import Any

from silo.sdk.errors import InvokeFailed, SkillDefinitionError
from silo.sdk.schema import input_schema, output_schema
from silo.sdk.skill import Skill, ToolDefinition
from silo.sdk.tracebacks import failure_of


def describe(skill: Skill, *, summary: str) -> dict[str, Any]:
    """Return the skill's description, which is the same for the same script. Runs its `@skill.instructions()`.

    It also reads all annotations, so that no call has to.

    Args:
        skill: the result of `find_skill`.
        summary: the docstring of the script.

    Returns:
        `namespace`, `summary`, `instructions` (text or None) and `tools`, in the order of the script, each with `name`,
        `description`, `input_schema`, `output_schema` (or None), `require_approval`, `time_to_live` (seconds),
        `secrets` and `network` (lists, or None for all that the header has), `title`, `read_only`, `destructive`,
        `idempotent`.

    Raises:
        InvokeFailed: `skill-metadata-invalid` (`SkillDefinitionError`) for an annotation or a manual that can't be
            used, `skill-import-error` if the function below `@skill.instructions()` raised.
    """
    return {
        "namespace": skill.namespace,
        "summary": summary.strip(),
        "instructions": _instructions(skill),
        "tools": [_tool(tool) for tool in skill.tools.values()],
    }


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    signature = tool.signature
    return {
        "name": tool.name,
        "description": signature.description,
        "input_schema": input_schema(signature),
        "output_schema": output_schema(signature),
        "require_approval": tool.require_approval,
        "time_to_live": tool.time_to_live,
        "secrets": None if tool.secrets is None else list(tool.secrets),
        "network": None if tool.network is None else list(tool.network),
        "title": tool.title,
        "read_only": tool.read_only,
        "destructive": tool.destructive,
        "idempotent": tool.idempotent,
    }


def _instructions(skill: Skill) -> str | None:
    if skill.manual is None:
        return None
    failure: InvokeFailed | None = None
    text: object = None
    try:
        text = skill.manual()
    except BaseException as error:  # the skill's code may raise anything; the author gets it as text
        failure = failure_of(error, "skill-import-error")
    if failure is not None:
        raise failure
    if not isinstance(text, str):
        raise SkillDefinitionError(
            f"the function below @skill.instructions() returned {type(text).__name__}; return the manual as text"
        )
    return text
