import functools
from types import ModuleType

import pytest

from silo.sdk.errors import SkillDefinitionError
from silo.sdk.skill import Skill, find_skill


def test_decorators_return_the_function_unchanged():
    skill = Skill("s")

    def work() -> str:
        return "done"

    def manual() -> str:
        return ""

    def warm() -> None: ...

    assert skill.tool(work) is work
    assert skill.tool(name="again")(work) is work
    assert skill.instructions()(manual) is manual
    assert skill.warmup()(warm) is warm
    assert skill.warmup(warm) is warm


def test_a_bare_decorator_registers_with_the_safe_defaults():
    skill = Skill("s")

    @skill.tool
    def work() -> None: ...

    tool = skill.tools["work"]
    assert (tool.require_approval, tool.time_to_live, tool.secrets, tool.network) == (False, 600, None, None)


def test_tools_keep_the_order_of_the_script():
    skill = Skill("s")
    for name in ("z", "a", "m"):
        skill.tool(name=name)(lambda: None)
    assert list(skill.tools) == ["z", "a", "m"]


def test_tools_can_only_be_added_by_the_decorator():
    with pytest.raises(TypeError):
        Skill("s").tools["x"] = None  # type: ignore[index]


@pytest.mark.parametrize("namespace", ["", "GitHub", "1a", "a-b", "a__b", "a.b", "a" * 33, "ä", "a\n", None])
def test_a_namespace_that_could_not_be_called_is_refused(namespace: str):
    with pytest.raises(SkillDefinitionError, match="can't name a skill"):
        Skill(namespace)


@pytest.mark.parametrize("name", ["", "List", "_private", "a-b", "a.b", "a" * 65, "ä", 3])
def test_a_tool_name_that_could_not_be_called_is_refused(name: str):
    with pytest.raises(SkillDefinitionError, match="can't name a tool"):
        Skill("s").tool(name=name)(lambda: None)


def test_a_lambda_needs_a_name():
    with pytest.raises(SkillDefinitionError, match="can't name a tool"):
        Skill("s").tool(lambda: None)


def test_two_tools_of_one_name_are_refused():
    skill = Skill("s")
    skill.tool(name="a")(lambda: None)
    with pytest.raises(SkillDefinitionError, match="two tools named 'a'"):
        skill.tool(name="a")(lambda: None)


def test_a_name_given_by_position_is_explained():
    with pytest.raises(SkillDefinitionError, match=r'@skill.tool\(name="list"\)'):
        Skill("s").tool("list")  # type: ignore[call-overload]


def test_parameters_that_an_agent_could_not_name_are_refused():
    skill = Skill("s")

    def starred(*parts: str) -> None: ...
    def keywords(**options: str) -> None: ...
    def positional(a: str, /) -> None: ...

    with pytest.raises(SkillDefinitionError, match=r"'starred' takes \*parts"):
        skill.tool(starred)
    with pytest.raises(SkillDefinitionError, match=r"'keywords' takes \*\*options"):
        skill.tool(keywords)
    with pytest.raises(SkillDefinitionError, match="remove the '/'"):
        skill.tool(positional)
    assert not skill.tools


def test_generators_are_refused_with_what_to_do_instead():
    def pages():
        yield 1

    async def apages():
        yield 1

    for function in (pages, apages):
        with pytest.raises(SkillDefinitionError, match="return a list"):
            Skill("s").tool(function)


class _Callable:
    __name__ = "work"

    def __call__(self) -> None: ...


@pytest.mark.parametrize("thing", [_Callable, _Callable(), functools.partial(print), 3])
def test_what_is_no_function_is_refused(thing: object):
    with pytest.raises(SkillDefinitionError, match=r"takes a function|can't name"):
        Skill("s").tool(name=None)(thing)  # type: ignore[type-var]


def test_a_wrapped_function_is_a_function():
    @functools.cache
    def work(a: int) -> int:
        return a

    skill = Skill("s")
    skill.tool(work)
    assert "work" in skill.tools


@pytest.mark.parametrize(
    "options",
    [
        {"require_approval": "no"},
        {"require_approval": 1},
        {"time_to_live": -1},
        {"time_to_live": True},
        {"time_to_live": 1.5},
        {"time_to_live": 10**6},
        {"secrets": "TOKEN"},
        {"secrets": ["token"]},
        {"secrets": [1]},
        {"network": "a.example"},
        {"network": [""]},
        {"read_only": "yes"},
        {"destructive": 0},
    ],
)
def test_a_restriction_that_is_not_meant_literally_is_refused(options: dict[str, object]):
    skill = Skill("s")
    with pytest.raises(SkillDefinitionError, match=next(iter(options))):
        skill.tool(name="a", **options)(lambda: None)  # type: ignore[call-overload]
    assert not skill.tools


def test_no_secrets_is_not_the_same_as_all_secrets():
    skill = Skill("s")
    skill.tool(name="none", secrets=())(lambda: None)
    skill.tool(name="all")(lambda: None)
    skill.tool(name="one", secrets=["A", "A"])(lambda: None)
    assert [tool.secrets for tool in skill.tools.values()] == [(), None, ("A",)]


def test_a_second_manual_is_refused():
    skill = Skill("s")
    skill.instructions()(lambda: "a")
    with pytest.raises(SkillDefinitionError, match="has two @skill"):
        skill.instructions()(lambda: "b")


def test_manual_and_warmup_take_no_parameters():
    with pytest.raises(SkillDefinitionError, match="takes no parameters"):
        Skill("s").instructions()(lambda a: "")  # type: ignore[arg-type,misc]
    with pytest.raises(SkillDefinitionError, match="takes no parameters"):
        Skill("s").warmup()(lambda a: None)  # type: ignore[arg-type,misc]


def test_find_skill_returns_the_one_skill():
    module = ModuleType("m")
    skill = Skill("s")
    skill.tool(name="a")(lambda: None)
    module.skill = module.alias = skill  # type: ignore[attr-defined]
    assert find_skill(module) is skill


def test_find_skill_wants_exactly_one_with_tools():
    module = ModuleType("m")
    with pytest.raises(SkillDefinitionError, match="defines no skill") as caught:
        find_skill(module)
    assert caught.value.code == "skill-metadata-invalid"
    module.a = Skill("a")  # type: ignore[attr-defined]
    with pytest.raises(SkillDefinitionError, match="has no tools"):
        find_skill(module)
    module.b = Skill("b")  # type: ignore[attr-defined]
    with pytest.raises(SkillDefinitionError, match="more than one skill"):
        find_skill(module)
