"""`[[policy.rules]]`: what is accepted, and the error for a mistake in the second of three rules."""

import time

import pytest

from silo.compose.settings import rules_of
from silo.config.load import load
from silo.config.schema import Config
from silo.errors import ConfigInvalid, ConfigUnknownKey

GOOD = '[[policy.rules]]\nverdict = "allow"\ntool = "jwt.*"\n\n'


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "silo.toml").write_text(text)
        (tmp_path / "silo.toml").chmod(0o600)
        return load(tmp_path, environ={})

    return read


def test_without_any_there_are_no_rules(read):
    loaded = read("")
    assert (rules_of(loaded.config.policy), loaded.rule_places()) == ((), ())
    assert loaded.origins["policy.rules"] == "default"


def test_every_key_of_a_rule_arrives(read):
    loaded = read(
        GOOD
        + """[[policy.rules]]
verdict = "deny"
tool = ["github.*", "*.delete_?"]
callers = ["mcp", "library"]
reason = "not for agents"
arguments = { repo = "acme/*", force = true, n = [1, 2.0, "x"], "issue.title" = "t" }
"""
    )
    first, second = rules_of(loaded.config.policy)
    assert (first.name, first.verdict, first.callers) == ("silo.toml rule 1", "allow", ("cli", "mcp", "library"))
    assert (second.name, second.verdict, second.reason) == ("silo.toml rule 2", "deny", "not for agents")
    assert [glob.text for glob in second.tools] == ["github.*", "*.delete_?"]
    assert second.callers == ("mcp", "library")
    assert {path: [glob.text for glob in globs] for path, globs in second.arguments.items()} == {
        "repo": ["acme/*"],
        "force": ["true"],
        "n": ["1", "2", "x"],
        "issue.title": ["t"],
    }


def test_each_rule_is_found_in_the_file_however_it_is_written(read):
    assert read(GOOD + GOOD + "# rules\n" + GOOD).rule_places() == ("silo.toml:1", "silo.toml:5", "silo.toml:10")
    inline = 'rules = [\n  { verdict = "ask", tool = "a.*" },\n  { verdict = "ask", tool = "b.*" },\n]\n'
    assert read(f"[policy]\n{inline}").rule_places() == ("silo.toml:2", "silo.toml:2")
    hidden = '[files]\nallow_read = ["""/[[policy.rules]]\n[[policy.rules]]"""]\n'
    assert read(hidden + GOOD).rule_places() == ("silo.toml:4",)


def test_finding_a_hundred_rules_takes_no_time_to_speak_of(read):
    loaded = read(GOOD * 100)
    started = time.thread_time()
    assert loaded.rule_places()[-1] == "silo.toml:397"
    assert time.thread_time() - started < 60


@pytest.mark.parametrize(
    ("lines", "message", "hint"),
    [
        ('argumnts = { a = "b" }', "silo.toml:8: unknown key 'argumnts' in policy rule 2", "did you mean 'arguments'?"),
        ("frobnicate = 1", "silo.toml:8: unknown key 'frobnicate' in policy rule 2", "a rule has verdict, tool"),
        ("[policy.rules.argument]\na = 'b'", "silo.toml:8: unknown key 'argument' in policy rule 2", "'arguments'"),
    ],
)
def test_a_misspelt_key_of_a_rule_is_an_error_with_place_and_suggestion(read, lines, message, hint):
    with pytest.raises(ConfigUnknownKey) as caught:
        read(f"{GOOD}[[policy.rules]]\nverdict = 'deny'\ntool = '*'\n{lines}\n\n{GOOD}")
    assert str(caught.value) == message
    assert hint in caught.value.hint


def test_a_key_that_is_missing_because_it_is_misspelt_is_called_misspelt(read):
    with pytest.raises(ConfigUnknownKey) as caught:
        read(f"{GOOD}[[policy.rules]]\nverdikt = 'deny'\ntool = '*'\n")
    assert str(caught.value) == "silo.toml:6: unknown key 'verdikt' in policy rule 2"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("verdict = 'dney'\ntool = '*'", "silo.toml:6: policy rule 2: verdict: "),
        (
            "verdict = 'deny'\ntool = 'github'",
            "silo.toml:7: policy rule 2: tool: Value error, 'github' matches no tool",
        ),
        ("verdict = 'deny'\ntool = ['a.*', 'GitHub.*']", "silo.toml:7: policy rule 2: tool: "),
        ("verdict = 'deny'\ntool = []", "silo.toml:7: policy rule 2: tool: "),
        ("verdict = 'deny'\ntool = 3", "silo.toml:7: policy rule 2: tool: "),
        ("verdict = 'deny'", "silo.toml:5: policy rule 2: 'tool' is missing"),
        ("tool = '*'", "silo.toml:5: policy rule 2: 'verdict' is missing"),
        ("verdict = 'deny'\ntool = '*'\ncallers = []", "silo.toml:8: policy rule 2: callers: "),
        ("verdict = 'deny'\ntool = '*'\ncallers = ['mcp', 'web']", "silo.toml:8: policy rule 2: callers: "),
        ("verdict = 'deny'\ntool = '*'\nreason = \"a\\nb\"", "silo.toml:8: policy rule 2: reason: "),
        ("verdict = 'deny'\ntool = '*'\narguments = { a = [] }", "silo.toml:8: policy rule 2: arguments: "),
        ("verdict = 'deny'\ntool = '*'\narguments = { a = nan }", "silo.toml:8: policy rule 2: arguments: "),
        ("verdict = 'deny'\ntool = '*'\narguments = { a = 1979-05-27 }", "silo.toml:8: policy rule 2: arguments: "),
        ("verdict = 'deny'\ntool = '*'\narguments = { 'a..b' = 'c' }", "silo.toml:8: policy rule 2: arguments: "),
        ("verdict = 'deny'\ntool = '*'\narguments.a.b = 'c'", 'write a path in quotes: "a.b" = ...'),
        ("verdict = 'deny'\ntool = '*'\n[policy.rules.arguments]\na = []", "silo.toml:8: policy rule 2: arguments: "),
    ],
)
def test_a_bad_value_is_an_error_with_the_number_of_the_rule_and_the_line(read, rule, message):
    with pytest.raises(ConfigInvalid) as caught:
        read(f"{GOOD}[[policy.rules]]\n{rule}\n\n{GOOD}")
    assert message in str(caught.value)
    assert not isinstance(caught.value, ConfigUnknownKey)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[policy]\nrules = 'x'", "silo.toml:2: policy.rules"),
        ("[policy]\nrules = ['x']", "silo.toml:2: policy.rules"),
        ("[policy.rules]\nverdict = 'deny'", "silo.toml:1: policy.rules"),
        ("[[policy]]\nverdict = 'deny'", "silo.toml:1: 'policy' is a table"),
        ("[[policy.rule]]\nverdict = 'deny'", "silo.toml:1: unknown key 'policy.rule'"),
        ("[[rules]]\nverdict = 'deny'", "silo.toml:1: unknown key 'rules'"),
    ],
)
def test_rules_in_another_shape_or_place_are_refused(read, text, place):
    with pytest.raises(ConfigInvalid) as caught:
        read(text)
    assert place in str(caught.value)


def test_rows_show_rules_as_json(read):
    rows = {key: (value, origin) for key, value, origin in read(GOOD).rows()}
    value, origin = rows["policy.rules"]
    assert origin == "silo.toml:1"
    assert value == [
        {"verdict": "allow", "tool": "jwt.*", "arguments": {}, "callers": ["cli", "mcp", "library"], "reason": ""}
    ]


def test_a_rule_that_is_read_reads_the_same_again(read):
    config = read(GOOD).config
    assert Config.model_validate(config.model_dump(mode="json")) == config
