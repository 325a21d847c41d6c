"""Check the arguments of a call and read the files among them. Policy, person and guest all get the result. Blocks.

`silo.schema.arguments` checks against the schema, `silo.schema.files` finds the files, `silo.calls.files` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from silo.calls.files import InputRules, load_files
from silo.model import Call, Skill, Tool
from silo.sandbox.skill.base import GuestRequest
from silo.schema.arguments import Checkers, check_arguments, check_json
from silo.schema.files import find_files, put_back


@dataclass(frozen=True)
class Checked:
    """A call whose arguments fit its tool.

    Attributes:
        call: the call with the tool's id and the files among its arguments. Policy decides on it, and a person sees it.
        request: what the guest gets, except secrets.
    """

    call: Call
    skill: Skill
    tool: Tool
    request: GuestRequest


def check(call: Call, skill: Skill, tool: Tool, checkers: Checkers, rules: InputRules) -> Checked:
    """Return the call with its arguments checked and its files read.

    Raises:
        ArgumentsInvalid: they are not JSON, or don't fit the tool's schema.
        FileRefused: a call may not have one of the files.
    """
    check_json(call.arguments, tool.id)
    arguments, places = find_files(tool, call.arguments)
    check_arguments(tool, checkers.of(skill, tool)[0], arguments)
    files = load_files(places, rules)
    whole: dict[str, Any] = put_back(arguments, files) if files else arguments
    checked = replace(call, tool=tool.id, arguments=whole)
    return Checked(checked, skill, tool, GuestRequest(tool.name, arguments, files=files))


def fill(call: Call, tool: Tool, rules: InputRules) -> Call:
    """Return the call with its files read, but not checked against the schema. It can be explained, but not run.

    Raises:
        ArgumentsInvalid, FileRefused: the arguments are not JSON, or a call may not have one of the files.
    """
    check_json(call.arguments, tool.id)
    arguments, places = find_files(tool, call.arguments)
    whole: dict[str, Any] = put_back(arguments, load_files(places, rules))
    return replace(call, tool=tool.id, arguments=whole)
