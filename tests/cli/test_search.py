"""`silo search`: what it finds, why, and for whom, and its errors for bad input."""

import pytest

RULES = """
[[policy.rules]]
verdict = "deny"
tool = "demo.files"
callers = ["mcp"]
reason = "not for agents"

[[policy.rules]]
verdict = "ask"
tool = "demo.echo"
arguments = { text = "secret*" }
"""


def configure(silo, text):
    path = silo.home / "silo.toml"
    path.write_text(text)
    path.chmod(0o600)


def ids(outcome):
    return [tool["id"] for tool in outcome.json["tools"]]


def test_each_tool_says_why_it_was_found_and_what_to_expect_of_a_call(silo):
    configure(silo, RULES)
    tools = {
        tool["id"]: tool for tool in silo("search", "return what was given, ask a person first", "--json").json["tools"]
    }
    assert tools["demo.echo"]["outlook"] == "depends"
    assert tools["demo.guarded"]["outlook"] == "asks"
    assert tools["demo.guarded"]["why"]
    assert tools["demo.echo"]["siblings"]
    assert isinstance(tools["demo.echo"]["low_confidence"], bool)
    shown = silo("search", "ask a person first")
    assert (shown.status, shown.out.splitlines()[0].split()) == (0, ["TOOL", "APPROVAL", "WHY", "DOES"])
    assert "asks" in next(line for line in shown.out.splitlines() if "demo.guarded" in line)


def test_what_is_denied_to_a_caller_is_not_found_through_its_eyes(silo):
    configure(silo, RULES)
    assert "demo.files" in ids(silo("search", "two files", "--json"))
    for query in ("two files", "demo.files"):
        assert "demo.files" not in ids(silo("search", query, "--caller", "mcp", "--json"))


def test_an_exact_name_is_first(silo):
    assert ids(silo("search", "demo.printing", "--json"))[0] == "demo.printing"


def test_search_in_one_skill_and_in_one_that_there_is_not(silo):
    assert ids(silo("search", "return", "--skill", "demo", "--json"))
    found = silo("search", "return", "--skill", "dmeo")
    assert (found.status, found.code, found.out) == (2, "skill-unknown", "")
    assert "'demo'" in found.hint


@pytest.mark.parametrize("words", [[], [""], [" ", "\t"]])
def test_a_search_for_nothing_is_refused_with_an_example(silo, words):
    found = silo("search", *words)
    assert (found.status, found.code, found.out) == (2, "usage", "")
    assert "silo search sign a token" in found.hint


@pytest.mark.parametrize(
    "query", ["\x1b[2J\x00\x07", "x" * 100_000, "return " * 10_000, "日本語で返す", "\u202e\u200b", "'\"]}"]
)
def test_any_text_is_answered(silo, query):
    found = silo("search", query)
    assert found.status == 0
    assert "\x1b" not in found.out + found.err
    assert silo("search", query, "--json").status == 0


@pytest.mark.parametrize("limit", ["0", "101", "-1", "many", ""])
def test_a_limit_out_of_range_is_a_usage_error(silo, limit):
    assert (silo("search", "return", "-k", limit).status, silo("search", "return", "-k", limit).out) == (2, "")


def test_nothing_installed_is_an_answer(bare_silo):
    assert bare_silo("search", "sign", "--json").json == {"query": "sign", "caller": "cli", "tools": []}
    found = bare_silo("search", "sign")
    assert (found.status, found.out) == (0, "")
    assert "`silo list`" in found.err


def test_forgetting_deletes_what_was_learned_and_says_when_there_was_nothing(silo):
    learned = silo.home / "learned.json"
    assert "nothing to forget" in silo("search", "--forget").err
    silo("run", "demo.echo", "text=hi")
    assert learned.stat().st_mode & 0o777 == 0o600
    found = silo("search", "--forget")
    assert (found.status, found.out) == (0, "")
    assert "forgotten" in found.err
    assert not learned.exists()
    assert silo("search", "sign", "--forget").code == "usage"


def test_without_learning_nothing_is_written(silo):
    configure(silo, "[router]\nlearning = false\n")
    silo("run", "demo.echo", "text=hi")
    assert not (silo.home / "learned.json").exists()


def test_a_damaged_index_is_built_anew(silo):
    expected = ids(silo("search", "return", "--json"))
    cache = silo.home / "run" / "router.npz"
    cache.write_bytes(b"PK\x03\x04 nonsense")
    assert ids(silo("search", "return", "--json")) == expected
    assert cache.stat().st_size > 100


def test_the_old_key_of_the_budget_is_refused_with_the_new_one(silo):
    configure(silo, "[server]\ndirect_budget_tools = 20\n")
    found = silo("search", "return")
    assert (found.status, found.code) == (2, "config-unknown-key")
    assert "server.direct_budget_tokens" in found.hint
