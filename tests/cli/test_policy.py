"""`silo policy`: it says what `silo run` does, and does nothing itself."""

import base64
import json

import pytest

RULES = """\
[[policy.rules]]
verdict = "deny"
tool = "demo.echo"
arguments = { text = "secret*" }
reason = "secrets are not for agents"

[[policy.rules]]
verdict = "allow"
tool = ["demo.echo", "demo.guarded"]
callers = ["cli", "mcp"]

[[policy.rules]]
verdict = "ask"
tool = "demo.*"
arguments = { txet = "*", times = [3, 4] }

[[policy.rules]]
verdict = "deny"
tool = "github.*"
callers = ["mcp"]
"""


@pytest.fixture
def ruled(silo):
    """The command line with these rules."""
    (silo.home / "silo.toml").write_text(RULES)
    (silo.home / "silo.toml").chmod(0o600)
    return silo


@pytest.mark.parametrize("command", ["policy", "policy explain", "policy list"])
def test_help_is_on_stdout_and_reads_as_agreed(bare_silo, golden, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found = bare_silo(*command.split(), "--help")
    assert (found.status, found.err) == (0, "")
    golden(f"help-{command.replace(' ', '-')}.txt", found.out)


@pytest.mark.parametrize(
    ("name", "command"),
    [("policy-explain", "policy explain demo.echo text=secret1 times=3"), ("policy-list", "policy list")],
)
def test_text_and_document_read_as_agreed(ruled, golden, name, command):
    text = ruled(*command.split())
    assert text.status == 0
    golden(f"{name}.txt", text.out)
    document = ruled(*command.split(), "--json")
    assert (document.status, document.err) == (0, "")
    assert document.out == json.dumps(document.json, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    golden(f"{name}.json", document.out)


def test_the_verdict_comes_with_the_rule_that_says_so_and_where_it_stands(ruled):
    found = ruled("policy", "explain", "demo.echo", "text=secret1").out
    assert found.startswith("deny: secrets are not for agents\nrule: silo.toml rule 1 (silo.toml:1)\n")
    assert ruled("policy", "explain", "demo", "echo", "text=x").out.startswith("allow: silo.toml rule 2 allows it\n")
    assert "rule: none applies" in ruled("policy", "explain", "demo.keyed").out
    assert ruled("policy", "explain", "demo.guarded", "--caller", "library").out.startswith("ask: ")


def test_each_rule_that_names_the_tool_says_why_it_does_not_apply(ruled):
    rules = ruled("policy", "explain", "demo.echo", "--caller", "library", "text=hello", "--json").json["rules"]
    assert [(one["at"], one["applies"], one["mismatch"]) for one in rules] == [
        ("silo.toml:1", False, "text is 'hello', not 'secret*'"),
        ("silo.toml:7", False, "it is for cli and mcp, and this call comes through library"),
        ("silo.toml:12", False, "txet is not given"),
    ]


def test_a_rule_that_applies_to_be_safe_says_so(ruled):
    """The tool of this test has no default for `text` that silo could see, so it may be a secret one."""
    found = ruled("policy", "explain", "demo.echo")
    assert found.out.startswith("deny: secrets are not for agents (text is not given, and its default is not known)\n")
    assert "silo.toml:1   yes: not given, and the default is not known: text\n" in found.out
    first = ruled("policy", "explain", "demo.echo", "--json").json["rules"][0]
    assert (first["applies"], first["assumed"]) == (True, ["text"])


def test_a_value_that_no_rule_allows_is_said_with_the_reason(ruled):
    (ruled.home / "silo.toml").write_text(
        '[[policy.rules]]\nverdict = "allow"\ntool = "demo.echo"\narguments = { text = "/srv/data/*" }\n'
    )
    found = ruled("policy", "explain", "demo.echo", "text=/srv/data/../../etc/shadow", "--json").json
    assert found["rules"][0]["mismatch"] == "text holds the segment '..'"


def test_a_rule_with_an_argument_that_the_tool_does_not_have_is_pointed_out(ruled):
    found = ruled("policy", "explain", "demo.echo")
    assert "silo.toml rule 3 names the argument 'txet', and demo.echo has none of that name" in found.err
    assert "silo.toml rule 4 names no tool that is installed" in ruled("policy", "list").err


def test_what_is_explained_is_what_happens(ruled):
    """Through `silo run`, whose kind of caller is `cli`."""
    for words in (["demo.echo", "text=secret1"], ["demo.echo", "text=hello"], ["demo.guarded"], ["demo.files"]):
        verdict = ruled("policy", "explain", *words, "--caller", "cli", "--json").json["verdict"]
        found = ruled("run", *words)
        assert (found.status, found.code) == ((0, "") if verdict == "allow" else (3, "denied")), words


def test_arguments_that_the_tool_does_not_take_are_said_to_be_refused(silo):
    words = ["demo.echo", "times=often"]
    found = silo("policy", "explain", *words)
    assert (found.status, found.out.splitlines()[0]) == (0, "allow: neither skill nor tool requires approval")
    message = "arguments.times: 'often' is not of type 'integer'"
    assert f"the call is refused first: {message}" in found.err
    (note,) = silo("policy", "explain", *words, "--json").json["notes"]
    assert note.endswith(message)
    assert message in silo("run", *words).err


def test_a_call_that_asks_shows_what_a_person_would_see(silo):
    found = silo("policy", "explain", "demo.guarded").out
    assert "a person is asked: Run demo.guarded\n  tool: demo.guarded\n" in found
    assert "  network: no network\n" in found
    assert "a person is asked" not in silo("policy", "explain", "demo.echo").out


def test_explaining_runs_nothing_records_nothing_and_opens_no_vault(ruled):
    del ruled.environ["SILO_MASTER_KEY"]
    log = (ruled.home / "audit.jsonl").read_bytes() if (ruled.home / "audit.jsonl").exists() else b""
    ruled.works = False
    found = ruled("policy", "explain", "demo.keyed")
    assert (found.status, found.err.count("error")) == (0, 0)
    assert ((ruled.home / "audit.jsonl").read_bytes() if log else b"") == log
    assert not list(ruled.home.glob("credentials.silo*"))


@pytest.mark.parametrize("tool", ["demo.ecoh", "dmeo.echo", "dmeo", "demo", "nothing_like_it.x", "a.b.c"])
def test_an_unknown_tool_is_answered_as_by_run(silo, tool):
    explained, run = silo("policy", "explain", tool), silo("run", tool)
    assert (explained.status, explained.out, explained.code, explained.hint) == (
        run.status,
        run.out,
        run.code,
        run.hint,
    )
    assert explained.status == 2


def test_arguments_come_as_for_run(ruled, tmp_path):
    (tmp_path / "args.json").write_text('{"text": "secret2"}')
    for words in (
        ["--args", '{"text": "secret2"}'],
        ["--args", f"@{tmp_path}/args.json"],
        ["text=secret2"],
        ['text:="secret2"'],
    ):
        assert ruled("policy", "explain", "demo.echo", *words, "--json").json["verdict"] == "deny", words
    from_stdin = ruled("policy", "explain", "demo.echo", "--args", "-", "--json", stdin=b'{"text": "secret3"}')
    assert from_stdin.json["verdict"] == "deny"


def test_a_file_is_one_for_the_rules_too_however_it_is_given(silo, tmp_path):
    (silo.home / "silo.toml").write_text(
        '[[policy.rules]]\nverdict = "deny"\ntool = "*"\narguments = { data = "*.csv" }\n'
        '[[policy.rules]]\nverdict = "allow"\ntool = "*"\narguments = { data = "*" }\n'
    )
    (tmp_path / "a.csv").write_text("x")
    named = silo("policy", "explain", "demo.echo", f"data=@{tmp_path}/a.csv", "--json").json
    assert (named["verdict"], named["rule"]) == ("deny", "silo.toml rule 1")
    content = silo("policy", "explain", "demo.echo", f"data={base64.b64encode(b'x').decode()}", "--json").json
    assert content["rule"] is None, "no rule allows a file by a pattern"


def test_without_rules_there_is_an_empty_document_and_a_word_on_stderr(bare_silo):
    assert bare_silo("policy", "list", "--json").json == {"rules": []}
    found = bare_silo("policy", "list")
    assert (found.status, found.out) == (0, "")
    assert "there are no rules" in found.err


def test_config_show_says_how_many_rules_there_are_and_its_document_has_them(ruled):
    assert "4, see `silo policy list`" in ruled("config", "show").out
    shown = ruled("config", "show", "--json").json["settings"]["policy.rules"]
    assert (shown["origin"], len(shown["value"])) == ("silo.toml:1", 4)


def test_a_misspelt_key_of_a_rule_stops_every_command(silo):
    (silo.home / "silo.toml").write_text("[[policy.rules]]\nverdict = 'deny'\ntool = 'demo.*'\ncaller = ['mcp']\n")
    for command in ("policy explain demo.echo", "policy list", "run demo.echo", "config show"):
        found = silo(*command.split())
        assert (found.status, found.code, found.out) == (2, "config-unknown-key", ""), command
        assert "'callers'" in found.hint
