"""Check the arguments of a call and read the files among them: the outcome is decided on, shown and run. Blocks.

The schema is checked by `silo.schema.arguments`, files are read by `silo.schema.files`.
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
        call: with the tool's id, and with files among its arguments: what policy decides on, and what a person sees.
        request: what the guest gets, secrets aside.
    """

    call: Call
    skill: Skill
    tool: Tool
    request: GuestRequest


def check(call: Call, skill: Skill, tool: Tool, checkers: Checkers, rules: InputRules) -> Checked:
    """Return the call with its arguments checked and its files read.

    Raises:
        ArgumentsInvalid: they are not JSON, or not what the tool's schema takes.
        FileRefused: a file among them is none that a call may have.
    """
    check_json(call.arguments, tool.id)
    arguments, places = find_files(tool, call.arguments)
    check_arguments(tool, checkers.of(skill, tool)[0], arguments)
    files = load_files(places, rules)
    whole: dict[str, Any] = put_back(arguments, files) if files else arguments
    checked = replace(call, tool=tool.id, arguments=whole)
    return Checked(checked, skill, tool, GuestRequest(tool.name, arguments, files=files))


def fill(call: Call, tool: Tool, rules: InputRules) -> Call:
    """Return the call with its files read, whatever the schema says of its arguments; it can be explained, and not run.

    Raises:
        ArgumentsInvalid, FileRefused: they are not JSON, or a file among them is none that a call may have.
    """
    check_json(call.arguments, tool.id)
    arguments, places = find_files(tool, call.arguments)
    whole: dict[str, Any] = put_back(arguments, load_files(places, rules))
    return replace(call, tool=tool.id, arguments=whole)
