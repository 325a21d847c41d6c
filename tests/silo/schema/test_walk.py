"""Walking schemas: walking any JSON ends in a bounded number of steps, and references follow RFC 6901."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from silo.schema.walk import (
    SchemaTooDeep,
    alternatives,
    applied_in_place,
    entries,
    flatten,
    inner,
    properties,
    required,
    resolve,
    rewrite,
    subschemas,
)

KEYWORDS = [
    *("type", "properties", "items", "prefixItems", "additionalProperties", "required", "enum", "const", "default"),
    *("$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "if", "dependentSchemas", "x-silo-file", "title", "X", "0"),
]
REFERENCES = ["#", "#/$defs/X", "#/properties/X", "#/anyOf/0", "#/nowhere", "#/$defs/a~1b", "#X", "https://x.example/"]

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from(["object", "string", *REFERENCES]))
documents = st.recursive(
    scalars,
    lambda inside: st.one_of(
        st.lists(inside, max_size=3), st.dictionaries(st.sampled_from(KEYWORDS), inside, max_size=4)
    ),
    max_leaves=25,
)
roots = st.dictionaries(st.sampled_from(KEYWORDS), documents, max_size=5)


def objects(value):
    """Every object of a document, found without knowing what a schema is."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, dict) else []), *(one for item in inside for one in objects(item))]


# --- bounded, whatever the schema is ----------------------------------------------------------------------------------


@given(roots)
def test_a_walk_ends_and_visits_no_object_twice(root):
    most = len(objects(root))
    for _, schema in subschemas(root):
        for walked in (flatten(schema, root), alternatives(schema, root), list(applied_in_place(schema))):
            known = [id(part) for part in walked if isinstance(part, dict)]
            assert len(known) <= most
            assert len(set(known)) == len(known)
    assert len(list(subschemas(root))) <= most
    assert len(list(entries(root))) == sum(len(one) for one in objects(root))


def test_references_that_go_round_and_multiply_are_walked_once():
    definitions = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{m}"} for m in range(50)]} for n in range(50)}
    root = {"$defs": definitions, "$ref": "#/$defs/d0"}
    assert len(flatten(root, root)) == 1 + 50 + 50 * 50
    assert alternatives(root, root) == []


def test_no_depth_is_too_much_for_a_walk():
    root = {}
    for _ in range(20_000):
        root = {"items": [root]}
    assert len(list(subschemas(root))) == 20_001
    assert len(list(entries(root))) == 20_000
    chain = {}
    for _ in range(20_000):
        chain = {"anyOf": [chain]}
    assert alternatives(chain, chain) == [{}]
    with pytest.raises(SchemaTooDeep):
        rewrite(root, lambda schema: schema)


# --- references -------------------------------------------------------------------------------------------------------


names = st.sampled_from(["X", "a/b", "a~b", "a b", "%", "é", "", "0"])
valid = st.recursive(
    st.just({}),
    lambda inside: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(names, inside, max_size=3),
            "$defs": st.dictionaries(names, inside, max_size=3),
            "anyOf": st.lists(inside, min_size=1, max_size=3),
            "items": inside,
        },
    ),
    max_leaves=12,
)
steps = [
    "properties",
    "$defs",
    "anyOf",
    "items",
    "X",
    "a~1b",
    "a~0b",
    "a b",
    "a%20b",
    "%25",
    "é",
    "%C3%A9",
    "",
    "0",
    "1",
]


@given(valid, st.lists(st.sampled_from(steps), max_size=4))
def test_a_reference_leads_where_the_checker_goes(root, pointer):
    """`jsonschema` follows references with `referencing`. If silo followed them differently, it would miss a file."""
    reference = "".join(["#", *(f"/{step}" for step in pointer)])
    resolver = Registry().with_resource("", Resource(root, DRAFT202012)).resolver()
    try:
        found = resolve(reference, root)
    except LookupError:
        with pytest.raises((Unresolvable, ValueError)):  # it parses the part after a list as a number
            resolver.lookup(reference)
    else:
        assert found is resolver.lookup(reference).contents


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("#", "root"),
        ("#/$defs/a~1b", "slash"),
        ("#/$defs/a~0b", "tilde"),
        ("#/$defs/a%20b", "blank"),
        ("#/$defs/", "empty"),
        ("#/allOf/1", "second"),
    ],
)
def test_a_pointer_is_read_as_rfc_6901_says(reference, target):
    names = {"a/b": "slash", "a~b": "tilde", "a b": "blank", "": "empty"}
    root = {"title": "root", "allOf": [{}, {"title": "second"}], "$defs": {n: {"title": t} for n, t in names.items()}}
    assert resolve(reference, root)["title"] == target


@pytest.mark.parametrize(
    "reference",
    ["", "#x", "x", "https://x.example/#/a", "#/none", "#/a/01", "#/a/-", "#/a/1", "#/a/" + "1" * 5000, "#/a/¹"],
)
def test_a_reference_that_leads_nowhere_is_told(reference):
    with pytest.raises(LookupError):
        resolve(reference, {"a": [{}]})


# --- what a schema is made of -----------------------------------------------------------------------------------------


def test_combinations_come_in_the_order_in_which_they_are_written():
    root = {
        "$defs": {"X": {"oneOf": [{"title": "2"}, {"title": "3"}]}, "Loop": {"$ref": "#/$defs/Loop"}},
        "anyOf": [{"title": "1"}, {"$ref": "#/$defs/X"}, {"$ref": "#/$defs/Loop"}, {"title": "4"}],
    }
    assert [one["title"] for one in alternatives(root, root)] == ["1", "2", "3", "4"]


def test_the_schema_of_a_file_is_not_taken_apart():
    file = {"anyOf": [{"type": "string"}], "x-silo-file": True}
    assert alternatives({"anyOf": [file, {"type": "null"}]}, {}) == [file, {"type": "null"}]


@given(roots)
def test_keywords_of_the_wrong_type_count_as_absent(root):
    assert properties(root) == (root["properties"] if isinstance(root.get("properties"), dict) else {})
    assert all(isinstance(name, str) for name in required(root))
    for key in ("X", 0):
        assert all(isinstance(part, dict) for part in inner([root], key)["anyOf"])


def test_an_item_is_described_by_every_schema_that_may_describe_its_list():
    schemas = [{"prefixItems": [{"title": "first"}], "items": {"title": "rest"}}, {"items": {"title": "any"}}]
    assert inner(schemas, 0) == {"anyOf": [{"title": "first"}, {"title": "any"}]}
    assert inner(schemas, 1) == {"anyOf": [{"title": "rest"}, {"title": "any"}]}
    schemas = [{"properties": {"a": {"title": "a"}}, "additionalProperties": {"title": "other"}}, {}]
    assert inner(schemas, "a") == {"anyOf": [{"title": "a"}]}
    assert inner(schemas, "b") == {"anyOf": [{"title": "other"}]}


# --- documents --------------------------------------------------------------------------------------------------------


def test_schemas_have_places_and_data_is_none():
    root = {
        "properties": {"default": {"items": {}}, "a": {"default": {"type": "x"}, "enum": [{}]}},
        "required": ["a"],
        "allOf": [{"x-note": {}}],
    }
    assert [where for where, _ in subschemas(root)] == [
        "#",
        "#/properties/default",
        "#/properties/default/items",
        "#/properties/a",
        "#/allOf/0",
        "#/allOf/0/x-note",
    ]


@given(roots)
def test_a_schema_comes_after_the_one_that_it_is_in(root):
    places = [where for where, _ in subschemas(root)]
    assert len(places) == len(set(places)) or any("/" in key for one in objects(root) for key in one)
    assert all(not earlier.startswith(f"{later}/") for earlier, later in pairwise(places))


@given(roots)
def test_rewriting_nothing_changes_nothing_and_every_schema_is_asked(root):
    asked = []
    assert rewrite(root, lambda schema: asked.append(schema) or schema) == root
    assert [id(one) for one in asked] == [id(one) for _, one in subschemas(root)]


def test_names_are_no_keywords_when_a_schema_is_rewritten():
    root = {"properties": {"default": {"title": "a"}, "enum": {"title": "b"}}, "default": {"title": "data"}}
    rewritten = rewrite(root, lambda schema: {**schema, "title": "new"})
    assert rewritten == {
        "title": "new",
        "properties": {"default": {"title": "new"}, "enum": {"title": "new"}},
        "default": {"title": "data"},
    }


def test_entries_are_bounded_where_the_reader_asks_for_it():
    document = {"a": [{"b": {"c": 1}}, {"d": 2}], "e": [{"f": 3}]}
    assert [key for key, _ in entries(document)] == ["a", "b", "c", "d", "e", "f"]
    assert [key for key, _ in entries(document, max_items=1)] == ["a", "b", "c", "e", "f"]
    assert [key for key, _ in entries(document, max_depth=2)] == ["a", "b", "d", "e", "f"]
    assert [key for key, _ in entries(document, closed=frozenset({"e"}))] == ["a", "b", "c", "d", "e"]
