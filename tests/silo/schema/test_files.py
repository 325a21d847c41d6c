"""File arguments: where a tool takes a file, and where it takes none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import ArgumentsInvalid, FileRefused
from silo.model import File
from silo.schema.files import find_files, put_back
from silo.testing.fakes import make_tool

FILE = {"anyOf": [{"type": "string"}, {"type": "object"}], "x-silo-file": True}
TOOL = make_tool(
    properties={
        "one": FILE,
        "perhaps": {"anyOf": [FILE, {"type": "null"}]},
        "many": {"type": "array", "items": FILE},
        "named": {"type": "object", "additionalProperties": FILE},
        "pair": {"type": "array", "prefixItems": [FILE, {"type": "string"}]},
        "deep": {"$ref": "#/$defs/Deep"},
        "either": {"anyOf": [FILE, {"type": "string"}]},
        "plain": {"type": "string"},
        "anything": {},
    }
)
TOOL.input_schema["$defs"] = {
    "Deep": {"type": "object", "properties": {"inner": FILE, "next": {"$ref": "#/$defs/Deep"}}}
}


@pytest.mark.parametrize(
    ("arguments", "replaced"),
    [
        ({"one": "AAAA"}, {"one": {"$file": 0}}),
        ({"perhaps": "AAAA"}, {"perhaps": {"$file": 0}}),
        ({"perhaps": None}, {"perhaps": None}),
        ({"many": ["AAAA", "BBBB"]}, {"many": [{"$file": 0}, {"$file": 1}]}),
        ({"named": {"x": "AAAA"}}, {"named": {"x": {"$file": 0}}}),
        ({"pair": ["AAAA", "AAAA"]}, {"pair": [{"$file": 0}, "AAAA"]}),
        ({"deep": {"next": {"next": {"inner": "AAAA"}}}}, {"deep": {"next": {"next": {"inner": {"$file": 0}}}}}),
        ({"either": "just text"}, {"either": "just text"}),
        ({"either": "data:,x"}, {"either": {"$file": 0}}),
        ({"either": "Data:,x"}, {"either": {"$file": 0}}),
        ({"either": "FILE:///x"}, {"either": {"$file": 0}}),
        ({"plain": "AAAA", "anything": {"$file": 3}}, {"plain": "AAAA", "anything": {"$file": 3}}),
        ({"anything": ("a", "b")}, {"anything": ["a", "b"]}),
    ],
)
def test_files_are_found_wherever_the_schema_has_one_and_nowhere_else(arguments, replaced):
    assert find_files(TOOL, arguments)[0] == replaced


def test_a_caller_can_not_forge_the_token_of_a_file():
    with pytest.raises(ArgumentsInvalid, match="no 'uri'"):
        find_files(TOOL, {"one": {"$file": 0}})


def test_a_file_where_none_belongs_is_refused():
    for name in ("plain", "anything"):
        with pytest.raises(ArgumentsInvalid, match="takes no file"):
            find_files(TOOL, {name: File(b"x")})


def test_more_files_than_the_wire_carries_are_refused():
    with pytest.raises(FileRefused, match="32 files"):
        find_files(TOOL, {"many": ["AAAA"] * 33})


values = st.recursive(
    st.one_of(st.none(), st.integers(), st.text(max_size=5), st.builds(File, st.binary(max_size=3))),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)


@pytest.mark.parametrize("index", [-1, 1, True, 0.0, "0", None])
def test_what_only_looks_like_a_file_is_none(index):
    files = (File(b"x", "text/plain", "x"),)
    assert put_back({"free": {"$file": index}}, files) == {"free": {"$file": index}}


@given(st.lists(st.builds(File, st.binary(max_size=3)), max_size=4), st.text(max_size=5))
def test_what_was_taken_out_can_be_put_back(many, plain):
    arguments = {"many": many, "plain": plain, "deep": {"next": {"inner": File(b"deep")}}}
    replaced, places = find_files(TOOL, arguments)
    assert put_back(replaced, tuple(place.given for place in places)) == arguments


@given(st.dictionaries(st.sampled_from(["one", "perhaps", "many", "named", "plain", "anything"]), values))
def test_no_file_is_left_among_arguments_whatever_they_are(arguments):
    def files(value):
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return [value] if isinstance(value, File) else [found for item in inside for found in files(item)]

    try:
        replaced, places = find_files(TOOL, arguments)
    except (ArgumentsInvalid, FileRefused):
        return
    assert not files(replaced)
    assert len(places) >= len(files(arguments))
