"""The promises of `possible_verdicts`: no call gets another verdict, and calls of hidden tools are always denied."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.model import Caller
from silo.policy.evaluate import decide
from silo.policy.patterns import Glob
from silo.policy.rules import CALLERS, Rule
from silo.policy.visible import expected_verdict, possible_verdicts, visible_to, with_expected
from silo.testing.fakes import make_skill, make_tool

MCP = Caller("mcp")

callers = st.sampled_from(CALLERS).map(Caller)
tools = st.builds(
    make_tool, st.sampled_from(["read", "write"]), skill=st.sampled_from(["a", "b"]), require_approval=st.booleans()
)
arguments = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["p", "q", 1, None, ["p"], {"z": "p"}]))
rules = st.builds(
    Rule,
    st.just("rule"),
    st.sampled_from(["allow", "ask", "deny"]),
    st.lists(st.sampled_from(["*", "a.*", "b.write", "*.read"]).map(Glob), min_size=1, max_size=2).map(tuple),
    st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["p", "*"]).map(lambda p: (Glob(p),)), max_size=1),
    st.lists(st.sampled_from(CALLERS), min_size=1, unique=True).map(tuple),
)
rule_lists = st.lists(rules, max_size=5)


def rule(of, tool="*", *, callers=CALLERS, **patterns):
    return Rule("rule", of, (Glob(tool),), {path: (Glob(text),) for path, text in patterns.items()}, callers)


@given(tools, st.booleans(), arguments, callers, rule_lists)
def test_no_call_gets_a_verdict_that_was_not_possible(tool, header_asks, given_arguments, caller, standing):
    header = make_skill(tool, require_approval=header_asks).header
    decided = decide(tool, header, given_arguments, caller, standing).verdict
    assert decided in possible_verdicts(tool, header, caller, standing)


@given(tools, arguments, callers, rule_lists)
def test_what_is_hidden_is_denied_whatever_its_arguments_are(tool, given_arguments, caller, standing):
    header = make_skill(tool).header
    if expected_verdict(tool, header, caller, standing) == "denied":
        assert decide(tool, header, given_arguments, caller, standing).verdict == "deny"


@given(tools, callers, rule_lists, rules)
def test_another_rule_never_brings_a_hidden_tool_back(tool, caller, standing, added):
    header = make_skill(tool).header
    if expected_verdict(tool, header, caller, standing) == "denied":
        assert expected_verdict(tool, header, caller, [added, *standing]) == "denied"


@given(tools, callers, rule_lists, st.randoms())
def test_the_order_of_rules_plays_no_part(tool, caller, standing, random):
    header = make_skill(tool).header
    shuffled = list(standing)
    random.shuffle(shuffled)
    assert expected_verdict(tool, header, caller, shuffled) == expected_verdict(tool, header, caller, standing)


@pytest.mark.parametrize(
    ("standing", "asks", "expected"),
    [
        ([], False, "runs"),
        ([], True, "asks"),
        ([rule("deny")], False, "denied"),
        ([rule("deny", "other.*")], False, "runs"),
        ([rule("deny", callers=("cli",))], False, "runs"),
        ([rule("deny", path="/etc/*")], False, "depends"),
        ([rule("deny", path="/etc/*")], True, "asks"),
        ([rule("ask", amount="1*")], False, "depends"),
        ([rule("ask"), rule("allow")], False, "asks"),
        ([rule("allow")], True, "runs"),
        ([rule("allow", repo="acme/*")], True, "depends"),
        ([rule("allow"), rule("deny")], False, "denied"),
        ([rule("ask"), rule("deny")], False, "denied"),
    ],
)
def test_the_expected_verdict_says_what_a_caller_has_to_expect(standing, asks, expected):
    tool = make_tool(require_approval=asks)
    assert expected_verdict(tool, make_skill(tool).header, MCP, standing) == expected


def test_a_tool_that_is_denied_is_hidden_and_its_skill_with_the_last_of_them():
    both = make_skill(make_tool("read"), make_tool("write"))
    own = make_skill(make_tool("run", skill="shell"), namespace="shell")
    seen = visible_to(MCP, (both, own), [rule("deny", "demo.write"), rule("deny", "shell.*")])
    assert seen.expected == {"demo.read": "runs", "demo.write": "denied", "shell.run": "denied"}
    assert [(skill.namespace, skill.tools) for skill in seen.skills] == [("demo", (both.tools[0],))]
    assert (seen.tools, seen.hidden) == ((both.tools[0],), (both.tools[1], own.tools[0]))


def test_a_tool_without_an_expected_verdict_is_hidden():
    skill = make_skill(make_tool("read"))
    assert with_expected([skill], {}).tools == ()


def test_what_is_hidden_makes_no_difference_that_a_caller_could_notice():
    shown, hidden = make_skill(), make_skill(make_tool("run", skill="shell"), namespace="shell")
    rules = [rule("deny", "shell.*")]
    before = visible_to(MCP, (shown, hidden), rules)
    assert visible_to(MCP, (shown, replace(hidden, digest="e" * 64)), rules) == before
    assert visible_to(MCP, (replace(shown, digest="e" * 64), hidden), rules) != before
