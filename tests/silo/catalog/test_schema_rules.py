from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.catalog.schema_rules import SchemaRefused, check_schema


def rooted(**more: Any) -> dict[str, Any]:
    return {"type": "object", **more}


def doubling(levels: int) -> dict[str, Any]:
    steps = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**steps, f"s{levels}": {}}, "$ref": "#/$defs/s0"}


@pytest.mark.parametrize(
    "schema",
    [
        rooted(),
        rooted(properties={"pattern": {"type": "string", "pattern": "^a+$"}}, required=["pattern"]),
        rooted(properties={"$ref": {"type": "string"}}, dependentRequired={"pattern": ["$ref"]}),
        rooted(properties={"node": {"$ref": "#/$defs/a~1b"}}, **{"$defs": {"a/b": {"type": "integer"}}}),
        rooted(properties={"data": {"x-silo-file": True, "description": "a file"}}),
        rooted(
            properties={"root": {"$ref": "#/$defs/node"}},
            **{"$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}},
        ),
        rooted(**doubling(8)),
    ],
)
def test_what_sdks_generate_is_let_through_unchanged(schema: dict[str, Any]):
    assert check_schema(schema, of_arguments=True) == schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ([], "not an object"),
        ({"type": "string"}, 'not of type "object"'),
        (rooted(properties={"a": {"type": "objekt"}}), "not valid under JSON Schema 2020-12 at #/properties/a/type"),
        (rooted(properties=[]), "not valid under JSON Schema 2020-12 at #/properties"),
        (rooted(**{"$schema": "http://json-schema.org/draft-07/schema#"}), "'$schema' is not"),
        (rooted(**{"$ref": "https://a.example/s.json"}), "leads out of the schema"),
        (rooted(properties={"a": {"$ref": "file:///etc/passwd"}}), "leads out of the schema, at #/properties/a"),
        (rooted(properties={"a": {"$ref": "other.json#/x"}}), "leads out of the schema"),
        (rooted(properties={"a": {"$ref": "#anchor"}}), "leads out of the schema"),
        (rooted(properties={"a": {"$ref": "#/$defs/none"}}), "leads nowhere"),
        (rooted(properties={"a": {"$ref": "#/%24defs/x"}}), "with an escape"),
        (rooted(properties={"a": {"$ref": "#/required/" + "1" * 5000}}, required=["a"]), "leads nowhere"),
        (rooted(properties={"a": {"$ref": "#/required"}}, required=["a"]), "does not lead to a schema"),
        (rooted(default={"$ref": "https://a.example"}, properties={"a": {"$ref": "#/default"}}), "not lead to"),
        (rooted(**{"x-note": {"type": 5}}, properties={"a": {"$ref": "#/x-note"}}), "not valid under JSON Schema"),
        (rooted(**{"$id": "https://a.example/"}), "'$id' is refused"),
        (rooted(properties={"a": {"$dynamicRef": "#a"}}), "'$dynamicRef' is refused"),
        (rooted(properties={"a": {"pattern": "a" * 513}}), "more than 512 characters at #/properties/a"),
        (rooted(properties={"a": {"pattern": "("}}), "at #/properties/a/pattern"),
        (rooted(patternProperties={"(": {}}), "pattern"),
        (rooted(**{"$ref": "#"}), "comes back to itself"),
        (rooted(**{"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}}), "comes back to itself"),
        (rooted(**doubling(20)), "more than 2000 checks"),
        (rooted(description="x" * 70_000), "more than 65536 bytes"),
        (rooted(properties={"a\u200b": {}}), "hidden characters at #"),
        (rooted(enum=["\u202ea"]), "hidden characters at #/enum/0"),
        (rooted(default={"a": "\U000e0041"}), "hidden characters at #/default/a"),
    ],
)
def test_a_schema_that_is_invalid_open_or_costly_is_refused(schema: object, message: str):
    with pytest.raises(SchemaRefused) as caught:
        check_schema(schema, of_arguments=True)
    assert message in str(caught.value)


def test_a_schema_deeper_than_the_bound_is_refused():
    schema: dict[str, Any] = {}
    for _ in range(40):
        schema = {"items": schema}
    with pytest.raises(SchemaRefused, match="deeper than 32"):
        check_schema(rooted(**schema), of_arguments=True)


def test_hidden_characters_of_descriptions_are_made_visible_at_any_depth():
    schema = rooted(properties={"a": {"description": "x\u200by", "items": {"title": "\u202e"}}})
    checked = check_schema(schema, of_arguments=True)
    assert checked["properties"]["a"] == {"description": "x<U+200B>y", "items": {"title": "<U+202E>"}}


def test_a_property_called_description_is_a_schema_like_others():
    with pytest.raises(SchemaRefused, match="not valid"):
        check_schema(rooted(properties={"description": "text"}), of_arguments=True)


def test_a_result_may_be_of_any_type():
    assert check_schema({"type": "array"}, of_arguments=False) == {"type": "array"}


keywords = st.sampled_from(
    [
        "type",
        "properties",
        "$ref",
        "allOf",
        "if",
        "enum",
        "pattern",
        "$defs",
        "items",
        "x",
        "dependentSchemas",
        "required",
    ]
)
values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.sampled_from(["object", "#", "#/$defs/x"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keywords, inner, max_size=4)),
    max_leaves=15,
)


@given(st.dictionaries(keywords, values, max_size=5))
def test_any_json_is_a_schema_or_refused(schema: dict[str, Any]):
    with suppress(SchemaRefused):
        check_schema(schema, of_arguments=False)
