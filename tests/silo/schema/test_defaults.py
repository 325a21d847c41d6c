"""Defaults at every depth: what is filled in is what the schema states, and nothing that is not sure."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.schema.checker import CheckTooLong, SchemaChecker
from silo.schema.files import FileArgument

OPTIONS = {"type": "object", "properties": {"force": {"type": "boolean", "default": False}, "depth": {"default": 1}}}


def filled(schema, value, **more):
    return SchemaChecker({"type": "object", **schema, **more}).filled(value)


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"properties": {"a": {"default": 1}, "b": {}}}, {}, {"a": 1}),
        ({"properties": {"a": {"default": 1}}}, {"a": None}, {"a": None}),
        ({"properties": {"a": {"default": 1}}}, {"z": 2}, {"z": 2, "a": 1}),
        ({"properties": {"a": OPTIONS}}, {}, {}),
        ({"properties": {"a": OPTIONS}}, {"a": {}}, {"a": {"force": False, "depth": 1}}),
        ({"properties": {"a": {**OPTIONS, "default": {"depth": 2}}}}, {}, {"a": {"depth": 2, "force": False}}),
        ({"properties": {"a": {"$ref": "#/$defs/O", "default": {}}}}, {}, {"a": {"force": False, "depth": 1}}),
        ({"properties": {"a": {"$ref": "#/$defs/D"}}}, {}, {"a": {"force": False, "depth": 1}}),
        ({"properties": {"a": {"allOf": [{"$ref": "#/$defs/D"}]}}}, {}, {"a": {"force": False, "depth": 1}}),
        ({"properties": {"a": {"items": OPTIONS}}}, {"a": [{}, {"force": True}]},
         {"a": [{"force": False, "depth": 1}, {"force": True, "depth": 1}]}),
        ({"properties": {"a": {"prefixItems": [OPTIONS, {"default": 5}, {"default": 6}]}}}, {"a": [{}]},
         {"a": [{"force": False, "depth": 1}, 5, 6]}),
        ({"properties": {"a": {"prefixItems": [{}, {}, {"default": 6}]}}}, {"a": [0]}, {"a": [0]}),
        ({"additionalProperties": OPTIONS}, {"x": {}}, {"x": {"force": False, "depth": 1}}),
        ({"patternProperties": {"^x": OPTIONS}, "additionalProperties": {"properties": {"q": {"default": 9}}}},
         {"x1": {}, "y": {}}, {"x1": {"force": False, "depth": 1}, "y": {"q": 9}}),
        ({"allOf": [{"properties": {"a": {"default": 1}}}, {"properties": {"b": {"default": 2}}}]}, {},
         {"a": 1, "b": 2}),
        ({"properties": {"a": {"anyOf": [{"$ref": "#/$defs/O"}, {"type": "null"}]}}}, {"a": {}},
         {"a": {"force": False, "depth": 1}}),
        ({"properties": {"a": {"anyOf": [OPTIONS, {"type": "null"}], "default": {}}}}, {},
         {"a": {"force": False, "depth": 1}}),
        ({"dependentSchemas": {"x": {"properties": {"y": {"default": 3}}}}}, {"x": 1}, {"x": 1, "y": 3}),
        ({"dependentSchemas": {"x": {"properties": {"y": {"default": 3}}}}}, {}, {}),
        ({"if": {"required": ["x"]}, "then": {"properties": {"y": {"default": 1}}},
          "else": {"properties": {"y": {"default": 2}}}}, {"x": 0}, {"x": 0, "y": 1}),
        ({"if": {"required": ["x"]}, "then": {"properties": {"y": {"default": 1}}},
          "else": {"properties": {"y": {"default": 2}}}}, {}, {"y": 2}),
    ],
)  # fmt: skip
def test_what_the_schema_states_is_filled_in_wherever_it_is(schema, value, expected):
    definitions = {"O": OPTIONS, "D": {**OPTIONS, "default": {}}}
    assert filled(schema, value, **{"$defs": definitions}) == expected


KINDS = {
    "oneOf": [
        {"properties": {"kind": {"const": "a"}, "n": {"default": 1}}, "required": ["kind"]},
        {"properties": {"kind": {"const": "b"}, "n": {"default": 2}}, "required": ["kind"]},
    ]
}


@pytest.mark.parametrize(("value", "expected"), [({"kind": "a"}, 1), ({"kind": "b"}, 2)])
def test_in_a_union_the_branch_that_fits_says_which(value, expected):
    assert filled({"properties": {"x": KINDS}}, {"x": value}) == {"x": {**value, "n": expected}}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ({"anyOf": [{"properties": {"n": {"default": 1}}}, {"properties": {"n": {"default": 2}}}]}, {}),
        ({"anyOf": [{"properties": {"n": {"default": 1}}}, {"properties": {"m": {"default": 1}}}]}, {}),
        ({"properties": {"n": {"type": "integer", "default": "none"}}}, {}),
        ({"properties": {"n": {"minimum": 1, "default": 0}}}, {}),
        ({"properties": {"n": {"default": 1}}, "required": ["n"]}, {}),
        ({"properties": {"n": {"allOf": [{"default": 1}, {"default": 2}]}}}, {}),
        ({"properties": {"n": {"x-silo-file": True, "default": "file:///etc/passwd"}}}, {}),
        ({"properties": {"n": {"anyOf": [{"x-silo-file": True}, {"type": "null"}], "default": "file:///x"}}}, {}),
        ({"properties": {"n": {"not": {"default": 1}}}}, {}),
        ({"enum": [{}], "default": {"n": 1}}, {}),
    ],
)
def test_what_is_not_sure_is_not_filled_in(part, value):
    assert filled({"properties": {"x": part}}, {"x": value}) == {"x": value}


def test_a_default_that_contains_itself_is_filled_in_once():
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node", "default": {}}}}
    assert filled({"properties": {"start": {"$ref": "#/$defs/Node"}}}, {"start": {}}, **{"$defs": {"Node": node}}) == {
        "start": {"next": {}}
    }


def test_a_file_is_left_alone():
    file = FileArgument("arguments.data", "")
    schema = {"properties": {"data": {"anyOf": [{"type": "object"}], "x-silo-file": True}, "n": {"default": 1}}}
    assert filled(schema, {"data": file}) == {"data": file, "n": 1}


def test_what_is_given_is_not_changed_in_place():
    value = {"a": {}}
    filled({"properties": {"a": OPTIONS}}, value)
    assert value == {"a": {}}


# --- hostile ones -----------------------------------------------------------------------------------------------------


def test_defaults_do_not_multiply_a_call():
    """A default of 50 kB for each of 2,000 items would make 100 MB of a call of 6 kB."""
    schema = {"properties": {"rows": {"items": {"properties": {"text": {"default": "x" * 50_000}}}}}}
    assert len(filled(schema, {"rows": [{}]})["rows"][0]["text"]) == 50_000
    with pytest.raises(CheckTooLong):
        filled(schema, {"rows": [{}] * 2000})


def test_a_union_of_many_branches_ends_in_time():
    branches = [{"properties": {f"n{i}": {"type": "integer", "default": i}}, "required": [f"r{i}"]} for i in range(500)]
    started = time.thread_time()
    with pytest.raises(CheckTooLong):
        filled({"properties": {"rows": {"items": {"anyOf": branches}}}}, {"rows": [{"r7": 1}] * 2000})
    assert time.thread_time() - started < 30


def test_a_part_without_defaults_is_not_walked():
    rows = [{}] * 100_000
    schema = {"properties": {"rows": {"items": {"anyOf": [{"type": "object"}] * 500}}, "n": {"default": 1}}}
    found = filled(schema, {"rows": rows})
    assert found == {"rows": rows, "n": 1}
    assert found["rows"] is rows


# --- properties -------------------------------------------------------------------------------------------------------

LEAVES = st.sampled_from([{}, {"type": "integer"}, {"type": "integer", "default": 1}, {"default": "d"}, {"const": "c"}])
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(
            lambda named, needed, more: {"type": "object", "properties": named, "required": needed, **more},
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            st.lists(st.sampled_from("abc"), max_size=1),
            st.sampled_from([{}, {"additionalProperties": False}, {"default": {}}, {"default": {"a": 1}}]),
        )
        | st.builds(lambda one: {"type": "array", "items": one}, inner)
        | st.builds(lambda parts: {"prefixItems": parts}, st.lists(inner, min_size=1, max_size=2))
        | st.builds(lambda key, parts: {key: parts}, st.sampled_from(["anyOf", "oneOf", "allOf"]),
                    st.lists(inner, min_size=1, max_size=3))
    ),
    max_leaves=8,
)  # fmt: skip
VALUES = st.recursive(
    st.sampled_from([1, 2, "c", "d", None, True]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcz"), inner, max_size=3),
    max_leaves=6,
)


def holds(whole, part):
    """Whether everything of `part` is in `whole`, unchanged."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and holds(whole[key], item) for key, item in part.items())
    if isinstance(part, list):
        return isinstance(whole, list) and len(whole) >= len(part) and all(map(holds, whole, part))
    return type(whole) is type(part) and whole == part


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from("abc"), SCHEMAS, max_size=3), st.dictionaries(st.sampled_from("abc"), VALUES))
def test_what_is_given_stays_and_filling_in_twice_changes_nothing(properties, value):
    checker = SchemaChecker({"type": "object", "properties": properties})
    found = checker.filled(value)
    assert holds(found, value)
    assert checker.filled(found) == found
