"""Canonical JSON: one spelling for each value, and the hashes that are stored stay what they are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.model import File
from silo.schema.canonical import HashedArguments, canonical, comparable, file_digest, sha256_hex
from silo.schema.files import find_files
from silo.testing.fakes import make_tool

values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
    ),
    lambda inside: st.one_of(st.lists(inside, max_size=3), st.dictionaries(st.text(max_size=3), inside, max_size=3)),
    max_leaves=10,
)
arguments = st.dictionaries(st.text(max_size=5), values, max_size=4)


@given(values)
def test_canonical_json_is_json_and_its_own_canonical_form(value):
    text = canonical(value)
    assert canonical(json.loads(text)) == text
    assert text.isascii()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"x", {1, 2}, [object()]])
def test_what_json_does_not_have_is_refused(value):
    with pytest.raises((ValueError, TypeError)):
        canonical(value)


@given(arguments)
def test_arguments_without_files_are_compared_as_they_are_run(given_):
    """So the audit record and the approval can use the same hash."""
    replaced, places = find_files(make_tool(), given_)
    assert not places
    assert comparable(given_) == replaced
    assert HashedArguments(given_).sha256 == HashedArguments(replaced).sha256


marks = st.sampled_from(["$file", "$object", "a"])
lookalikes = st.recursive(
    st.one_of(st.builds(File, st.sampled_from([b"x", b"y"])), st.sampled_from([file_digest(File(b"x")), 0, 1, True])),
    lambda inside: st.one_of(st.lists(inside, max_size=2), st.dictionaries(marks, inside, max_size=2)),
    max_leaves=6,
)


def spelled(value):
    """The value with each class spelt out, so that only equal values have equal spellings."""
    if isinstance(value, dict):
        return {"object": {key: spelled(item) for key, item in value.items()}}
    if isinstance(value, list):
        return {"list": [spelled(item) for item in value]}
    return {type(value).__name__: str(value.data if isinstance(value, File) else value)}


@given(lookalikes, lookalikes)
def test_only_the_same_arguments_compare_as_the_same(one, other):
    """Past fault: a file and an object that holds its hash had one hash."""
    assert (canonical(comparable(one)) == canonical(comparable(other))) == (spelled(one) == spelled(other))


@given(arguments, st.binary(max_size=5), st.binary(max_size=5))
def test_the_content_of_a_file_counts(given_, one, other):
    first, second = ({**given_, "file": [File(data)]} for data in (one, other))
    assert (HashedArguments(first).sha256 == HashedArguments(second).sha256) == (one == other)


def test_the_hashes_of_version_1_stay_what_they_are():
    fingerprint = HashedArguments(
        {"b": (1, 2.5, None, True), "a": {"ä": "\u202e"}, "file": File(b"x", "text/csv", "a.csv")}
    )
    assert canonical(fingerprint.json) == (
        b'{"a":{"\\u00e4":"\\u202e"},"b":[1,2.5,null,true],'
        b'"file":{"$file":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}}'
    )
    assert fingerprint.sha256 == "cb6450b0a79df64acd2f480209921530934db92684a87fd9fe0fbce7a9d14fe1"
    assert {name: digest[:16] for name, digest in fingerprint.by_name.items()}["b"] == "99f246db70e30c03"
    assert fingerprint.labels == [["a.csv", "text/csv"]]


def test_a_file_is_hashed_once_and_only_if_somebody_asks():
    class Counted(File):
        """A file that counts how often its content is read."""

        reads = 0

        def __getattribute__(self, name):
            if name == "data":
                Counted.reads += 1
            return super().__getattribute__(name)

    file = Counted(b"x")
    Counted.reads = 0
    fingerprint = HashedArguments({"file": file})
    assert Counted.reads == 0
    for _ in range(3):
        assert sha256_hex(fingerprint.json) == fingerprint.sha256
        assert fingerprint.by_name
    assert Counted.reads == 1
