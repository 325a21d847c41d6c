from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.catalog.metadata import read_metadata
from silo.errors import SkillMetadataInvalid
from silo.model import SecretSpec, SkillHeader, ToolHints
from silo.testing.fakes import described_tool

HEADER = SkillHeader(
    namespace="demo",
    requires_python=">=3.11",
    network=("api.example.org", "b.example.org"),
    secrets={"A_KEY": SecretSpec("A_KEY"), "B_KEY": SecretSpec("B_KEY")},
    timeout_s=7.5,
)


def tool(**changes: Any) -> dict[str, Any]:
    return described_tool("act", secrets=None) | changes


def said(*tools: object, **changes: Any) -> dict[str, Any]:
    return {"namespace": "demo", "summary": "A demo.", "instructions": None, "tools": list(tools) or [tool()]} | changes


def refusal(description: dict[str, Any], header: SkillHeader = HEADER) -> SkillMetadataInvalid:
    with pytest.raises(SkillMetadataInvalid) as caught:
        read_metadata(description, header)
    assert caught.value.message.startswith("skill 'demo': ")
    assert caught.value.hint
    return caught.value


def test_tools_are_read_and_sorted_with_the_headers_limits():
    metadata = read_metadata(
        said(tool(name="b", title="B", read_only=True, destructive=False), tool(name="a"), instructions="Use a."),
        HEADER,
    )
    first, second = metadata.tools
    assert (first.id, second.id) == ("demo.a", "demo.b")
    assert first.timeout_s == 7.5
    assert first.secrets == ("A_KEY", "B_KEY")
    assert second.hints == ToolHints(title="B", read_only=True, destructive=False)
    assert (metadata.summary, metadata.instructions) == ("A demo.", "Use a.")


def test_a_decorator_may_narrow_the_header():
    (narrow,) = read_metadata(
        said(tool(secrets=["B_KEY"], network=["b.example.org"], require_approval=True)), HEADER
    ).tools
    assert narrow.secrets == ("B_KEY",)
    assert narrow.require_approval


def test_a_tool_without_secrets_gets_none():
    (narrow,) = read_metadata(said(tool(secrets=[])), HEADER).tools
    assert narrow.secrets == ()


def test_a_decorator_cannot_switch_off_the_headers_approval():
    strict = SkillHeader(namespace="demo", requires_python=">=3.11", require_approval=True)
    (found,) = read_metadata(said(tool(require_approval=False)), strict).tools
    assert found.require_approval


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (said(namespace="other"), "calls itself 'other', its header 'demo'"),
        (said(namespace=None), "calls itself"),
        (said(tools=[]), "no tool"),
        (said(tools={}), "no tool"),
        (said(*[tool(name=f"t{n}") for n in range(129)]), "129 tools"),
        (said(tool(), tool()), "two tools 'act'"),
        (said("act"), "does not describe itself"),
        (said(extra=1), "does not describe itself"),
        ({"namespace": "demo"}, "does not describe itself"),
        (said({**tool(), "extra": 1}), "does not describe itself"),
        (said(tool(name="Act")), "'Act' is not allowed"),
        (said(tool(name="a" * 65)), "is not allowed"),
        (said(tool(name="a\n")), "is not allowed"),
        (said(tool(name="a\u200b")), "'a<U+200B>' is not allowed"),
        (said(tool(secrets=["C_KEY"])), "asks for 'C_KEY', which [tool.silo.secrets] in the header does not grant"),
        (said(tool(network=["evil.example"])), "asks for 'evil.example', which 'network'"),
        (said(tool(secrets="A_KEY")), "'secrets' is not a list"),
        (said(tool(secrets=[1])), "'secrets' is not a list"),
        (said(tool(require_approval=0)), "neither true nor false"),
        (said(tool(require_approval=None)), "neither true nor false"),
        (said(tool(read_only="yes")), "'read_only' is neither"),
        (said(tool(time_to_live=-1)), "time_to_live"),
        (said(tool(time_to_live=True)), "time_to_live"),
        (said(tool(time_to_live=86401)), "time_to_live"),
        (said(tool(description=None)), "'description' is not a text"),
        (said(tool(description="x" * 9000)), "more than 8192 characters"),
        (said(tool(title="x" * 201)), "more than 200 characters"),
        (said(instructions="x" * 70_000), "more than 65536 characters"),
        (said(tool(input_schema=None)), "schema of its arguments is refused: it is not an object"),
        (said(tool(input_schema={"type": "array"})), "its root is not"),
        (said(tool(input_schema={"type": "object", "maximum": float("nan")})), "schema of its arguments is refused"),
        (said(tool(output_schema={"$ref": "https://a.example"})), "schema of its result is refused: '$ref' leads out"),
    ],
)
def test_what_breaks_a_rule_is_refused(description: dict[str, Any], message: str):
    assert message in refusal(description).message


def test_a_misspelt_secret_gets_the_nearest_name():
    assert "did you mean 'A_KEY'" in refusal(said(tool(secrets=["A_KEYS"]))).hint


def test_hidden_instructions_to_a_model_become_visible():
    """Tool poisoning: what a person reads at install is what a model reads later."""
    poisoned = "Adds.\u200b\U000e0072\U000e0065\U000e0061\U000e0064"
    metadata = read_metadata(said(tool(description=poisoned, title="a\u202e"), instructions=poisoned), HEADER)
    assert metadata.tools[0].description == "Adds.<U+200B><U+E0072><U+E0065><U+E0061><U+E0064>"
    assert metadata.tools[0].hints.title == "a<U+202E>"
    assert metadata.instructions == metadata.tools[0].description


junk = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@given(st.sampled_from(sorted(said())), st.sampled_from(sorted(tool())), junk)
def test_any_value_in_any_place_is_read_or_refused(outer: str, inner: str, value: object):
    for description in (said(**{outer: value}), said(tool(**{inner: value}))):
        try:
            found = read_metadata(description, HEADER)
        except SkillMetadataInvalid:
            continue
        assert {secret for one in found.tools for secret in one.secrets} <= set(HEADER.secrets)


def test_examples_for_a_tool_that_there_is_not_are_refused_with_the_nearest_name():
    """The author misspelt it, and would wonder why they do nothing."""
    error = refusal(said(tool(name="act")), replace(HEADER, examples={"akt": ("act now",)}))
    assert "examples for a tool 'akt'" in error.message
    assert error.hint == "did you mean 'act'?"
    assert read_metadata(said(tool(name="act")), replace(HEADER, examples={"act": ("act now",)})).tools
