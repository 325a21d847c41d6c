"""File arguments: where a tool takes a file, and where it takes none."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import ArgumentsInvalid, FileRefused
from silo.model import File
from silo.schema.files import FileArgument, find_files, put_in
from silo.testing.fakes import make_tool

FILE = {"anyOf": [{"type": "string"}, {"type": "object"}], "x-silo-file": True}
TOOL = make_tool(
    properties={
        "one": FILE,
        "perhaps": {"anyOf": [FILE, {"type": "null"}]},
        "many": {"type": "array", "items": FILE},
        "named": {"type": "object", "additionalProperties": FILE},
        "pair": {"type": "array", "prefixItems": [FILE, {"type": "string"}]},
        "mixed": {"type": "array", "prefixItems": [{"type": "string"}], "items": FILE},
        "deep": {"$ref": "#/$defs/Deep"},
        "either": {"anyOf": [FILE, {"type": "string"}]},
        "plain": {"type": "string"},
        "anything": {},
    }
)
TOOL.input_schema["$defs"] = {
    "Deep": {"type": "object", "properties": {"inner": FILE, "next": {"$ref": "#/$defs/Deep"}}}
}


def numbered(value, places):
    """The arguments with the number of each file in its place, in a class that JSON does not have."""
    if isinstance(value, FileArgument):
        return (places.index(value),)
    if isinstance(value, dict):
        return {key: numbered(item, places) for key, item in value.items()}
    return [numbered(item, places) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("arguments", "replaced"),
    [
        ({"one": "AAAA"}, {"one": (0,)}),
        ({"perhaps": "AAAA"}, {"perhaps": (0,)}),
        ({"perhaps": None}, {"perhaps": None}),
        ({"many": ["AAAA", "BBBB"]}, {"many": [(0,), (1,)]}),
        ({"named": {"x": "AAAA", "$file": "AAAA"}}, {"named": {"x": (0,), "$file": (1,)}}),
        ({"pair": ["AAAA", "AAAA"]}, {"pair": [(0,), "AAAA"]}),
        ({"mixed": ["AAAA", "AAAA", "AAAA"]}, {"mixed": ["AAAA", (0,), (1,)]}),
        ({"deep": {"next": {"next": {"inner": "AAAA"}}}}, {"deep": {"next": {"next": {"inner": (0,)}}}}),
        ({"either": "just text"}, {"either": "just text"}),
        ({"either": "data:,x"}, {"either": (0,)}),
        ({"either": "Data:,x"}, {"either": (0,)}),
        ({"either": "FILE:///x"}, {"either": (0,)}),
        ({"plain": "AAAA", "anything": {"$file": 3}}, {"plain": "AAAA", "anything": {"$file": 3}}),
        ({"anything": ("a", "b")}, {"anything": ["a", "b"]}),
    ],
)
def test_files_are_found_wherever_the_schema_has_one_and_nowhere_else(arguments, replaced):
    found, places = find_files(TOOL, arguments)
    assert numbered(found, places) == replaced


@pytest.mark.parametrize("index", [0, -9, True, "x", None])
def test_no_object_stands_for_a_file(index):
    with pytest.raises(ArgumentsInvalid, match="no 'uri'"):
        find_files(TOOL, {"one": {"$file": index}})
    found, places = find_files(TOOL, {"one": File(b"x"), "anything": {"$file": index}})
    assert put_in(found, {places[0]: File(b"x")}) == {"one": File(b"x"), "anything": {"$file": index}}


@pytest.mark.parametrize("tool", [TOOL, make_tool()], ids=["files", "no files"])
def test_a_file_where_none_belongs_is_refused(tool):
    for name in ("plain", "anything"):
        with pytest.raises(ArgumentsInvalid, match="takes no file"):
            find_files(tool, {name: [{"a": File(b"x")}]})


def test_more_files_than_the_wire_carries_are_refused():
    with pytest.raises(FileRefused, match="32 files"):
        find_files(TOOL, {"many": ["AAAA"] * 33})


values = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=5), st.builds(File, st.binary(max_size=3))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


@given(st.lists(st.builds(File, st.binary(max_size=3)), max_size=4), st.text(max_size=5))
def test_what_was_taken_out_can_be_put_in_again(many, plain):
    arguments = {"many": many, "plain": plain, "deep": {"next": {"inner": File(b"deep")}}}
    replaced, places = find_files(TOOL, arguments)
    assert put_in(replaced, {place: place.given for place in places}) == arguments


@given(st.dictionaries(st.sampled_from(["one", "perhaps", "many", "named", "plain", "anything"]), values))
def test_no_file_is_left_among_arguments_whatever_they_are(arguments):
    def files(value, kind):
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [value] if isinstance(value, kind) else [found for item in inside for found in files(item, kind)]

    try:
        replaced, places = find_files(TOOL, arguments)
    except (ArgumentsInvalid, FileRefused):
        return
    assert not files(replaced, File)
    assert files(replaced, FileArgument) == list(places)
    assert len(places) >= len(files(arguments, File))


# --- how long it takes ------------------------------------------------------------------------------------------------


def branches(count, **more):
    """A union of many objects, with a file in the last of them."""
    kinds = [{"type": "object", "properties": {f"n{i}": {"type": "string"}, **more}} for i in range(count)]
    return {"anyOf": [*kinds, {"type": "object", "properties": {"file": FILE}}]}


def test_many_items_of_a_union_of_many_objects_take_no_longer_than_the_items():
    """Past fault: 500 branches took 6 s for 2,000 items, because each item was compared with each branch."""
    tool = make_tool(properties={"rows": {"type": "array", "items": branches(500)}})
    rows = [{f"n{i % 500}": "x", f"z{i}": {"n1": "y"}} for i in range(20_000)]
    rows[0] = {"n7": "x", "other": 1, "file": "AAAA"}
    started = time.thread_time()
    _, places = find_files(tool, {"rows": rows})
    assert [place.where for place in places] == ["arguments.rows[0].file"]
    assert time.thread_time() - started < 20


def test_a_schema_without_files_costs_nothing_whatever_it_is():
    tool = make_tool(properties={"rows": {"items": {"anyOf": [{"properties": {"a": {}}}] * 2000}}})
    started = time.thread_time()
    assert find_files(tool, {"rows": [{"a": {}}] * 50_000})[1] == ()
    assert time.thread_time() - started < 20


def test_a_search_among_ever_new_schemas_ends():
    """600 properties; each may be any of the last so many of 600 objects, so no two are described alike."""
    objects = [{"properties": {"file": FILE, f"n{i}": {}}} for i in range(600)]
    tool = make_tool(properties={f"p{i}": {"anyOf": objects[i:]} for i in range(600)})
    assert find_files(tool, {f"p{i}": {"file": "AAAA"} for i in range(30)})[1]
    started = time.thread_time()
    with pytest.raises(ArgumentsInvalid, match="take too long to compare"):
        find_files(tool, {f"p{i}": [] for i in range(600)})
    assert time.thread_time() - started < 20
