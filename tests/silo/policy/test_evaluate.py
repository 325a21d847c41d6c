"""The promises of `decide`: deny wins, order does not matter, and without a rule header and tool may both ask."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.model import Caller, File, ToolHints
from silo.policy.evaluate import decide, explain
from silo.policy.patterns import Arguments, Glob
from silo.policy.rules import CALLERS, Rule
from silo.testing.fakes import make_skill, make_tool

MCP = Caller("mcp")

callers = st.sampled_from(CALLERS).map(Caller)
tools = st.builds(
    make_tool, st.sampled_from(["read", "write"]), skill=st.sampled_from(["a", "b"]), require_approval=st.booleans()
)
arguments = st.dictionaries(
    st.sampled_from(["x", "y"]),
    st.sampled_from(["p", "q", "pq", 1, True, None, ["p"], ["p", "q"], [], {"z": "p"}, File(b"", name="p")]),
)
patterns = st.lists(st.sampled_from(["p", "q", "p*", "*", "1", "true", "null"]).map(Glob), min_size=1, max_size=2)
rules = st.builds(
    Rule,
    st.integers(1, 10**6).map("rule {}".format),
    st.sampled_from(["allow", "ask", "deny"]),
    st.lists(st.sampled_from(["*", "a.*", "b.write", "*.read"]).map(Glob), min_size=1, max_size=2).map(tuple),
    st.dictionaries(st.sampled_from(["x", "y", "x.z"]), patterns.map(tuple), max_size=2),
    st.lists(st.sampled_from(CALLERS), min_size=1, unique=True).map(tuple),
    st.sampled_from(["", "because"]),
)
rule_lists = st.lists(rules, max_size=5)

LENIENCY = {"deny": 0, "ask": 1, "allow": 2}


def verdict(tool, given_arguments, caller, standing, *, header_asks=False):
    header = make_skill(tool, require_approval=header_asks).header
    return decide(tool, header, given_arguments, caller, standing).verdict


def rule(of, tool="*", *, name="rule", callers=CALLERS, reason="", **given_patterns):
    globs = {path: (Glob(pattern),) for path, pattern in given_patterns.items()}
    return Rule(name, of, (Glob(tool),), globs, callers, reason)


@given(tools, arguments, callers, rule_lists, rules)
def test_another_deny_or_ask_never_lets_a_call_run_that_did_not(tool, given_arguments, caller, standing, added):
    before = verdict(tool, given_arguments, caller, standing)
    after = verdict(tool, given_arguments, caller, [*standing, replace(added, verdict="deny")])
    assert LENIENCY[after] <= LENIENCY[before]
    asked = verdict(tool, given_arguments, caller, [*standing, replace(added, verdict="ask")])
    assert LENIENCY[asked] <= LENIENCY[before]


@given(tools, arguments, callers, rule_lists)
def test_dropping_an_allow_rule_never_allows_more(tool, given_arguments, caller, standing):
    before = verdict(tool, given_arguments, caller, standing)
    for i, one in enumerate(standing):
        if one.verdict == "allow":
            after = verdict(tool, given_arguments, caller, [*standing[:i], *standing[i + 1 :]])
            assert LENIENCY[after] <= LENIENCY[before]


@given(tools, arguments, callers, rule_lists, st.randoms())
def test_the_order_of_rules_plays_no_part(tool, given_arguments, caller, standing, random):
    shuffled = list(standing)
    random.shuffle(shuffled)
    assert verdict(tool, given_arguments, caller, shuffled) == verdict(tool, given_arguments, caller, standing)


@given(tools, arguments, callers, rule_lists, rule_lists)
def test_what_is_denied_stays_denied_whatever_is_added(tool, given_arguments, caller, standing, added):
    if verdict(tool, given_arguments, caller, standing) == "deny":
        assert verdict(tool, given_arguments, caller, [*added, *standing]) == "deny"


@given(arguments, callers, rule_lists, rules)
def test_a_rule_for_one_tool_changes_nothing_for_another(given_arguments, caller, standing, added):
    tool = make_tool("read", skill="a", require_approval=True)
    other = replace(added, tools=(Glob("a.write"), Glob("b.*")))
    assert verdict(tool, given_arguments, caller, [*standing, other]) == verdict(
        tool, given_arguments, caller, standing
    )


@given(tools, arguments, callers, rules, st.sampled_from(["x", "y"]), patterns)
def test_one_more_pattern_never_makes_a_rule_apply_to_more(tool, given_arguments, caller, one, path, globs):
    narrower = replace(one, arguments={path: tuple(globs), **one.arguments})
    if one.mismatch(Arguments(given_arguments), caller) is not None:
        assert narrower.mismatch(Arguments(given_arguments), caller) is not None


@given(tools, arguments, callers, rules)
def test_what_an_allow_rule_describes_a_deny_rule_of_the_same_words_describes_too(tool, given_arguments, caller, one):
    if replace(one, verdict="allow").mismatch(Arguments(given_arguments), caller) is None:
        assert replace(one, verdict="deny").mismatch(Arguments(given_arguments), caller) is None


@given(tools, arguments, callers, rule_lists)
def test_the_rule_that_is_named_applies_and_has_that_verdict(tool, given_arguments, caller, standing):
    found = explain(tool, make_skill(tool).header, given_arguments, caller, standing)
    applying = [one.rule for one in found.findings if one.mismatch is None]
    if found.decision.rule:
        assert (found.decision.rule, found.decision.verdict) in [(one.name, one.verdict) for one in applying]
    else:
        assert applying == []
    assert [one.rule for one in found.findings] == [one for one in standing if one.names(tool)]
    assert found.decision.reason


@given(by_tool=st.booleans(), by_header=st.booleans())
def test_without_a_rule_a_person_is_asked_exactly_if_tool_or_header_wants_it(by_tool, by_header):
    tool = make_tool(require_approval=by_tool)
    skill = make_skill(tool, require_approval=by_header)
    decision = decide(tool, skill.header, {}, MCP, [])
    assert (decision.verdict, decision.rule) == ("ask" if by_tool or by_header else "allow", "")
    assert decision.reason


@given(st.builds(ToolHints, read_only=st.booleans(), destructive=st.booleans()), st.booleans())
def test_what_a_tool_says_of_itself_changes_nothing(hints, asks):
    tool = make_tool(require_approval=asks)
    header = make_skill(tool).header
    assert decide(replace(tool, hints=hints), header, {}, MCP, []) == decide(tool, header, {}, MCP, [])


@pytest.mark.parametrize("header_asks", [True, False])
def test_an_allow_rule_lifts_what_skill_and_tool_ask_for(header_asks):
    tool = make_tool(require_approval=True)
    assert verdict(tool, {}, MCP, [], header_asks=header_asks) == "ask"
    assert verdict(tool, {}, MCP, [rule("allow", "demo.echo")], header_asks=header_asks) == "allow"


OPEN = {"repo": {"type": "string"}, "force": {"type": "boolean"}, "options": {"$ref": "#/$defs/Options"}}


@pytest.mark.parametrize("path", ["force", "options.deep", "options.rows.n", "options"])
def test_a_rule_about_what_may_have_a_default_that_silo_can_not_see_takes_the_safe_side(path):
    tool = make_tool(properties=OPEN, require_approval=True)
    tool.input_schema["$defs"] = {
        "Options": {
            "type": "object",
            "properties": {
                "deep": {"type": "string"},
                "rows": {"type": "array", "items": {"properties": {"n": {"type": "integer"}}}},
            },
        }
    }
    given_arguments = {} if path == "options" else {"options": {"rows": [{"n": 1}, {}]}}
    for of, expected in (("deny", "deny"), ("ask", "ask"), ("allow", "ask")):
        found = explain(tool, make_skill(tool).header, given_arguments, MCP, [rule(of, **{path: "nothing like it"})])
        assert found.decision.verdict == expected
        mismatch = found.findings[0].mismatch
        if of == "allow":
            assert mismatch == f"{path} is not given, and its default is not known"
        else:
            assert (mismatch, found.findings[0].assumed) == (None, (path,))
            assert found.decision.reason.endswith(f"({path} is not given, and its default is not known)")


@pytest.mark.parametrize(
    ("schema", "given_arguments"),
    [
        ({"properties": {"force": {}}, "required": ["force"]}, {}),
        ({"properties": {"other": {}}, "additionalProperties": False}, {}),
        ({"additionalProperties": {"type": "boolean"}}, {"other": True}),
        ({"properties": {"force": {}}}, {"force": None}),
    ],
)
def test_what_is_required_given_or_not_of_the_tool_is_not_assumed(schema, given_arguments):
    tool = replace(make_tool(), input_schema={"type": "object", **schema})
    found = explain(tool, make_skill(tool).header, given_arguments, MCP, [rule("deny", force="true")])
    assert found.decision.verdict == "allow"
    assert found.findings[0].assumed == ()


def test_a_rule_is_for_the_callers_that_it_names():
    tool = make_tool()
    only_mcp = [rule("deny", callers=("mcp",))]
    assert verdict(tool, {}, MCP, only_mcp) == "deny"
    assert verdict(tool, {}, Caller("cli"), only_mcp) == "allow"
    found = explain(tool, make_skill(tool).header, {}, Caller("cli"), only_mcp)
    assert found.findings[0].mismatch == "it is for mcp, and this call comes through cli"


def test_the_reason_is_the_rules_own_or_names_the_rule():
    tool = make_tool()
    header = make_skill(tool).header
    said = decide(tool, header, {}, MCP, [rule("deny", name="silo.toml rule 2", reason="not for agents")])
    assert (said.reason, said.rule) == ("not for agents", "silo.toml rule 2")
    assert decide(tool, header, {}, MCP, [rule("deny", name="silo.toml rule 2")]).reason == "silo.toml rule 2 denies it"
