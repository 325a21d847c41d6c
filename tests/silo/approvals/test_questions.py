"""The keys of approvals: they are stored, so their derivation never changes; a different call has a different key."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.approvals.questions import (
    call_key,
    call_question,
    counted_as,
    profile,
    refusal_key,
    secret_key,
    secret_question,
    secret_refusal_key,
    shown,
)
from silo.model import Call, Caller, File, Isolation
from silo.schema.canonical import HashedArguments, file_digest
from silo.testing.fakes import make_skill, make_tool

TOOL = make_tool(secrets=["KEY"])
SKILL = make_skill(TOOL)
CALL = Call("c", TOOL.id, {}, Caller("mcp", "client"))
FILES = {"data": [File(b"x", "text/csv", "a.csv"), File(b"")], "n": 1}


def key(arguments, call=CALL, skill=SKILL, tool=TOOL, isolation=Isolation.MICROVM):
    return call_key(call, HashedArguments(arguments), skill, tool, isolation)


def test_keys_are_those_of_version_2():
    assert key({}) == "5321d7555279a691ce01eb8dc07d4a98362cd27909734ed09a04cf0a32f2526a"
    plain = {"b": [1, 2.5, None, True], "a": {"ä": "\u202e"}}
    assert key(plain) == "160803027f83beb0667c99103692b6105c49c19cf430fcbed01bc6ef470471c4"
    assert key(FILES) == "bf685305a3b6605320f2763bc77d5bcd834f1a3ba5d7a2670d9bb44d72a6dc58"
    assert given_for(FILES) == "0d47ac979514b581ed97b1dc640e6509edfcedfac52dd11d222dede326be1719"


def given_for(arguments, call=CALL, name="KEY", isolation=Isolation.MICROVM):
    return secret_key(call, HashedArguments(arguments), SKILL, TOOL, isolation, name)


def refused(arguments, call=CALL, skill=SKILL, tool=TOOL):
    return refusal_key(call, HashedArguments(arguments), skill, tool)


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
        key(FILES, call=replace(CALL, caller=Caller("mcp", "client", session="another"))),
        key(FILES, call=replace(CALL, caller=Caller("mcp", "client", terminal="one"))),
        key(FILES, skill=replace(SKILL, digest="e" * 64)),
        key(FILES, tool=replace(TOOL, name="other")),
        key(FILES, isolation=Isolation.NAMESPACE),
    }
    assert len(keys) == 12


def test_commands_at_one_terminal_share_approvals_and_sessions_never_do():
    one, other = (replace(CALL, caller=Caller("cli", "me", session, "tty")) for session in ("1", "2"))
    assert key(FILES, call=one) == key(FILES, call=other)
    one, other = (replace(CALL, caller=Caller("cli", "me", session)) for session in ("1", "2"))
    assert key(FILES, call=one) != key(FILES, call=other), "no person types them"
    assert counted_as(one.caller) == counted_as(other.caller), "or any number of them could wait"


def test_a_secret_that_was_typed_in_is_for_one_call_and_what_the_person_saw_of_it():
    keys = {
        given_for(FILES),
        given_for({**FILES, "n": 2}),
        given_for(FILES, name="OTHER"),
        given_for(FILES, isolation=Isolation.NAMESPACE),
        given_for(FILES, call=replace(CALL, caller=Caller("mcp", "client", session="another"))),
    }
    assert len(keys) == 5
    arguments = HashedArguments({"to": "mallory"})
    call = replace(CALL, arguments={"to": "mallory"}, caller=Caller("mcp", "client", session="s1"))
    question = secret_question(call, arguments, SKILL, TOOL, Isolation.MICROVM, "KEY", keeper="")
    assert question.arguments == (("to", "mallory"),)
    assert dict(question.facts)["session"] == "s1; a yes counts for this connection of this client only"


def test_who_types_a_secret_in_for_a_call_with_files_sees_them_as_who_agrees_to_it_does():
    call, arguments = replace(CALL, arguments=FILES), HashedArguments(FILES)
    question = secret_question(call, arguments, SKILL, TOOL, Isolation.MICROVM, "KEY", keeper="")
    agreed = call_question(call, arguments, SKILL, TOOL, Isolation.MICROVM, why="", before=None, now={})
    assert question.arguments == agreed.arguments
    assert "a.csv" in question.arguments[0][1][0]


ALIKE = [
    ({"text": "rm -r x"}, {"text": " rm -r  x\n"}),
    ({"text": "rm -r x"}, {"text": "rm\u200b -r\ufe0f x"}),
    ({"text": "rm -r x"}, {"text": "RM -r ｘ"}),
    ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3.0, "c": 2}, "a": 1}),
    ({"a": [" x "]}, {"a": ["x"], "note": "", "more": [], "none": None, "deep": {"er": " "}}),
]
DIFFERENT = [
    ({"text": "rm -r x"}, {"text": "rm -r y"}),
    ({"path": "a/b"}, {"path": "ab"}),
    ({"n": 1}, {"n": 2}),
    ({"n": 1}, {"n": True}),
    ({"n": 0}, {}),
    ({"n": False}, {"n": 0}),
    ({"a": ["x", "y"]}, {"a": ["y", "x"]}),
    ({"a": ["x", ""]}, {"a": ["x"]}),
    ({"a": "x", "b": "y"}, {"a": "y", "b": "x"}),
    ({"a": {"b": "c"}}, {"a": [["b", "c"]]}),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_a_no_covers_what_a_person_would_call_the_same_call_and_a_yes_does_not(one, other):
    assert refused(one) == refused(other)
    assert key(one) != key(other) or one == other


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_a_no_covers_nothing_that_differs(one, other):
    assert refused(one) != refused(other)


def test_a_no_covers_every_session_of_a_client_and_no_command_of_a_person():
    again = replace(CALL, caller=Caller("mcp", "client", session="another"))
    assert refused(FILES) == refused(FILES, call=again)
    assert refused(FILES) != refused(FILES, call=replace(CALL, caller=Caller("mcp", "somebody else")))
    assert refused(FILES) != refused(FILES, skill=replace(SKILL, digest="e" * 64))
    assert refused(FILES) != refused(FILES, tool=replace(TOOL, name="other"))
    mine = replace(CALL, caller=Caller("cli", "me"))
    assert refused(FILES, call=mine) == secret_refusal_key(mine, SKILL, TOOL, "KEY") == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(
    st.dictionaries(st.text(), json_values), st.sampled_from([" ", "\n", "\u200b", "\u3164", "\t\u00a0"]), st.integers()
)
def test_blanks_in_any_text_never_make_another_call_of_a_refused_one(arguments, blank, at):
    def padded(value):
        if isinstance(value, str):
            cut = at % (len(value) + 1)
            return value[:cut] + blank + value[cut:]
        if isinstance(value, dict):
            return {key: padded(item) for key, item in reversed(value.items())}
        return [padded(item) for item in value] if isinstance(value, list) else value

    assert refused(arguments) == refused(padded(arguments))


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
