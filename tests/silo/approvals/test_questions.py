"""The keys of approvals: they are stored, so their derivation never changes; a different call has a different key."""

from __future__ import annotations

from dataclasses import replace

from silo.approvals.questions import call_key, call_question, profile, secret_key, shown
from silo.model import Call, Caller, File, Isolation
from silo.schema.canonical import HashedArguments, file_digest
from silo.testing.fakes import make_skill, make_tool

TOOL = make_tool(secrets=["KEY"])
SKILL = make_skill(TOOL)
CALL = Call("c", TOOL.id, {}, Caller("mcp", "client"))
FILES = {"data": [File(b"x", "text/csv", "a.csv"), File(b"")], "n": 1}


def key(arguments, call=CALL, skill=SKILL, tool=TOOL, isolation=Isolation.MICROVM):
    return call_key(call, HashedArguments(arguments), skill, tool, isolation)


def test_keys_are_those_of_version_1():
    assert key({}) == "cb3361105010db6d461c183fc0364dd2a839b3bcf00d5a3b7414998077e0f5df"
    plain = {"b": [1, 2.5, None, True], "a": {"ä": "\u202e"}}
    assert key(plain) == "5102a7e60bdb19c6064f56d8188dbe3c01c590e1c1fffbe11802770ce1b8b9f5"
    assert key(FILES) == "ca49a3dfffb13b8f096d6003e3f70e52a9356dc5d6b676b7a04a761b8d6207e4"
    assert secret_key(CALL, SKILL, TOOL, "KEY") == "f637993205346d3a22fc7e1f96580cbc18d2d581a15228205223eb087b4b6b75"


def test_what_is_remembered_of_an_approved_call_is_that_of_version_1():
    assert profile(HashedArguments(FILES), SKILL, TOOL, Isolation.MICROVM) == {
        "argument data": "b17bd3e4d6952e87",
        "argument n": "6b86b273ff34fce1",
        "script": "d" * 16,
        "secrets": "KEY",
        "network": "",
        "isolation": "microvm",
    }


def test_whatever_a_person_agrees_to_is_part_of_the_key():
    keys = {
        key(FILES),
        key({**FILES, "n": 2}),
        key({**FILES, "data": [File(b"y", "text/csv", "a.csv"), File(b"")]}),
        key({**FILES, "data": [File(b"x", "text/csv", "b.csv"), File(b"")]}),
        key({**FILES, "data": [File(b"x", "text/plain", "a.csv"), File(b"")]}),
        key(FILES, call=replace(CALL, caller=Caller("mcp", "another"))),
        key(FILES, call=replace(CALL, caller=Caller("cli", "client"))),
        key(FILES, skill=replace(SKILL, digest="e" * 64)),
        key(FILES, tool=replace(TOOL, name="other")),
        key(FILES, isolation=Isolation.NAMESPACE),
    }
    assert len(keys) == 10


def test_a_text_that_reads_like_a_file_is_shown_as_a_text():
    file = File(b"x", "text/csv", "a.csv")
    sentence = shown(file, file_digest)
    for text in (sentence, f"text: {sentence}", sentence.upper(), f" {sentence}", f"\u200b{sentence}\nmore"):
        assert shown({"a": [text]}, file_digest) == {"a": [f"text: {text}"]}
        assert shown(text, file_digest) != sentence
    for text in ("file", "a file of mine", "file a.csv", "text: hello", "SHA-256"):
        assert shown(text, file_digest) == text


def test_a_question_shows_a_file_by_its_name_size_and_hash():
    call = replace(CALL, arguments=FILES)
    fingerprint = HashedArguments(FILES)
    now = profile(fingerprint, SKILL, TOOL, Isolation.MICROVM)
    question = call_question(call, fingerprint, SKILL, TOOL, Isolation.MICROVM, why="rule", before=None, now=now)
    assert dict(question.arguments) == {
        "data": [
            "file a.csv, text/csv, 1 bytes, SHA-256 2d711642b726b044…",
            "file without a name, application/octet-stream, 0 bytes, SHA-256 e3b0c44298fc1c14…",
        ],
        "n": 1,
    }
