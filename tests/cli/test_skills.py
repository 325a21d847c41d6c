"""`silo init`, `install`, `uninstall`: what they leave, what they say, and what they refuse."""

import re
from pathlib import Path

import pytest


@pytest.fixture
def source(fake_silo, tmp_path):
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "skill.py").write_text(fake_silo.SCRIPT)
    return folder


def test_init_writes_a_skill_and_prints_where(bare_silo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = bare_silo("init", "weather", "--secrets", "WEATHER_KEY, OTHER")
    assert (found.status, found.out, found.err) == (0, "weather\n", "")
    script = (tmp_path / "weather" / "skill.py").read_text()
    assert "[tool.silo.secrets.WEATHER_KEY]" in script
    assert "[tool.silo.secrets.OTHER]" in script
    again = bare_silo("init", "weather")
    assert (again.status, again.code) == (2, "usage")
    assert (tmp_path / "weather" / "skill.py").read_text() == script


@pytest.mark.parametrize("arguments", [["a/b"], ["Silo"], ["x", "--secrets", "lower case"], []])
def test_init_refuses_names_that_cannot_be(bare_silo, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    found = bare_silo("init", *arguments)
    assert (found.status, found.out) == (2, "")
    assert found.hint
    assert list(tmp_path.iterdir()) == []


def test_install_and_uninstall_leave_what_they_say(bare_silo, source):
    found = bare_silo("install", str(source), "--yes", "--name", "other")
    assert (found.status, found.out) == (0, "")
    assert "installed other: other.broken, other.complaining, other.echo" in found.err
    assert "silo vault add DEMO_KEY" in found.err
    assert [skill["namespace"] for skill in bare_silo("list", "--json").json["skills"]] == ["other"]
    removed = bare_silo("uninstall", "other")
    assert (removed.status, removed.out, removed.err) == (0, "", "")
    assert bare_silo("list", "--json").json == {"skills": [], "damaged": []}
    again = bare_silo("uninstall", "other")
    assert (again.status, again.code) == (2, "skill-unknown")


@pytest.mark.parametrize("damage", [lambda text: "{\n", lambda text: text.replace(": false", ": true")])
def test_a_damaged_skill_is_named_by_list_and_mended_by_install_or_uninstall(silo, source, damage):
    whole = silo("list", "--json")
    manifest = next(silo.home.glob("skills/demo/*/manifest.json"))
    for repair in (["install", str(source), "--name", "demo", "--yes"], ["uninstall", "demo"]):
        manifest.write_text(damage(manifest.read_text()))
        text = silo("list")
        assert (text.status, text.out) == (0, "")
        assert "silo: warning: demo is damaged and not in the list: skill 'demo' was changed" in text.err
        assert "`silo install SOURCE --name demo`" in text.hint
        assert "`silo uninstall demo`" in text.hint
        document = silo("list", "--json")
        assert (document.status, document.json, document.err) == (0, {"skills": [], "damaged": ["demo"]}, text.err)
        assert silo(*repair).status == 0
        after = silo("list", "--json")
        assert (after.json["damaged"], after.err) == ([], "")
    assert whole.json["damaged"] == []
    assert after.json["skills"] == []


def test_a_damaged_skill_does_not_hide_the_others_in_the_list(silo, source):
    silo("install", str(source), "--name", "other", "--yes")
    next(silo.home.glob("skills/demo/*/manifest.json")).write_text("{")
    assert [skill["namespace"] for skill in silo("list", "--json").json["skills"]] == ["other"]
    found = silo("list")
    assert found.status == 0
    assert "other" in found.out
    assert "demo is damaged" in found.err


def test_install_without_a_terminal_needs_yes_and_installs_nothing(bare_silo, source):
    found = bare_silo("install", str(source))
    assert (found.status, found.code, found.out) == (3, "approval-required", "")
    assert "--yes" in found.hint
    assert bare_silo("list", "--json").json == {"skills": [], "damaged": []}


def test_yes_still_says_what_is_unusual(silo, source):
    script = source / "skill.py"
    script.write_text(script.read_text() + "\n# newer\n")
    refused = silo("install", str(source), "--yes")  # a tool of `demo` needs approval
    assert (refused.status, refused.code) == (3, "approval-required")
    assert "demo.guarded needs approval" in refused.err
    digest = re.search(r'demo = "([0-9a-f]{64})"', refused.hint)
    (silo.home / "silo.toml").write_text(f'[install.provision]\ndemo = "{digest[1]}"\n')
    found = silo("install", str(source), "--provision")
    assert found.status == 0
    assert "silo: warning: another version of this skill is installed" in found.err


def test_provision_refuses_what_silo_toml_does_not_name_or_can_not(silo, source):
    script = source / "skill.py"
    script.write_text(script.read_text() + "\n# newer\n")
    found = silo("install", str(source), "--provision", "--yes")
    assert (found.status, found.code) == (3, "approval-required")
    for line in ('demo = "short"', f'"De mo" = "{"0" * 64}"'):
        (silo.home / "silo.toml").write_text(f"[install.provision]\n{line}\n")
        assert silo("install", str(source), "--provision").code == "config-invalid"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "header-invalid"),
        ('# /// script\n# requires-python = ">=3.11"\n# [tool.silo]\n# memory_mb = 1\n# ///\n', "header-invalid"),
        (
            '# /// script\n# requires-python = ">=3.11"\n# [tool.silo]\n# network = ["example.org"]\n# ///\n',
            "not-in-this-version",
        ),
    ],
)
def test_a_header_that_cannot_be_is_refused(bare_silo, tmp_path, header, code):
    (tmp_path / "demo.py").write_text(header)
    found = bare_silo("install", str(tmp_path / "demo.py"), "--yes")
    assert (found.status, found.code, found.out) == (2, code, "")
    assert found.hint
    assert bare_silo("list", "--json").json == {"skills": [], "damaged": []}


def test_an_unknown_source_is_answered_with_the_nearest_built_in_name(bare_silo):
    found = bare_silo("install", "jtw", "--yes")
    assert (found.status, found.code) == (2, "skill-unknown")
    assert "'jwt'" in found.hint


def test_a_name_that_cannot_be_is_refused(bare_silo, source):
    found = bare_silo("install", str(source), "--yes", "--name", "No Name")
    assert (found.status, found.code) == (2, "usage")


def test_a_machine_without_a_sandbox_installs_nothing(bare_silo, source):
    bare_silo.works = False
    found = bare_silo("install", str(source), "--yes")
    assert (found.status, found.code) == (5, "sandbox-unavailable")
    assert not any(Path(bare_silo.home / "skills").glob("demo"))
