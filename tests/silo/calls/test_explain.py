"""What would happen to a call, according to the steps that the call itself takes."""

from dataclasses import replace

import pytest

from silo.audit.log import read
from silo.calls.explain import explain_call
from silo.errors import ArgumentsInvalid, FileRefused, ToolUnknown
from silo.model import Call, Caller, File
from silo.policy.rules import Rule, tool_glob
from silo.testing.fakes import make_skill, make_tool

pytestmark = pytest.mark.anyio

FIELDS = {"text": {"type": "string"}, "data": {"x-silo-file": True}}
GUARDED = make_skill(make_tool(properties=FIELDS, required=["text"], require_approval=True, secrets=["KEY"]))


async def explained(it, arguments=None, *, tool="demo.echo", rules=()):
    pipeline = replace(it.pipeline(), policy=rules)
    found = await explain_call(pipeline, Call("c", tool, arguments or {}, Caller("mcp", "test-client")))
    assert it.notes == [], "nobody was asked, the vault stayed closed, and no guest started"
    assert list(read(it.folder)) == [], "nothing was recorded"
    return found


async def test_a_call_that_asks_comes_with_the_question(bench):
    found = await explained(bench(GUARDED), {"text": "hello"})
    assert found.decision.verdict == "ask"
    assert found.refused is None
    assert found.question.title == "Run demo.echo"
    assert found.question.who == "test-client through MCP"
    assert found.question.arguments == (("text", "hello"),)
    assert "KEY" in dict(found.question.facts)["secrets"]


async def test_a_call_that_is_allowed_or_denied_asks_nothing(bench):
    for verdict in ("allow", "deny"):
        found = await explained(bench(GUARDED), {"text": "x"}, rules=[Rule("rule 1", verdict, (tool_glob("demo.*"),))])
        assert (found.decision.verdict, found.decision.rule, found.question) == (verdict, "rule 1", None)
        assert [finding.mismatch for finding in found.findings] == [None]


async def test_arguments_that_the_schema_refuses_are_said_to_be_refused(bench):
    found = await explained(bench(GUARDED), {"text": 5})
    assert isinstance(found.refused, ArgumentsInvalid)
    assert found.refused.message == "arguments.text: 5 is not of type 'string'"
    assert found.question is None, "a call with these arguments asks nobody"


async def test_rules_are_asked_about_the_arguments_that_are_given_though_others_are_missing(bench):
    file = File(b"x", name="a.csv")
    found = await explained(bench(GUARDED), {"data": file})
    assert "'text' is missing" in found.refused.message
    assert found.decision.verdict == "ask"


async def test_without_arguments_it_is_about_the_tool(bench):
    found = await explained(bench(GUARDED))
    assert found.refused is None
    assert found.question.title == "Run demo.echo"


async def test_of_a_tool_that_is_denied_whatever_its_arguments_nobody_looks_at_them(bench):
    found = await explained(bench(GUARDED), {"text": 5}, rules=[Rule("rule 1", "deny", (tool_glob("demo.*"),))])
    assert found.decision.verdict == "deny"
    assert found.refused is None


async def test_what_is_no_call_at_all_is_an_error_as_for_a_call(bench):
    for arguments, error in (({"text": float("nan")}, ArgumentsInvalid), ({"data": "file:///etc/passwd"}, FileRefused)):
        with pytest.raises(error):
            await explained(bench(GUARDED), arguments)
    with pytest.raises(ToolUnknown):
        await explained(bench(GUARDED), tool="demo.ecoh")
