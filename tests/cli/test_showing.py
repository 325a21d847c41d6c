"""Commands that show something: golden files of their texts and documents, and what goes to stdout."""

import json

import pytest


@pytest.mark.parametrize(
    "command",
    [
        *(
            "",
            "init",
            "install",
            "uninstall",
            "list",
            "inspect",
            "search",
            "run",
            "audit",
            "audit show",
            "audit verify",
        ),
        *("vault", "vault add", "vault list", "vault remove", "vault status", "mcp", "mcp serve", "mcp config"),
        *("vault import", "vault export", "vault restore", "vault rekey", "vault rotate", "vault lock", "vault canary"),
        *("vault canary add", "vault canary list", "vault canary remove"),
        *("setup", "doctor", "config", "config show"),
    ],
)
def test_help_is_on_stdout_and_reads_as_agreed(bare_silo, golden, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found = bare_silo(*command.split(), "--help")
    assert (found.status, found.err) == (0, "")
    golden(f"help-{command.replace(' ', '-') or 'silo'}.txt", found.out)
    assert not bare_silo.home.exists(), "asking for help must not make a state folder"


def test_silo_alone_shows_its_help_and_succeeds(bare_silo):
    assert bare_silo() == bare_silo("--help")
    assert bare_silo("-h").out == bare_silo("--help").out


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("list", "list"),
        ("inspect", "inspect demo"),
        ("search", "search return what was given"),
        ("config-show", "config show"),
        ("vault-status", "vault status"),
    ],
)
def test_text_and_document_read_as_agreed(silo, golden, name, command):
    text = silo(*command.split())
    assert (text.status, text.err) == (0, "")
    golden(f"{name}.txt", text.out)
    document = silo(*command.split(), "--json")
    assert (document.status, document.err) == (0, "")
    golden(f"{name}.json", document.out)


def test_documents_have_sorted_keys(silo):
    for command in (
        "list --json",
        "inspect demo --json",
        "config show --json",
        "doctor --json",
        "run demo.echo --json",
    ):
        found = silo(*command.split())
        assert found.out == json.dumps(json.loads(found.out), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_ps_is_list(silo):
    assert silo("ps") == silo("list")


def test_an_empty_list_is_an_empty_document_and_a_word_on_stderr(bare_silo):
    assert bare_silo("list", "--json").json == {"skills": [], "damaged": []}
    found = bare_silo("list")
    assert (found.status, found.out) == (0, "")
    assert "silo install jwt" in found.err


def test_a_skill_whose_files_were_changed_is_not_inspected(silo):
    script = next(silo.home.glob("skills/demo/*/skill.py"))
    script.chmod(0o600)
    script.write_text(script.read_text() + "\n")
    found = silo("inspect", "demo")
    assert (found.status, found.code, found.out) == (2, "skill-changed", "")


def test_an_unknown_skill_is_answered_with_the_nearest_name(silo):
    found = silo("inspect", "dmeo")
    assert (found.status, found.code, found.out) == (2, "skill-unknown", "")
    assert "'demo'" in found.hint


def test_search_finds_at_most_what_was_asked_for(silo):
    assert len(silo("search", "show", "ask", "return", "-k", "2", "--json").json["tools"]) == 2
    found = silo("search", "zzz")
    assert found.status == 0
    assert "nothing fits clearly" in found.err
    assert all(tool["low_confidence"] for tool in silo("search", "zzz", "--json").json["tools"])


def test_the_audit_log_shows_calls_and_refusals_and_verifies(silo):
    silo("run", "demo.echo", "text=hi")
    silo("run", "demo.nothing")
    shown = silo("audit", "show", "-n", "3", "--json").json["records"]
    assert [record["event"] for record in shown] == ["call", "end", "refused"]
    assert [record.get("outcome") for record in shown] == [None, "ok", "tool-unknown"]
    table = silo("audit", "show", "-n", "2").out
    assert "demo.echo" in table
    assert "tool-unknown" in table
    verified = silo("audit", "verify", "--json")
    assert (verified.status, verified.json["head"]) == (0, shown[-1]["hash"])
    assert shown[-1]["hash"] in silo("audit", "verify").out


def test_a_changed_audit_log_does_not_verify(silo):
    log = silo.home / "audit.jsonl"
    log.write_text(log.read_text().replace('"ok"', '"no"', 1))
    found = silo("audit", "verify")
    assert (found.status, found.code, found.out) == (2, "audit-broken", "")


def test_an_audit_log_that_is_not_there_yet_is_whole(bare_silo):
    assert bare_silo("audit", "verify").out == "nothing is recorded yet\n"
    assert bare_silo("audit", "show").out == ""
    assert bare_silo("audit", "show", "--json").json == {"records": []}


def test_config_show_says_where_each_value_came_from(silo):
    (silo.home / "silo.toml").write_text("[call]\nmax_concurrent = 2\n")
    silo.environ["SILO_HEADLESS"] = "1"
    settings = silo("config", "show", "--json").json["settings"]
    assert settings["call.max_concurrent"] == {"value": 2, "origin": "silo.toml:2"}
    assert settings["approval.headless"] == {"value": True, "origin": "SILO_HEADLESS"}
    assert settings["files.max_mib"]["origin"] == "default"


def test_a_misspelt_setting_stops_every_command_that_reads_it(silo):
    (silo.home / "silo.toml").write_text("[sandbox]\nmin_isolaton = 'microvm'\n")
    for command in ("list", "run demo.echo", "doctor", "config show", "vault list", "mcp serve"):
        found = silo(*command.split())
        assert (found.status, found.code, found.out) == (2, "config-unknown-key", ""), command
        assert "'sandbox.min_isolation'" in found.hint


def test_mcp_config_prints_nothing_but_the_entry(silo):
    found = silo("mcp", "config", "vscode")
    server = found.json["servers"]["silo"]
    assert server["args"] == ["mcp", "serve"]
    assert server["command"].startswith("/")
    assert server["command"].endswith("/silo")
    assert server["env"] == {"SILO_HOME": str(silo.home)}
    assert ".vscode/mcp.json" in found.err


def test_mcp_serves_over_stdio_only(silo):
    found = silo("mcp", "serve", "--transport", "http")
    assert (found.status, found.code, found.out) == (2, "usage", "")
    assert "--transport" in found.hint
