"""The installed skills are read once for each change, hidden if the rules say so, and found by their names."""

from __future__ import annotations

import anyio
import pytest

from silo.catalog.store import SkillStore
from silo.discovery.indexes import Indexes
from silo.errors import SkillChanged, SkillUnknown, ToolUnknown
from silo.model import Caller
from silo.policy.patterns import Glob
from silo.policy.rules import Rule
from silo.providers.skills import Skills
from silo.router.settings import RouterSettings
from silo.testing.fakes import make_skill, make_tool

AGENT, USER = Caller("mcp", "client 1"), Caller("cli")
JWT = make_skill(
    make_tool("sign", skill="jwt", description="Sign a JSON Web Token."),
    make_tool("verify", skill="jwt", description="Verify a JSON Web Token."),
    namespace="jwt",
)
WEATHER = make_skill(
    make_tool("forecast", skill="weather", description="Predict the weather of a city."), namespace="weather"
)


def deny(tool, *callers):
    return Rule("silo.toml rule 1", "deny", (Glob(tool),), {}, callers or ("mcp", "cli", "library"))


def open_skills(store, *rules):
    indexes = Indexes(RouterSettings(), cache=None, learned=None)
    return Skills(store, rules, guess=indexes.described)


class CountedStore(SkillStore):
    """Counts how often the folder is checked, and how often it is read."""

    looks = readings = 0

    def look(self):
        self.looks += 1
        return super().look()

    def read(self, seen):
        self.readings += 1
        return super().read(seen)


def test_an_unchanged_folder_is_looked_at_and_not_read_again(put_skills, skill_store):
    put_skills(JWT)
    store = CountedStore(skill_store.root)
    skills = open_skills(store)
    assert skills.now() is skills.now()
    assert skills.visible(AGENT) is skills.visible(Caller("mcp", "client 2"))
    assert (store.looks, store.readings) == (4, 1)


def test_what_is_installed_replaced_or_removed_shows_at_the_next_look(put_skills, skill_store):
    skills = open_skills(skill_store)
    assert skills.now().skills == ()
    put_skills(JWT, WEATHER)
    assert [tool.id for tool in skills.now().tools] == ["jwt.sign", "jwt.verify", "weather.forecast"]
    before = skills.now().skills[0]
    assert skills.is_current(before)
    put_skills(JWT, version=2)
    assert skills.now().skills[0] != before
    assert not skills.is_current(before)
    anyio.run(skill_store.remove, "jwt")
    assert [skill.namespace for skill in skills.visible(AGENT).skills] == ["weather"]


def test_a_damaged_skill_is_named_and_left_out(put_skills, skill_store):
    put_skills(JWT, WEATHER)
    next(skill_store.root.glob("jwt/*/manifest.json")).write_text("{")
    inventory = open_skills(skill_store).now()
    assert [skill.namespace for skill in inventory.skills] == ["weather"]
    assert [one.namespace for one in inventory.damaged] == ["jwt"]


def test_a_folder_that_is_not_one_is_an_error_and_not_an_empty_store(tmp_path):
    (tmp_path / "skills").write_text("")
    with pytest.raises(NotADirectoryError):
        open_skills(SkillStore(tmp_path / "skills")).now()


def test_what_may_be_known_depends_on_the_way_in(put_skills, skill_store):
    put_skills(JWT)
    skills = open_skills(skill_store, deny("jwt.sign", "mcp"))
    assert skills.visible(AGENT).expected == {"jwt.sign": "denied", "jwt.verify": "runs"}
    assert [tool.id for tool in skills.visible(AGENT).tools] == ["jwt.verify"]
    assert len(skills.visible(USER).tools) == 2
    assert skills.visible(USER).installed is skills.visible(AGENT).installed, "one index serves both"


def test_both_forms_of_a_name_mean_the_tool_hidden_or_not(put_skills, skill_store):
    put_skills(JWT)
    skills = open_skills(skill_store, deny("jwt.*"))
    for name in ("jwt.sign", "jwt__sign"):
        skill, tool = skills.resolve(name, AGENT)
        assert (skill.namespace, tool.id) == ("jwt", "jwt.sign")


def test_a_changed_script_is_refused(put_skills, skill_store):
    put_skills(JWT)
    next(skill_store.root.glob("jwt/*/skill.py")).write_text("# changed")
    with pytest.raises(SkillChanged):
        open_skills(skill_store).resolve("jwt.sign", AGENT)


@pytest.mark.parametrize(
    ("name", "error", "hint"),
    [
        ("jwt.sing", ToolUnknown, "did you mean 'jwt.sign'?"),
        ("jwtt.sign", SkillUnknown, "did you mean 'jwt.sign'?"),
        ("sign", ToolUnknown, "did you mean 'jwt.sign'?"),
        ("weather.forecats", ToolUnknown, "did you mean 'weather.forecast'?"),
        ("zz qq", ToolUnknown, "`silo list` shows the installed skills and their tools"),
        ("zz.qq", SkillUnknown, "`silo list` shows what is; `silo install` adds one"),
    ],
)
def test_a_wrong_name_gets_the_nearest_ones(put_skills, skill_store, name, error, hint):
    put_skills(JWT, WEATHER)
    with pytest.raises(error) as caught:
        open_skills(skill_store).resolve(name, AGENT)
    assert caught.value.hint == hint


def test_no_hint_names_what_the_caller_may_not_know_of(put_skills, skill_store):
    put_skills(JWT, WEATHER)
    skills = open_skills(skill_store, deny("jwt.*", "mcp"))
    for name in ("jwt.sing", "jwtt.sign", "sign", "sign a json web token"):
        with pytest.raises((SkillUnknown, ToolUnknown)) as caught:
            skills.resolve(name, AGENT)
        assert "jwt" not in caught.value.hint
    assert skills.nearest("jwt.sing", USER)[0] == "jwt.sign"


@pytest.mark.parametrize("name", ["sign a json web token", "sign_json_web_token", "Sign a JSON Web Token, please."])
def test_a_name_that_is_a_description_leads_to_the_tool(put_skills, skill_store, name):
    put_skills(JWT, WEATHER)
    assert "jwt.sign" in open_skills(skill_store).nearest(name, AGENT)


@pytest.mark.parametrize("name", ["", "zz qq", "\x00\x01 \x02", "x" * 100_000, "a b " * 50_000])
def test_a_name_that_says_nothing_leads_nowhere(put_skills, skill_store, name):
    put_skills(JWT)
    assert open_skills(skill_store).nearest(name, AGENT) == ()
