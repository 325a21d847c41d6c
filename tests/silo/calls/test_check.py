"""What rules, person and guest get of a call is one value, and the tool makes of it what it would have made itself."""

import json
import math
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel
from pydantic import Field as PydanticField

from silo import File, Range
from silo.calls.check import check
from silo.calls.files import InputRules
from silo.errors import ArgumentsInvalid
from silo.model import Call, Caller
from silo.policy.evaluate import decide
from silo.policy.patterns import Glob
from silo.policy.rules import Rule
from silo.schema.arguments import Checkers
from silo.schema.canonical import HashedArguments
from silo.sdk.coerce import coerce_arguments
from silo.sdk.schema import input_schema
from silo.sdk.signature import read_signature
from silo.testing.fakes import make_skill, make_tool

MCP = Caller("mcp")


class Mode(Enum):
    FAST = "fast"
    SAFE = "safe"


class Point(NamedTuple):
    x: int
    y: int = 7


@dataclass
class Inner:
    force: bool = True
    tags: list[str] = field(default_factory=list)


@dataclass
class Options:
    inner: Inner = field(default_factory=Inner)
    known: Inner = field(default=None)  # type: ignore[assignment]
    deep: Inner | None = None
    mode: Mode = Mode.SAFE
    rows: list[Point] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    name: str = "n"
    at: date = date(2024, 2, 29)


class Loose(TypedDict, total=False):
    force: bool


class Model(BaseModel):
    force: bool = True
    where: Path = Path("a")
    pair: tuple[int, int] = (1, 2)
    zip_code: Annotated[str, PydanticField(validation_alias=AliasChoices("zip", "code"))] = "00000"


class Nested(BaseModel):
    model: Model = Model()
    kind: Literal["a"] = "a"


def work(
    given: str,
    options: Options | None = None,
    frozen: Frozen = Frozen(),
    either: Inner | Point | None = None,
    point: Point = Point(1),  # noqa: B008 - what a skill's author may write
    loose: Loose | None = None,
    nested: Nested = Nested(),  # noqa: B008
    models: list[Model] = [],  # noqa: B006
    price: Decimal = Decimal("1.50"),
    number: float = 1.0,
    where: Path = Path("x"),
    anything: Any = None,
    path_in_any: Any = Path("y"),
    pair_in_any: Any = (1, 2),
    sentinel: Annotated[int, Range(ge=1)] = 0,
    wrong: str = None,  # type: ignore[assignment]  # noqa: RUF013
    endless: float = math.inf,
    data: File | None = None,
) -> None: ...


SIGNATURE = read_signature("work", work)
TOOL = make_tool("work")
TOOL.input_schema.clear()
TOOL.input_schema.update(input_schema(SIGNATURE))
SKILL = make_skill(TOOL)
CHECKERS = Checkers()


def checked(arguments, tool=TOOL):
    checkers = CHECKERS if tool is TOOL else Checkers()
    return check(Call("c", tool.id, arguments, MCP), make_skill(tool), tool, checkers, InputRules())


INNER = st.fixed_dictionaries(
    {}, optional={"force": st.booleans(), "tags": st.lists(st.sampled_from("ab"), max_size=2)}
)
POINT = st.fixed_dictionaries({"x": st.integers(0, 3)}, optional={"y": st.integers(0, 3)})
MODEL = st.fixed_dictionaries(
    {},
    optional={"force": st.booleans(), "where": st.just("b"), "pair": st.just([3, 4]), "zip": st.just("1")},
)
CALLS = st.fixed_dictionaries(
    {"given": st.sampled_from(["a", "b"])},
    optional={
        "options": st.none() | st.fixed_dictionaries(
            {}, optional={"inner": INNER, "deep": st.none() | INNER, "mode": st.sampled_from(["fast", "safe"]),
                          "rows": st.lists(POINT, max_size=2)}
        ),
        "frozen": st.fixed_dictionaries({}, optional={"name": st.just("m"), "at": st.just("2025-01-01")}),
        "either": st.none() | INNER | POINT,
        "point": POINT,
        "loose": st.fixed_dictionaries({}, optional={"force": st.booleans()}),
        "nested": st.fixed_dictionaries({}, optional={"model": MODEL, "kind": st.just("a")}),
        "models": st.lists(MODEL, max_size=2),
        "price": st.sampled_from(["1.50", "2"]),
        "number": st.sampled_from([1, 1.0, 2.5]),
        "anything": st.sampled_from([None, {"$file": 0}, [1]]),
        "sentinel": st.just(3),
        "data": st.just(File(b"x", name="x.bin")),
    },
)  # fmt: skip


def as_the_tool_sees(arguments):
    """The values of all parameters, as the function gets them."""
    defaults = {entry.name: entry.default for entry in SIGNATURE.parameters if not entry.required}
    return {**defaults, **coerce_arguments(SIGNATURE, arguments)}


@settings(deadline=None, max_examples=300)
@given(CALLS)
def test_a_tool_gets_from_completed_arguments_what_it_would_have_taken_itself(arguments):
    found = checked(arguments)
    assert found.request.arguments == found.call.arguments
    assert repr(as_the_tool_sees(found.call.arguments)) == repr(as_the_tool_sees(arguments))


def plain(value):
    """What a tool got, as JSON."""
    if hasattr(value, "__dict__") and not isinstance(value, Enum | Path | date | File):
        value = vars(value)
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def at(value, path):
    """Every value at a path of what a tool got."""
    for number, name in enumerate(path):
        if isinstance(value, list):
            return [found for item in value for found in at(item, path[number:])]
        if not isinstance(value, dict) or name not in value:
            return []
        value = value[name]
    return [value]


PATHS = [
    "options.inner.force", "options.inner.tags", "options.deep.force", "options.mode", "options.rows.y",
    "options.known", "frozen.name", "frozen.at", "either.force", "either.y", "point.y", "nested.model.force",
    "nested.model.where", "nested.kind", "models.force", "models.where", "price", "number", "where", "sentinel",
    "wrong", "path_in_any",
]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(CALLS, st.sampled_from(PATHS))
def test_no_value_that_a_tool_gets_escapes_a_deny_or_passes_an_allow_that_does_not_name_it(arguments, path):
    """Past fault: a nested argument that was left out was not looked at, and the tool took its default."""
    got = at(plain(as_the_tool_sees(arguments)), path.split("."))
    call = checked(arguments).call
    for value in got:
        text = value if isinstance(value, str) else json.dumps(value)
        glob = Glob("".join(f"[{one}]" if one in "*?[" else one for one in text))
        if not isinstance(value, list):
            deny = Rule("rule", "deny", (Glob("*"),), {path: (glob,)})
            assert decide(TOOL, SKILL.header, call.arguments, MCP, [deny]).verdict == "deny", (path, value)
        asking = make_skill(TOOL, require_approval=True).header
        allow = Rule("rule", "allow", (Glob("*"),), {path: (Glob("another value"),)})
        assert decide(TOOL, asking, call.arguments, MCP, [allow]).verdict == "ask"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("options.inner.force", True),
        ("frozen.name", "n"),
        ("point.y", 7),
        ("nested.model.force", True),
        ("price", "1.50"),
    ],
)
def test_a_nested_default_is_denied_like_a_value_that_is_given(path, value):
    arguments = {"given": "a", "options": {"inner": {}}, "point": {"x": 1}}
    text = str(value).lower()
    for verdict, expected in (("deny", "deny"), ("ask", "ask"), ("allow", "allow")):
        header = make_skill(TOOL, require_approval=verdict == "allow").header
        rules = [Rule("rule", verdict, (Glob("*"),), {path: (Glob(text),)})]
        assert decide(TOOL, header, checked(arguments).call.arguments, MCP, rules).verdict == expected


def test_a_second_name_of_an_argument_does_not_get_past_a_rule_about_the_first():
    """pydantic's schema has only the first of several aliases; the tool takes the value that the rule looked at."""
    found = checked({"given": "a", "nested": {"model": {"code": "secret"}}}).call.arguments
    assert found["nested"]["model"]["zip"] == as_the_tool_sees(found)["nested"].model.zip_code == "00000"


def test_a_default_that_only_python_has_is_neither_sent_nor_overlooked():
    found = checked({"given": "a"})
    for name in ("path_in_any", "pair_in_any", "sentinel", "wrong", "endless"):
        assert name not in found.call.arguments
        rules = [Rule("rule", "deny", (Glob("*"),), {name: (Glob("nothing like it"),)})]
        assert decide(TOOL, SKILL.header, found.call.arguments, MCP, rules).verdict == "deny"


@pytest.mark.parametrize(
    "more",
    [{"maxProperties": 1}, {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"not": {"required": ["b"]}}],
)
def test_arguments_that_are_right_only_without_the_defaults_are_sent_without_them(more):
    tool = make_tool(properties={"a": {"default": 1}, "b": {"default": 2}})
    tool.input_schema.update(more)
    found = checked({"a": 1}, tool).call.arguments
    assert found == {"a": 1}
    rules = [Rule("rule", "deny", (Glob("*"),), {"b": (Glob("2"),)})]
    assert decide(tool, SKILL.header, found, MCP, rules).verdict == "deny"


def test_arguments_that_are_wrong_are_wrong_with_defaults_too():
    tool = make_tool(properties={"a": {"type": "integer"}, "b": {"default": 2}}, required=["a"])
    for arguments in ({}, {"a": "x"}, {"a": 1, "z": 1}):
        with pytest.raises(ArgumentsInvalid):
            checked(arguments, tool)


def test_defaults_that_make_a_call_too_large_are_an_error_that_says_so():
    tool = make_tool(properties={"rows": {"items": {"properties": {"text": {"default": "x" * 50_000}}}}})
    with pytest.raises(ArgumentsInvalid, match="become too large"):
        checked({"rows": [{}] * 2000}, tool)


def test_defaults_of_defaults_that_nest_too_deep_are_an_error_that_says_so():
    """Each part of a schema that is not deep has the next one as a default, so an empty call becomes a deep one."""
    parts = {f"p{i}": {"properties": {"n": {"$ref": f"#/$defs/p{i + 1}", "default": {}}}} for i in range(70)}
    tool = make_tool(properties={"x": {"$ref": "#/$defs/p40", "default": {}}})
    tool.input_schema["$defs"] = {**parts, "p70": {}}
    assert HashedArguments(checked({}, tool).call.arguments).sha256
    tool.input_schema["properties"]["x"]["$ref"] = "#/$defs/p0"
    with pytest.raises(ArgumentsInvalid, match="become too large"):
        checked({}, tool)
