"""Searching: the right tool first, an answer for any request, and nothing that depends on order."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.model import ToolHints
from silo.router.rank import Index, search
from silo.testing.fakes import make_tool

TOOLS = (
    make_tool(
        "sign",
        skill="jwt",
        description="Sign claims and return a JSON Web Token.",
        properties={"claims": {"type": "object"}, "algorithm": {"enum": ["HS256", "HS384"]}},
    ),
    make_tool("verify", skill="jwt", description="Check the signature of a token and return its claims."),
    make_tool(
        "query",
        skill="table",
        description="Query CSV, JSON or Parquet data with SQL.",
        properties={"data": {"description": "the spreadsheet to read"}, "sql": {"type": "string"}},
    ),
    make_tool("convert", skill="table", description="Convert a table to another format."),
    make_tool("text", skill="pdf", description="Extract the text of a PDF document."),
    make_tool("resize", skill="image", description="Make a picture smaller or larger."),
    replace(
        make_tool("list_open_issues", skill="github"), hints=ToolHints(title="List issues"), description="Newest first."
    ),
)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sign a token", "jwt.sign"),
        ("can you please check whether this token's signature is valid?", "jwt.verify"),
        ("run SQL over a csv file", "table.query"),
        ("I need the text from my PDFs", "pdf.text"),
        ("resizing pictures", "image.resize"),
        ("HS384", "jwt.sign"),
        ("spreadsheet", "table.query"),
        ("open issues", "github.list_open_issues"),
        ("pdf.text", "pdf.text"),
        ("table__convert", "table.convert"),
        ("PDF.TEXT", "pdf.text"),
    ],
)
def test_the_tool_that_does_it_comes_first(query, expected):
    assert search(query, TOOLS)[0].tool.id == expected


@pytest.mark.parametrize("query", ["", "   ", "\0\x1b[31m\u202e", "!?.,", "the a of", "\ud800"])
def test_a_request_without_words_finds_nothing_and_harms_nothing(query):
    assert search(query, TOOLS) == ()


def test_a_request_of_100_kb_is_answered():
    assert search("sign a token " * 8000, TOOLS)[0].tool.id == "jwt.sign"


def test_no_tools_and_one_tool_are_fine():
    assert search("sign", ()) == ()
    assert [match.tool.id for match in search("sign", TOOLS[:1])] == ["jwt.sign"]


def test_equal_tools_come_in_the_order_of_their_ids():
    twins = [make_tool(name, description="Do the thing.") for name in ("b", "c", "a")]
    assert [match.tool.id for match in search("thing", twins)] == ["demo.a", "demo.b", "demo.c"]


@given(st.permutations(TOOLS), st.text(max_size=60))
def test_the_order_of_the_tools_changes_nothing(tools, query):
    assert search(query, tools) == search(query, TOOLS)


@given(st.text(max_size=300), st.integers(min_value=0, max_value=20))
def test_any_request_gets_at_most_so_many_matches_best_first(query, limit):
    found = Index(TOOLS).search(query, limit=limit)
    assert len(found) <= limit
    scores = [match.score for match in found]
    assert scores == sorted(scores, reverse=True)


@given(st.sampled_from(TOOLS))
def test_an_exact_id_is_first(tool):
    assert search(tool.id, TOOLS)[0].tool == tool
