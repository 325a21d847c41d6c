from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import (
    ApprovalPending,
    ApprovalRequired,
    ApprovalTimeout,
    ArgumentsInvalid,
    ArgumentsRefused,
    CallDenied,
    ConfigInvalid,
    HeaderInvalid,
    SecretMissing,
    SkillRaised,
    SkillUnknown,
    ToolUnknown,
)
from silo.model import File, Logs
from silo.remedies import (
    INSPECT_TOOL,
    LIST_SKILLS,
    LIST_TOOLS,
    AnswerQuestion,
    CallAgain,
    DoNotCallAgain,
    HeaderLine,
    NearestNames,
    Setting,
    command,
)
from silo.server.protocol.results import (
    LOG_CHARS,
    MAX_FILE_BYTES,
    MAX_FILES_BYTES,
    call_result,
    error_result,
    internal_error,
    pending_result,
)
from silo.sizes import MIB


def blocks_of(fakes, *files):
    return call_result(fakes.make_result(files=files), None).content


def test_text_and_data_travel_together(fakes):
    result = call_result(fakes.make_result("three", data=3, has_data=True), fakes.make_tool("a.b"))
    assert [block.text for block in result.content] == ["three"]
    assert result.structured_content == {"result": 3}
    assert result.is_error is False


@pytest.mark.parametrize("value", [None, 0, "", [], False])
def test_empty_data_is_data(fakes, value):
    result = call_result(fakes.make_result(data=value, has_data=True), None)
    assert result.structured_content == {"result": value}
    assert result.content[0].text in {"null", "0", '""', "[]", "false"}


def test_result_without_anything_still_says_something(fakes):
    result = call_result(fakes.make_result(), None)
    assert result.structured_content is None
    assert result.content[0].text == "The tool finished and returned nothing."


def test_failure_that_the_tool_reports_is_an_error_with_its_text(fakes):
    result = call_result(fakes.make_result("no such user", is_error=True), fakes.make_tool("a.b", output_schema={}))
    assert result.is_error is True
    assert result.content[0].text == "no such user"


def test_promised_data_that_did_not_come_is_an_error_a_model_can_read(fakes):
    tool = fakes.make_tool("a.b", output_schema={"type": "object"})
    result = call_result(fakes.make_result("only text"), tool)
    assert result.is_error is True
    assert "result-invalid" in result.content[0].text
    assert "only text" in result.content[0].text


@pytest.mark.parametrize(
    ("media_type", "kind"),
    [("image/png", "image"), ("IMAGE/PNG", "image"), ("audio/mpeg", "audio"), ("image/tiff", "resource")],
)
def test_file_becomes_the_block_that_clients_understand(fakes, media_type, kind):
    (block,) = blocks_of(fakes, File(b"\x00\xff", media_type, "x"))
    assert block.type == kind
    data = block.resource.blob if kind == "resource" else block.data
    assert base64.b64decode(data) == b"\x00\xff"


@pytest.mark.parametrize("media_type", ["text/csv", "application/json", "image/svg+xml"])
def test_text_file_is_readable_text(fakes, media_type):
    (block,) = blocks_of(fakes, File("ä,b\n".encode(), media_type, "a b.csv"))
    assert block.resource.text == "ä,b\n"
    assert block.resource.mime_type == media_type
    assert block.resource.uri == "silo-result:///1/a%20b.csv"


def test_text_file_that_is_not_utf8_comes_as_bytes(fakes):
    (block,) = blocks_of(fakes, File(b"\xe4", "text/plain"))
    assert base64.b64decode(block.resource.blob) == b"\xe4"


def test_name_of_a_file_cannot_leave_its_uri(fakes):
    (block,) = blocks_of(fakes, File(b"", "text/plain", "../../etc/passwd?#"))
    assert block.resource.uri == "silo-result:///1/..%2F..%2Fetc%2Fpasswd%3F%23"


def test_file_that_is_too_large_is_named_instead_of_sent(fakes):
    small = File(b"x", "image/png", "small.png")
    blocks = blocks_of(fakes, File(bytes(MAX_FILE_BYTES + 1), "image/png", "big.png"), small)
    assert [block.type for block in blocks] == ["text", "image"]
    assert "'big.png' (image/png, 8,388,609 bytes) is too large" in blocks[0].text


def test_many_files_together_stay_under_the_cap(fakes):
    blocks = blocks_of(fakes, *(File(bytes(5 * MIB), "image/png", f"{n}.png") for n in range(5)))
    sent = sum(len(base64.b64decode(block.data)) for block in blocks if block.type == "image")
    assert sent <= MAX_FILES_BYTES
    assert [block.type for block in blocks] == ["image"] * 3 + ["text"] * 2


def test_cut_output_is_said_to_be_cut(fakes):
    result = call_result(fakes.make_result("abc", truncated=True), None)
    assert "silo cut it" in result.content[-1].text


def test_end_of_the_logs_travels_beside_the_result_not_in_its_text(fakes):
    logs = Logs(stdout="start" + "x" * LOG_CHARS, stderr="why")
    result = call_result(fakes.make_result("answer", logs=logs), None)
    assert [block.text for block in result.content] == ["answer"]
    sent = result.meta["dev.silo/logs"]
    assert sent["stderr"] == "why"
    assert len(sent["stdout"]) == LOG_CHARS
    assert not sent["stdout"].startswith("start")
    assert sent["truncated"] is True


def test_error_gives_code_message_and_hint(fakes):
    result = error_result(SecretMissing("'KEY' is not in the vault", hint="add it with `silo vault add KEY`"))
    assert result.is_error is True
    assert result.content[0].text == (
        "error [secret-missing]: 'KEY' is not in the vault\nhint: add it with `silo vault add KEY`"
    )
    assert result.meta["dev.silo/error"]["code"] == "secret-missing"


NEAR = "did you mean 'demo.echo'?"
FIND = 'find one: call silo_search with {"query": "what the tool should do"}'
SHOWN_WHOLE = "silo_search with the tool's id as the query shows it whole, schemas included"
LINK = "http://127.0.0.1:9/q1"
REFUSED_FOR_GOOD = "; calling again, with these or other arguments, changes nothing"
AGAIN = "`silo install` the skill again: its tools differ from what was recorded"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ToolUnknown("m", hint=LIST_TOOLS), FIND),
        (SkillUnknown("m", hint=LIST_SKILLS), FIND),
        (SkillUnknown("m", hint=NearestNames(("demo.echo",))), NEAR),
        (ToolUnknown("m", hint=AGAIN), AGAIN),
        (ArgumentsInvalid("m", hint=INSPECT_TOOL), SHOWN_WHOLE),
        (ArgumentsRefused("m", hint=INSPECT_TOOL), SHOWN_WHOLE),
        (SecretMissing("m", hint=command("silo vault add KEY", "add it with {}")), "add it with `silo vault add KEY`"),
        (ConfigInvalid("m", hint=Setting("call.timeout_s", "lower {}")), "lower `call.timeout_s`"),
        (HeaderInvalid("m", hint=HeaderLine("[tool.silo]", "add {}")), "add [tool.silo]"),
        (CallDenied("m", hint=CallAgain("later")), "call it again later"),
        (CallDenied("m", hint=DoNotCallAgain("asked to")), "do not call it again unless asked to"),
        (CallDenied("m", hint="call the user again"), "call the user again" + REFUSED_FOR_GOOD),
        (CallDenied("m", hint=command("silo run a.b")), "run `silo run a.b`" + REFUSED_FOR_GOOD),
    ],
)
def test_a_model_is_told_what_it_can_do_and_a_user_what_only_they_can(error, hint):
    meta = error_result(error).meta or {}
    assert meta["dev.silo/error"]["hint"] == hint


def test_error_of_a_skill_shows_the_end_of_a_long_traceback():
    error = SkillRaised("boom", hint="h", traceback="first\n" + "x" * LOG_CHARS + "\nlast")
    text = error_result(error).content[0].text
    assert text.endswith("last")
    assert "first" not in text


def test_internal_error_holds_only_the_incident():
    result = internal_error("abcd1234")
    assert result.is_error is True
    assert "abcd1234" in result.content[0].text


@given(
    st.text(alphabet=st.characters(), max_size=50), st.text(alphabet=st.characters(categories=["Cs", "L"]), max_size=20)
)
def test_every_result_can_be_written_as_json(plain, surrogates):
    error = SkillRaised(surrogates, hint=plain, stdout=surrogates, stderr=surrogates, traceback=surrogates)
    error_result(error).model_dump_json(by_alias=True)


def pending(**changes) -> ApprovalPending:
    words = {
        "hint": "open http://127.0.0.1:9/q1",
        "question": "q1",
        "link": "http://127.0.0.1:9/q1",
        "title": "Run a.b",
    }
    return ApprovalPending("a.b waits for a person", **{**words, **changes})


def test_refusals_read_differently_and_none_invites_to_call_again_at_once():
    """A model that confuses them keeps asking, or gives up a call that the user wants."""
    results = [
        error_result(CallDenied("a person refused a.b: no", hint=DoNotCallAgain("the user asks for it"))),
        error_result(CallDenied("a.b may not run: a rule", hint="ask whoever wrote the rules of this machine")),
        error_result(ApprovalRequired("there is nobody to ask", hint="let the user run it on a terminal")),
        error_result(ApprovalTimeout("nobody answered in time", hint=CallAgain("when the user is there to answer"))),
        pending_result(pending(), "a__b"),
        pending_result(pending(), "a__b", "decline"),
    ]
    texts = [result.content[0].text for result in results]
    codes = [result.meta["dev.silo/error"]["code"] for result in results]
    assert codes == [
        "denied",
        "denied",
        "approval-required",
        "approval-timeout",
        "approval-pending",
        "approval-pending",
    ]
    assert len({text.partition("\n")[0] for text in texts}) == len(texts)
    assert "do not call it again" in texts[0]
    for text in texts[1:3]:
        assert "calling again, with these or other arguments, changes nothing" in text
    assert "calling again" not in texts[3]
    assert "not before, and not with others" in texts[4]
    assert "only if they ask for it" in texts[5]


def test_pending_result_names_the_question_and_its_link_for_models_and_for_programs():
    result = pending_result(pending(hint="tell the user"), "silo_execute")
    (text,) = [block.text for block in result.content]
    assert text.startswith(
        "error [approval-pending]: nobody has answered yet: Run a.b\nhint: ask the user to open http://127.0.0.1:9/q1"
    )
    assert "call silo_execute again with the same arguments" in text
    assert result.meta["dev.silo/approval"] == {"state": "pending", "question": "q1", "url": "http://127.0.0.1:9/q1"}
    assert result.is_error


def test_pending_result_names_the_call_once_and_as_the_client_made_it():
    text = pending_result(pending(hint=AnswerQuestion(LINK, "a.b")), "silo_execute").content[0].text
    assert (
        f"hint: ask the user to open {LINK} and to answer there; a browser that is not paired yet needs a code" in text
    )
    assert "call silo_execute again with the same arguments" in text
    assert "call a.b again" not in text


def test_pending_result_without_a_link_passes_on_where_to_answer():
    result = pending_result(pending(hint="the user answers with `silo approvals`", link=""), "a__b")
    assert "hint: the user answers with `silo approvals`. Nothing has run." in result.content[0].text
