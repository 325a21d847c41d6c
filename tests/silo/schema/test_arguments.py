"""Errors for wrong arguments say which one is wrong, why, and what the tool takes."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import ArgumentsInvalid, ResultInvalid, SkillMetadataInvalid
from silo.model import File
from silo.schema.arguments import (
    MAX_ARGUMENTS_BYTES,
    Checkers,
    check_arguments,
    check_json,
    check_result,
    signature,
    to_checker,
    to_result_checker,
)
from silo.schema.files import FileArgument
from silo.testing.fakes import make_skill, make_tool

TOOL = make_tool(
    "query",
    skill="table",
    properties={
        "data": {"x-silo-file": True},
        "sql": {"type": "string"},
        "limit": {"type": "integer", "default": 100},
        "mode": {"enum": ["fast", "exact"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "range": {"anyOf": [{"$ref": "#/$defs/Range"}, {"type": "null"}]},
    },
    required=["data", "sql"],
)
TOOL.input_schema["$defs"] = {"Range": {"type": "object", "properties": {"low": {"type": "number"}}}}
GOOD = {"data": FileArgument("arguments.data", ""), "sql": "select 1"}


def refused(arguments):
    with pytest.raises(ArgumentsInvalid) as caught:
        check_arguments(TOOL, to_checker(TOOL), arguments)
    return caught.value


def test_good_arguments_pass():
    check_arguments(TOOL, to_checker(TOOL), {**GOOD, "limit": 5, "mode": "fast", "tags": ["a"], "range": {"low": 1}})


def test_the_expected_shape_is_one_readable_line():
    assert signature(TOOL) == (
        "data: file, sql: string, limit?: integer = 100, "
        'mode?: "fast" | "exact", tags?: list of string, range?: {low?: number} | null'
    )
    union = {"anyOf": [{"enum": ["a", 1, None]}, {"type": ["boolean", "null"]}, {"type": "null"}]}
    assert signature(make_tool(properties={"one": union})) == 'one?: "a" | 1 | null | boolean'
    both = {
        "anyOf": [{"type": "object", "properties": {"x": {"type": ["string", "null"]}}}, {"type": ["string", "null"]}]
    }
    assert signature(make_tool(properties={"one": both})) == "one?: {x?: string | null} | string | null"
    assert signature(make_tool(properties={})) == "no arguments"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sql": 5}, "arguments.sql: 5 is not of type 'string'"),
        ({"limit": "many"}, "arguments.limit: 'many' is not of type 'integer'"),
        ({"tags": ["a", 1]}, "arguments.tags[1]: 1 is not of type 'string'"),
        ({"range": {"low": "x"}}, "arguments.range.low: 'x' is not of type 'number'"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(change, message):
    error = refused({**GOOD, **change})
    assert str(error) == message
    assert signature(TOOL) in error.hint


def test_a_missing_argument_is_named():
    assert str(refused({"sql": "x"})) == "table.query: 'data' is missing"


def test_an_unknown_argument_gets_the_nearest_name():
    error = refused({**GOOD, "limt": 3})
    assert str(error) == "table.query has no argument 'limt'"
    assert error.hint.startswith("did you mean 'limit'?")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "which JSON does not have"),
        (math.inf, "which JSON does not have"),
        (b"bytes", "of type bytes"),
        ({1, 2}, "of type set"),
        ("\ud800", "lone surrogate"),
        ({"\ud800": 1}, "lone surrogate"),
        ({1: 2}, "keys are text"),
        (10**400, "too large a number"),
        (object(), "of type object"),
        ("x" * (MAX_ARGUMENTS_BYTES + 1), "larger than 1024 KiB"),
        ([0] * (MAX_ARGUMENTS_BYTES + 1), "larger than 1024 KiB"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(value, said):
    with pytest.raises(ArgumentsInvalid, match=said):
        check_json({"a": [value]}, "demo.echo")


def test_deep_and_circular_arguments_are_refused():
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    circle: list = []
    circle.append(circle)
    for value in (deep, circle):
        with pytest.raises(ArgumentsInvalid, match="nest deeper"):
            check_json({"a": value}, "demo.echo")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_any_json_of_ordinary_size_passes(arguments):
    check_json({**arguments, "file": File(b"x")}, "demo.echo")


def test_a_schema_that_can_not_be_checked_is_the_skills_fault():
    tool = make_tool(properties={"a": {"pattern": "(?!x)"}})
    with pytest.raises(SkillMetadataInvalid, match=r"demo\.echo"):
        to_checker(tool)


def test_a_result_is_held_to_its_promise():
    tool = make_tool(output_schema={"type": "object", "properties": {"n": {"type": "integer"}}})
    checker = to_result_checker(tool)
    check_result(tool, checker, {"n": 1})
    with pytest.raises(ResultInvalid, match=r"result\.n: 'x' is not of type 'integer'"):
        check_result(tool, checker, {"n": "x"})
    assert to_result_checker(make_tool()) is None


def test_a_checker_is_kept_for_its_version_of_the_skill_only():
    checkers = Checkers(limit=2)
    skill = make_skill(make_tool())
    (tool,) = skill.tools
    kept = checkers.of(skill, tool)
    assert checkers.of(skill, tool) is kept
    other = replace(tool, input_schema={"type": "object", "required": ["x"]})
    arguments, _ = checkers.of(replace(skill, digest="e" * 64), other)
    assert arguments.flaw({}) is not None
    checkers.of(replace(skill, digest="f" * 64), tool)
    assert checkers.of(skill, tool) is not kept


def test_the_signature_of_a_schema_that_multiplies_is_short_and_quick():
    """Three times over, 400 properties that refer to an object of 400: 64 million, within the rules for schemas."""
    levels = {
        f"d{n}": {"type": "object", "properties": {f"p{m}": {"$ref": f"#/$defs/d{n + 1}"} for m in range(400)}}
        for n in range(3)
    }
    tool = make_tool()
    tool.input_schema.update(levels["d0"], **{"$defs": {**levels, "d3": {"type": "string"}}})
    assert signature(tool).startswith("p0?: {p0?: {p0?: ")
    assert len(signature(tool)) == 1001
