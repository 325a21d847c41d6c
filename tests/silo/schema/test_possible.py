"""Which absent properties a tool may have a value for: in doubt any, and none of a branch that a value contradicts."""

import time

import pytest

from silo.schema.possible import Place

CIRCLE = {"properties": {"kind": {"const": "circle"}, "radius": {}}, "required": ["kind"]}
SQUARE = {"properties": {"kind": {"enum": ["square", 4]}, "side": {}}, "required": ["kind"]}


def may_have(schema, value, *path, **more):
    """Whether the last name of a path may have a value although it is absent."""
    place = Place.of(value, {"type": "object", **schema, **more})
    for key in path[:-1]:
        place = place.inside(key)
    return place.may_have(path[-1])


@pytest.mark.parametrize(
    ("schema", "value", "path", "expected"),
    [
        ({"properties": {"a": {}}}, {}, ("a",), True),
        ({"properties": {"a": {}}, "required": ["a"]}, {"a": 1}, ("a",), False),
        ({"properties": {"a": {}}}, {}, ("b",), False),
        ({"allOf": [{"properties": {"a": {}}}]}, {}, ("a",), True),
        ({"if": {}, "then": {"properties": {"a": {}}}}, {}, ("a",), True),
        ({"dependentSchemas": {"x": {"properties": {"a": {}}}}}, {"x": 1}, ("a",), True),
        ({"properties": {"o": {"$ref": "#/$defs/O"}}}, {"o": {}}, ("o", "a"), True),
        ({"properties": {"l": {"items": {"$ref": "#/$defs/O"}}}}, {"l": [{}]}, ("l", 0, "a"), True),
        ({"properties": {"l": {"prefixItems": [{}, {"$ref": "#/$defs/O"}]}}}, {"l": [{}, {}]}, ("l", 1, "a"), True),
        ({"properties": {"l": {"prefixItems": [{}, {"$ref": "#/$defs/O"}]}}}, {"l": [{}, {}]}, ("l", 0, "a"), False),
        ({"patternProperties": {"^o": {"$ref": "#/$defs/O"}}}, {"o": {}}, ("o", "a"), True),
        ({"additionalProperties": {"$ref": "#/$defs/O"}}, {"o": {}}, ("o", "a"), True),
        ({"properties": {"s": {"anyOf": [CIRCLE, SQUARE]}}}, {"s": {"kind": "circle"}}, ("s", "radius"), True),
        ({"properties": {"s": {"anyOf": [CIRCLE, SQUARE]}}}, {"s": {"kind": "circle"}}, ("s", "side"), False),
        ({"properties": {"s": {"oneOf": [CIRCLE, SQUARE]}}}, {"s": {"kind": 4.0}}, ("s", "side"), True),
        ({"properties": {"s": {"oneOf": [CIRCLE, SQUARE]}}}, {"s": {"kind": "other"}}, ("s", "side"), False),
        ({"properties": {"s": {"anyOf": [{"type": "array", "properties": {"a": {}}}, {}]}}}, {"s": {}}, ("s", "a"),
         False),
        ({"properties": {"s": {"anyOf": [{"additionalProperties": False, "properties": {"a": {}}}, {}]}}},
         {"s": {"z": 1}}, ("s", "a"), False),
        ({"properties": {"a": {}, "b": {}}, "required": ["b"]}, {}, ("a",), True),
    ],
)  # fmt: skip
def test_a_tool_may_have_what_a_schema_of_the_value_has(schema, value, path, expected):
    definitions = {"O": {"type": "object", "properties": {"a": {}}}}
    assert may_have(schema, value, *path, **{"$defs": definitions}) == expected


def test_schemas_that_refer_to_each_other_end():
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}], "properties": {"a": {}}}}}
    assert may_have(schema, {}, "a")


def test_a_search_that_takes_too_long_takes_anything_for_possible():
    branches = [{"properties": {f"n{i}": {}}} for i in range(500)]
    value = {"rows": [{}] * 2000}
    place = Place.of(value, {"properties": {"rows": {"items": {"anyOf": branches}}}}).inside("rows")
    started = time.thread_time()
    found = [place.inside(index).may_have("other") for index in range(2000)]
    assert (found[0], found[-1]) == (False, True)
    assert time.thread_time() - started < 20
