"""Names of tools: the two spellings, and suggestions for misspelt ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.names import nearest, split_id, suggestion

SKILLS = st.from_regex(r"[a-z][a-z0-9]{0,10}(_[a-z0-9]{1,5})?", fullmatch=True)
TOOLS = st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True)


@given(SKILLS, TOOLS)
def test_both_spellings_mean_the_same_tool(skill, tool):
    assert split_id(f"{skill}.{tool}") == (skill, tool)
    assert split_id(f"{skill}__{tool}") == (skill, tool)


@pytest.mark.parametrize("name", ["", "sign", ".", "jwt.", ".sign", "__", "a.b.c", "x" * 10_000, "jwt.sign.__x"])
def test_what_is_no_id_is_none(name):
    assert split_id(name) is None


def test_a_slip_of_the_pen_finds_the_name():
    names = ["jwt.sign", "jwt.verify", "table.query", "pdf.text"]
    assert nearest("jwt.sgin", names)[0] == "jwt.sign"
    assert nearest("jwt__verfy", names)[0] == "jwt.verify"
    assert nearest("sign", names)[0] == "jwt.sign"
    assert nearest("zzzzzz", names) == ()


@given(st.text(max_size=50), st.lists(st.text(max_size=20), max_size=10))
def test_suggestions_come_from_the_names_and_do_not_depend_on_their_order(name, names):
    found = nearest(name, names)
    assert set(found) <= set(names)
    assert len(found) <= 3
    assert found == nearest(name, list(reversed(names)))


def test_a_suggestion_reads_as_a_question():
    assert suggestion("warm", ["warn", "ward"], otherwise="no") == "did you mean 'ward' or 'warn'?"
    assert suggestion("warm", [], otherwise="no") == "no"
