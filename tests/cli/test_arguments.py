"""From words to arguments: examples for each type, and properties that hold for any words and any schema."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.cli.arguments import FromFile, parse_document, parse_words, split_words
from silo.errors import ArgumentsInvalid, SiloError, ToolUnknown, UsageError

FILE = {"type": "string", "x-silo-file": True}


def convert(text, schema, **definitions):
    return parse_words([f"key={text}"], {"properties": {"key": schema}, "$defs": definitions})["key"]


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "string"}, "42", "42"),
        ({"type": "string"}, "", ""),
        ({"type": "string"}, "a=b", "a=b"),
        ({"type": "string"}, "@path", "@path"),
        ({"type": "integer"}, "-42", -42),
        ({"type": "integer"}, "4.5", "4.5"),
        ({"type": "integer"}, "٤", "٤"),
        ({"type": "number"}, "1e3", 1000.0),
        ({"type": "number"}, "7", 7),
        ({"type": "number"}, "nan", "nan"),
        ({"type": "number"}, "1_0.5", "1_0.5"),
        ({"type": "boolean"}, "Yes", True),
        ({"type": "boolean"}, "off", False),
        ({"type": "boolean"}, "maybe", "maybe"),
        ({"type": "null"}, "null", None),
        ({"type": ["integer", "null"]}, "null", None),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"type": "array"}, "[1, 2]", [1, 2]),
        ({"type": "array", "items": {"type": "integer"}}, "7", [7]),
        ({"type": "array", "items": {"type": "string"}}, "7", ["7"]),
        ({"type": "array"}, "a b", ["a b"]),
        ({"enum": ["1", 1, "b"]}, "1", "1"),
        ({"enum": [1, 2]}, "2", 2),
        ({"const": True}, "true", True),
        ({"type": "string", "enum": ["csv", "json"]}, "xml", "xml"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "5", 5),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "5", "5"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", None),
        ({"$ref": "#/$defs/Level"}, "3", 3),
        ({"$ref": "#/$defs/Missing"}, "x", "x"),
        ({}, "5", 5),
        ({}, "plain", "plain"),
        (FILE, "@a/b.csv", FromFile("a/b.csv")),
        (FILE, "data:text/plain,x", "data:text/plain,x"),
        ({"anyOf": [FILE, {"type": "null"}]}, "@x", FromFile("x")),
        ({"anyOf": [FILE, {"type": "null"}]}, "null", None),
        ({"type": "array", "items": FILE}, "@x", [FromFile("x")]),
    ],
)
def test_a_value_is_what_the_schema_makes_of_it(schema, text, value):
    found = convert(text, schema, Level={"type": "integer"})
    assert found == value
    assert type(found) is type(value)


def test_a_key_given_several_times_makes_a_list_where_one_is_taken():
    schema = {"properties": {"key": {"type": "array", "items": {"type": "integer"}}, "one": {"type": "integer"}}}
    assert parse_words(["key=1", "key=[2, 3]", "key=4"], schema) == {"key": [1, 2, 3, 4]}
    with pytest.raises(ArgumentsInvalid, match="'one' was given 2 times"):
        parse_words(["one=1", "one=1"], schema)


def test_json_is_taken_as_it_stands_and_a_bare_word_is_true():
    assert parse_words(['a:={"b": [1]}', "c:=null", "d"], {}) == {"a": {"b": [1]}, "c": None, "d": True}


def test_broken_json_is_told_where_nothing_else_can_be_meant():
    for schema in ({"type": "object"}, {"type": "array", "items": {"type": "integer"}}):
        with pytest.raises(ArgumentsInvalid, match="key is not JSON"):
            convert("[1,", schema)
    with pytest.raises(ArgumentsInvalid, match="nests too deep"):
        parse_document("[" * 100_000)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a.b", "c=1"], ("a.b", ["c=1"])),
        (["a", "b", "c=1"], ("a.b", ["c=1"])),
        (["a__b"], ("a__b", [])),
        (["a", "b"], ("a.b", [])),
    ],
)
def test_the_tool_is_one_word_or_two(words, expected):
    assert split_words(words) == expected


@pytest.mark.parametrize("words", [[], ["a"], ["a", "b=1"]])
def test_words_without_a_tool_are_refused(words):
    with pytest.raises(UsageError):
        split_words(words, lambda: ["a.tool"])


@pytest.mark.parametrize(("word", "near"), [("jwtsign", "jwt.sign"), ("sign", "jwt.sign"), ("qqq", "silo list")])
def test_a_word_that_is_no_skill_gets_the_nearest_tools(word, near):
    with pytest.raises(ToolUnknown) as caught:
        split_words([word, "x=1"], lambda: ["jwt.sign", "jwt.verify", "table.query"])
    assert near in caught.value.hint


def test_a_list_of_lists_without_end_takes_no_text():
    schema = {"$defs": {"self": {"type": "array", "items": {"$ref": "#/$defs/self"}}}}
    schema["properties"] = {"key": {"$ref": "#/$defs/self"}}
    with pytest.raises(ArgumentsInvalid):
        parse_words(["key=x"], schema)
    assert parse_words(["key=[[]]"], schema) == {"key": [[]]}


SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=10)
VALUES = st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one), max_leaves=8
)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "null", "object", "array", "nonsense", 7])
PLAIN = st.builds(lambda kind: {"type": kind}, TYPES) | st.just(FILE) | st.builds(lambda v: {"enum": v}, VALUES)
SCHEMAS = st.recursive(
    PLAIN | VALUES,
    lambda one: (
        st.builds(lambda v: {"anyOf": v}, st.lists(one, max_size=3))
        | st.builds(lambda v: {"type": "array", "items": v}, one)
        | st.sampled_from([{"$ref": "#/$defs/self"}, {"$ref": "elsewhere"}])
    ),
    max_leaves=6,
)


@given(st.lists(st.text(max_size=20) | st.from_regex(r"key:?=.{0,10}"), max_size=5), SCHEMAS)
def test_any_words_and_any_schema_give_arguments_or_an_error_of_ours(words, schema):
    """The schema comes from a skill, so it may be anything that the catalog accepts, and more."""
    root = {"properties": {"key": schema}, "$defs": {"self": schema}}
    with suppress(SiloError):
        assert all(isinstance(name, str) for name in parse_words(words, root))


@given(VALUES, SCHEMAS)
def test_json_that_is_forced_comes_through_unchanged_whatever_the_schema(value, schema):
    assert parse_words([f"key:={json.dumps(value)}"], {"properties": {"key": schema}}) == {"key": value}


@given(st.text())
def test_a_text_comes_through_unchanged_where_text_is_taken(text):
    assert convert(text, {"type": "string"}) == text
