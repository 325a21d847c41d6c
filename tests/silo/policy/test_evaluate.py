"""What `decide` promises: either side may ask, neither can take it back."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from silo.model import ToolHints
from silo.policy.evaluate import decide
from silo.testing.fakes import make_skill, make_tool


@given(by_tool=st.booleans(), by_header=st.booleans())
def test_a_person_is_asked_exactly_if_tool_or_header_wants_it(by_tool, by_header):
    tool = make_tool(require_approval=by_tool)
    skill = make_skill(tool, require_approval=by_header)
    decision = decide(tool, skill.header)
    assert decision.verdict == ("ask" if by_tool or by_header else "allow")
    assert decision.reason


@given(st.builds(ToolHints, read_only=st.booleans(), destructive=st.booleans()), st.booleans())
def test_what_a_tool_says_of_itself_changes_nothing(hints, asks):
    tool = make_tool(require_approval=asks)
    header = make_skill(tool).header
    assert decide(replace(tool, hints=hints), header) == decide(tool, header)
