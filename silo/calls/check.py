"""Check and complete the arguments of a call, and read the files among them. Policy, person and guest get the result.

`silo.schema.arguments` checks against the schema and fills in its defaults, `silo.schema.files` finds the files,
`silo.calls.files` reads them. All of it blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from silo.calls.files import InputRules, load_files
from silo.errors import ArgumentsInvalid
from silo.model import Call, Skill, Tool
from silo.sandbox.skill.base import GuestRequest
from silo.schema.arguments import Checkers, check_arguments, check_json, with_defaults
from silo.schema.files import FileArgument, find_files, put_in


@dataclass(frozen=True)
class Checked:
    """A call whose arguments fit its tool.

    Attributes:
        call: the call with the tool's id, and with files and defaults among its arguments. Policy decides on it, and a
            person sees it.
        request: what the guest gets, except secrets; its arguments are those of `call`.
    """

    call: Call
    skill: Skill
    tool: Tool
    request: GuestRequest


def check(call: Call, skill: Skill, tool: Tool, checkers: Checkers, rules: InputRules) -> Checked:
    """Return the call with its arguments checked, its defaults filled in, and its files read.

    Raises:
        ArgumentsInvalid: they are not JSON, or don't fit the tool's schema.
        FileRefused: a call may not have one of the files.
    """
    check_json(call.arguments, tool.id)
    arguments, places = find_files(tool, call.arguments)
    checker = checkers.of(skill, tool)[0]
    filled = with_defaults(tool, checker, arguments)
    try:
        check_arguments(tool, checker, filled)
    except ArgumentsInvalid:
        # Either these arguments are wrong, or the schema allows them only without its defaults (`maxProperties`, or
        # one of two). Then they stay as they are, and rules know that the tool may have values for the rest.
        check_arguments(tool, checker, arguments)
        filled = arguments
    whole = _with_files(filled, places, rules)
    return Checked(replace(call, tool=tool.id, arguments=whole), skill, tool, GuestRequest(tool.name, whole))


def complete(call: Call, skill: Skill, tool: Tool, checkers: Checkers, rules: InputRules) -> Call:
    """Return the call as `check` does, but not checked against the schema. It can be explained, but not run.

    Raises:
        ArgumentsInvalid, FileRefused: the arguments are not JSON, or a call may not have one of the files.
    """
    check_json(call.arguments, tool.id)
    arguments, places = find_files(tool, call.arguments)
    filled = with_defaults(tool, checkers.of(skill, tool)[0], arguments)
    return replace(call, tool=tool.id, arguments=_with_files(filled, places, rules))


def _with_files(arguments: dict[str, Any], places: Sequence[FileArgument], rules: InputRules) -> dict[str, Any]:
    whole: dict[str, Any] = put_in(arguments, dict(zip(places, load_files(places, rules), strict=True)))
    return whole
