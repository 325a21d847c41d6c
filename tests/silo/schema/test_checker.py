"""Checking values against hostile schemas: right, bounded in time, and without a single connection."""

import itertools
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from silo.schema.checker import CHECK_SECONDS, CheckTooLong, SchemaChecker, SchemaUnusable
from silo.schema.files import FileArgument
from silo.schema.walk import describe_path

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1000, 1000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=10,
)
SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {},
            True,
            False,
            {"type": "integer"},
            {"type": ["string", "null"]},
            {"type": "string", "pattern": "^a+b?$"},
            {"const": 1},
            {"enum": ["a", 2, None]},
            {"minimum": 3},
            {"type": "array", "uniqueItems": True},
            {"maxLength": 2},
        ]
    ),
    lambda inner: (
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2)}, optional={
            "additionalProperties": inner,
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "c$"]), inner, max_size=1),
            "required": st.lists(st.sampled_from("abc"), unique=True, max_size=2),
        })
        | st.fixed_dictionaries({"items": inner})
        | st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)})
        | st.fixed_dictionaries({"not": inner})
    ),
    max_leaves=6,
)  # fmt: skip


@settings(deadline=None)
@given(SCHEMAS.filter(lambda schema: isinstance(schema, dict)), JSON)
def test_it_agrees_with_jsonschema_where_both_can_judge(schema, value):
    flaw = SchemaChecker(schema).flaw(value)
    assert (flaw is None) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [(r"^(a+)+$", "a" * 50_000 + "!"), (r"^(\w+\s?)*$", "word " * 10_000 + "\0"), (r"(x+x+)+y", "x" * 50_000)],
)
def test_a_pattern_that_backtracks_without_end_is_answered_at_once(pattern, text):
    checker = SchemaChecker({"type": "string", "pattern": pattern}, clock=lambda: 0.0)
    started = time.thread_time()
    assert checker.flaw(text) is not None
    assert time.thread_time() - started < 60  # trying all ways would take billions of years


@pytest.mark.parametrize("pattern", [r"(?:(?:[a-z]?){90}){90}[0-9]", r"(?:x?y?z?w?){1000}[0-9]"])
def test_a_pattern_that_is_costly_for_a_long_text_is_given_up(pattern):
    with pytest.raises(CheckTooLong):
        SchemaChecker({"pattern": pattern}).flaw("xyzw" * 20_000)


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": r"(?!x)"},
        {"pattern": r"(a)\1"},
        {"pattern": "["},
        {"pattern": "a" * 5000},
        {"pattern": r"(a{1000}){1000}"},
        {"patternProperties": {"(?<=x)": {}}},
        {"properties": {"deep": {"items": {"pattern": "(?=x)"}}}},
        {"type": "nonsense"},
        {"minimum": "three"},
        {"unevaluatedProperties": False},
        {"$dynamicRef": "#x"},
        {"$id": "https://example.com/", "$ref": "#/x"},
        {"$ref": "other.json"},
        {"$ref": "file:///etc/passwd"},
    ],
)
def test_a_schema_that_can_not_be_checked_is_refused_when_it_is_read(schema):
    with pytest.raises(SchemaUnusable):
        SchemaChecker(schema)


def test_a_deep_schema_is_refused():
    schema: dict = {}
    for _ in range(200):
        schema = {"items": schema}
    with pytest.raises(SchemaUnusable, match="nests deeper"):
        SchemaChecker(schema)
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(SchemaUnusable, match="nests too deep"):
        SchemaChecker({"required": deep})


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"$ref": "#"}, 1),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, 1),
        ({"$ref": "#/$defs/missing"}, 1),
    ],
)
def test_references_in_a_circle_or_to_nowhere_end(schema, value):
    with pytest.raises(SchemaUnusable):
        SchemaChecker(schema).flaw(value)


def test_a_reference_to_an_address_is_never_followed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        with pytest.raises(SchemaUnusable):
            SchemaChecker({"properties": {"a": {"$ref": url}}}).flaw({"a": 1})
        with pytest.raises(BlockingIOError):
            server.accept()


def test_alternatives_that_multiply_end_at_the_deadline():
    definitions = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 4} for i in range(20)} | {
        "d20": {"type": "integer"}
    }
    clock = itertools.count(step=CHECK_SECONDS / 1000)  # after a thousand readings, the time is over
    checker = SchemaChecker({"$ref": "#/$defs/d0", "$defs": definitions}, clock=lambda: next(clock))
    with pytest.raises(CheckTooLong):
        checker.flaw(1)


def test_a_long_list_of_objects_is_compared_in_linear_time():
    items = [{"n": n} for n in range(50_000)]
    checker = SchemaChecker({"uniqueItems": True})
    assert checker.flaw(items) is None
    assert checker.flaw([*items, {"n": 3.0}]) is not None


def test_a_flaw_names_its_place():
    schema = {"properties": {"items": {"type": "array", "items": {"properties": {"price": {"type": "number"}}}}}}
    flaw = SchemaChecker(schema).flaw({"items": [{"price": 1}, {"price": "x"}]})
    assert describe_path("arguments", flaw.path) == "arguments.items[1].price"
    assert flaw.message == "'x' is not of type 'number'"


def test_a_message_about_a_huge_value_is_short_and_says_what_was_expected():
    flaw = SchemaChecker({"type": "integer"}).flaw("x" * 1_000_000)
    assert len(flaw.message) < 400
    assert flaw.message.endswith("is not of type 'integer'")


def test_a_million_errors_are_one_flaw():
    started = time.thread_time()
    assert SchemaChecker({"items": {"type": "integer"}}, clock=lambda: 0.0).flaw(["x"] * 100_000) is not None
    assert time.thread_time() - started < 60  # describing each of them would take minutes


FILE = {"anyOf": [{"type": "string"}], "x-silo-file": True}


@pytest.mark.parametrize("root", [{}, {"$schema": "https://json-schema.org/draft/2020-12/schema"}])
def test_a_file_is_what_was_found_to_be_one_and_no_json_value(root):
    """With `$schema`, what `$ref: "#"` leads to was checked by another validator, which takes anything for a file."""
    checker = SchemaChecker({**root, "properties": {"data": FILE, "inner": {"$ref": "#"}}})
    assert checker.flaw({"data": FileArgument("arguments.data", "")}) is None
    for other in ("text", {"$file": 0}, {"$file": -1}, {"uri": "file:///x"}, None, [], 1, True):
        assert checker.flaw({"data": other}) is not None
        assert checker.flaw({"inner": {"inner": {"data": other}}}).message.endswith("is not a file")
    assert SchemaChecker({"type": "string"}).flaw(FileArgument("a", "text")) is not None
    both = [FileArgument("a", "x"), FileArgument("b", "x")]
    assert SchemaChecker({"uniqueItems": True, "items": FILE}).flaw(both) is None


def test_names_that_look_like_keywords_are_only_names():
    schema = {"properties": {"pattern": {"type": "string"}, "$ref": {"type": "integer"}, "default": {"pattern": "^a"}}}
    assert SchemaChecker(schema).flaw({"pattern": "(?!x)", "$ref": 1, "default": "ab"}) is None
