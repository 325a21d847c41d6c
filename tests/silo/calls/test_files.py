"""Files of a call: what is read, and attempts to get out of the allowed folders."""

import base64
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.calls.files import InputRules, load_files
from silo.errors import ArgumentsInvalid, FileRefused
from silo.model import File
from silo.schema.files import find_files
from silo.testing.fakes import make_tool
from silo.wire.rules import is_media_type, is_safe_name

NOTHING_ALLOWED = InputRules()
FILE = {"anyOf": [{"type": "string"}, {"type": "object"}], "x-silo-file": True}
TOOL = make_tool(properties={"one": FILE, "many": {"type": "array", "items": FILE}})


def encoded(data):
    return base64.b64encode(data).decode()


def load(arguments, rules=NOTHING_ALLOWED):
    replaced, places = find_files(TOOL, arguments)
    return replaced, load_files(places, rules)


@pytest.fixture
def allowed(tmp_path):
    folder = tmp_path / "allowed"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.csv").write_bytes(b"x,y\n")
    (folder / "sub" / "b c.txt").write_bytes(b"deep")
    (tmp_path / "outside.txt").write_bytes(b"OUTSIDE")
    return folder


def read(allowed, path, **fields):
    return load({"one": f"file://{path}"}, InputRules((allowed,), **fields))[1][0]


# --- what was given ---------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_bytes_survive_every_way_in(data):
    for given_ in (
        encoded(data),
        f"data:;base64,{encoded(data)}",
        {"uri": f"data:a/b;base64,{encoded(data)}"},
        File(data),
    ):
        assert load({"one": given_})[1][0].data == data


def test_a_data_uri_brings_its_type_and_a_link_its_labels():
    assert load({"one": "data:text/csv,a%2Cb"})[1] == (File(b"a,b", "text/csv", "input-0"),)
    assert load({"one": "data:,x"})[1][0].media_type == "text/plain"
    link = {
        "type": "resource_link",
        "uri": "data:text/csv,x",
        "name": "sales.csv",
        "mimeType": "text/tab-separated-values",
    }
    assert load({"one": link})[1] == (File(b"x", "text/tab-separated-values", "sales.csv"),)


@pytest.mark.parametrize("text", ["not base64!", "AAA", "data:nothing", "data:;base64,!!!"])
def test_text_that_is_no_file_says_what_would_be_one(text):
    with pytest.raises(ArgumentsInvalid) as caught:
        load({"one": text})
    assert "arguments.one" in str(caught.value)
    assert caught.value.hint


@given(st.text(max_size=300), st.text(max_size=50))
def test_labels_are_safe_for_the_wire_whatever_was_given(name, media_type):
    (file,) = load({"one": File(b"x", media_type, name)})[1]
    assert is_safe_name(file.name)
    assert is_media_type(file.media_type)


def test_files_are_bounded_together():
    rules = InputRules(max_bytes=10)
    load({"many": [encoded(b"12345"), encoded(b"12345")]}, rules)
    with pytest.raises(FileRefused):
        load({"many": [encoded(b"12345"), encoded(b"123456")]}, rules)
    with pytest.raises(FileRefused):
        load({"one": File(b"x" * 11)}, rules)
    with pytest.raises(FileRefused):
        load({"one": "data:," + "x" * 11}, rules)


# --- files of the host ------------------------------------------------------------------------------------------------


def test_a_file_of_an_allowed_folder_is_read(allowed):
    assert read(allowed, f"{allowed}/a.csv") == File(b"x,y\n", "text/csv", "a.csv")
    assert read(allowed, f"localhost{allowed}/sub/b%20c.txt").data == b"deep"


def test_an_allowed_folder_may_itself_be_reached_through_a_link(allowed, tmp_path):
    (tmp_path / "alias").symlink_to(allowed)
    rules = InputRules((tmp_path / "alias",))
    for spelling in (tmp_path / "alias", allowed):
        assert load({"one": f"file://{spelling}/a.csv"}, rules)[1][0].data == b"x,y\n"


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "file://{outside}",
        "file://{allowed}",
        "file://{allowed}/",
        "file://{allowed}x/a.csv",
        "file://{allowed}/../outside.txt",
        "file://{allowed}/%2e%2e/outside.txt",
        "file://{allowed}/sub/../a.csv",
        "file://{allowed}/a.csv%00.txt",
        "file://{allowed}/missing",
        "file://{allowed}/sub",
        "file://{allowed}/a.csv?x",
        "file://{allowed}/a.csv#x",
        "file://elsewhere{allowed}/a.csv",
        "file:a.csv",
        "file:",
        "file:/proc/self/environ",
        "file:///dev/zero",
    ],
)
def test_everything_else_is_refused_with_a_way_out(allowed, tmp_path, uri):
    uri = uri.format(allowed=allowed, outside=tmp_path / "outside.txt")
    with pytest.raises(FileRefused) as caught:
        load({"one": uri}, InputRules((allowed,)))
    assert caught.value.hint


def test_no_address_is_fetched():
    with pytest.raises(FileRefused, match="'https' links"):
        load({"one": {"uri": "https://example.com/a.csv"}})


def test_the_refusal_says_how_to_allow_the_folder(tmp_path):
    with pytest.raises(FileRefused) as caught:
        load({"one": f"file://{tmp_path}/a.csv"})
    assert "allowed: none" in str(caught.value)
    assert f"[files] allow_read = ['{tmp_path}']" in caught.value.hint


@pytest.mark.parametrize("where", ["link", "folder/outside.txt", "folder/allowed/a.csv", "up/outside.txt"])
def test_no_link_below_the_folder_is_followed(allowed, tmp_path, where):
    (allowed / "link").symlink_to(tmp_path / "outside.txt")
    (allowed / "folder").symlink_to(tmp_path)
    (allowed / "up").symlink_to("..")
    with pytest.raises(FileRefused, match="link"):
        read(allowed, f"{allowed}/{where}")


def test_fifos_and_sockets_are_neither_read_nor_waited_for(allowed, monkeypatch):
    os.mkfifo(allowed / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(allowed)  # the path of a socket may have 107 characters
        server.bind("socket")
        for name in ("fifo", "socket"):
            with pytest.raises(FileRefused, match="not a regular file"):
                read(allowed, f"{allowed}/{name}")


def test_a_file_is_not_read_beyond_its_limit(allowed):
    with (allowed / "sparse").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(FileRefused, match="1 MiB together"):
        read(allowed, f"{allowed}/sparse", max_bytes=1024 * 1024)


def test_silos_own_state_is_out_of_reach_even_in_an_allowed_folder(allowed):
    home = allowed / "sub"
    (home / "run").mkdir()
    (home / "run" / "x").write_text("state")
    for name in ("b%20c.txt", "run/x"):
        with pytest.raises(FileRefused, match="belongs to silo itself"):
            read(allowed, f"{home}/{name}", forbidden=(home,))
    with pytest.raises(FileRefused, match="belongs to silo itself"):
        read(home / "run", f"{home}/run/x", forbidden=(home / "run",))


def test_a_missing_folder_allows_nothing(tmp_path):
    gone = tmp_path / "gone"
    with pytest.raises(FileRefused):
        load({"one": f"file://{gone}/a.csv"}, InputRules((gone,), forbidden=(gone,)))


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_left_open(allowed):
    before = open_descriptors()
    read(allowed, f"{allowed}/sub/b%20c.txt")
    for path in (f"{allowed}/missing", f"{allowed}/sub", "/etc/passwd"):
        with pytest.raises(FileRefused):
            read(allowed, path)
    assert open_descriptors() == before


def refused(link, rules):
    _, places = find_files(TOOL, {"one": link})
    with pytest.raises(FileRefused) as caught:
        load_files(places, rules)
    return caught.value


@pytest.mark.parametrize(
    "uri", ["file://[bad/x", "file://[::1/x", "file://a b/x", "FILE://elsewhere/x", "file://\u2100/x", "file:x"]
)
def test_a_link_that_is_broken_is_refused_and_no_bug(uri):
    for link in (uri, {"uri": uri}):
        assert "not a link to a file of this machine" in refused(link, NOTHING_ALLOWED).message


@given(st.text(max_size=60))
def test_whatever_follows_a_scheme_is_read_or_refused(rest):
    for uri in (f"file:{rest}", f"file://{rest}", f"file://[{rest}", f"data:{rest}"):
        with suppress(ArgumentsInvalid, FileRefused):
            load({"one": {"uri": uri}})


def test_the_case_of_a_scheme_does_not_matter(tmp_path):
    """RFC 3986 §3.1."""
    (tmp_path / "a.txt").write_text("content")
    for uri in (f"FILE://{tmp_path}/a.txt", f"File:{tmp_path}/a.txt", "DATA:text/plain,content"):
        for link in (uri, {"uri": uri}):
            _, places = find_files(TOOL, {"one": link})
            [file] = load_files(places, InputRules(folders=(tmp_path,)))
            assert file.data == b"content"


def test_the_hint_for_a_refused_file_never_widens_more_than_it_must(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "credentials.silo").write_text("x")
    rules = InputRules(folders=(tmp_path / "allowed",), forbidden=(home,))
    own = refused(f"file://{home}/credentials.silo", rules)
    assert "belongs to silo itself" in own.message
    assert "allow_read" not in own.hint
    folder = refused(f"file://{tmp_path}/allowed", rules)
    assert "is a folder" in folder.message
    assert "allow_read" not in folder.hint
