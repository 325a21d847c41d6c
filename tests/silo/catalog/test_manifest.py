from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.catalog.manifest import ManifestInvalid, decode_manifest, encode_manifest
from silo.model import Isolation, SecretSpec, Skill, SkillHeader, Tool, ToolHints

GOLDEN = Path(__file__).parent / "golden" / "manifest-v1.json"
FOLDER = Path("/somewhere/demo/aaaaaaaaaaaaaaaa")

SKILL = Skill(
    namespace="demo",
    digest="a" * 64,
    header=SkillHeader(
        namespace="demo",
        requires_python=">=3.11",
        dependencies=("six>=1",),
        network=("api.example.org",),
        secrets={"KEY": SecretSpec("KEY", description="A key.")},
        memory_mib=512,
        timeout_s=2.5,
        require_approval=True,
        min_isolation=Isolation.GVISOR,
        description="Ein kurzes Beispiel für alle.",
    ),
    tools=(
        Tool(
            skill="demo",
            name="act",
            description="Act.",
            input_schema={"type": "object", "properties": {"n": {"type": "integer", "default": 1}}},
            output_schema=None,
            require_approval=True,
            time_to_live_s=600,
            secrets=("KEY",),
            timeout_s=2.5,
            hints=ToolHints(title="Act", read_only=False),
        ),
    ),
    folder=FOLDER,
    source="builtin:demo",
    instructions="Call act.",
    installed_at="2026-01-02T03:04:05Z",
    image="b" * 64,
    described_by=Isolation.MICROVM,
    packages=("six==1.17.0",),
)


def test_the_format_of_version_1_does_not_change():
    assert encode_manifest(SKILL) == GOLDEN.read_text(encoding="utf-8")
    assert decode_manifest(GOLDEN.read_text(encoding="utf-8"), FOLDER) == SKILL


def test_parameters_keep_the_order_that_the_skill_gave_them():
    schema = {"type": "object", "properties": {"zeta": {}, "alpha": {}}}
    skill = replace(SKILL, tools=(replace(SKILL.tools[0], input_schema=schema),))
    (tool,) = decode_manifest(encode_manifest(skill), FOLDER).tools
    assert list(tool.input_schema["properties"]) == ["zeta", "alpha"]


def test_a_manifest_does_not_say_where_it_lies():
    assert decode_manifest(encode_manifest(SKILL), Path("/elsewhere")).folder == Path("/elsewhere")
    assert "somewhere" not in encode_manifest(SKILL)


def paths(value: object, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [here] if here else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths(inner, (*here, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += paths(inner, (*here, index))
    return found


OPEN = ("input_schema", "default")
PLACES = [path for path in paths(json.loads(GOLDEN.read_text(encoding="utf-8"))) if not set(OPEN) & set(path)]


@given(st.sampled_from(PLACES), st.sampled_from([{"x": object}, [[]], -1.5, 7]))
def test_a_value_of_another_type_in_any_place_is_refused(path: tuple[str | int, ...], value: object):
    document = json.loads(GOLDEN.read_text(encoding="utf-8"))
    holder = document
    for part in path[:-1]:
        holder = holder[part]
    if type(holder[path[-1]]) is type(value) or (path[-1] == "output_schema" and isinstance(value, dict)):
        return  # it has the right type
    holder[path[-1]] = json.loads(json.dumps(value, default=str))
    with pytest.raises(ManifestInvalid):
        decode_manifest(json.dumps(document, indent=2, ensure_ascii=False) + "\n", FOLDER)


@given(st.sampled_from(PLACES))
def test_a_missing_key_or_entry_is_refused(path: tuple[str | int, ...]):
    document = json.loads(GOLDEN.read_text(encoding="utf-8"))
    holder = document
    for part in path[:-1]:
        holder = holder[part]
    if isinstance(holder, list) or path[:-1] == ("header", "secrets"):
        return  # a shorter list, or one secret less, is a valid manifest of another skill
    del holder[path[-1]]
    with pytest.raises(ManifestInvalid):
        decode_manifest(json.dumps(document, indent=2, ensure_ascii=False) + "\n", FOLDER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"manifest": 2}',
        '{"manifest": 1}',
        "[" * 100_000,
        GOLDEN.read_text(encoding="utf-8") + " ",
    ],
)
def test_what_is_no_manifest_is_refused(text: str):
    with pytest.raises(ManifestInvalid):
        decode_manifest(text, FOLDER)


def test_a_manifest_of_a_newer_version_is_refused_and_not_guessed_at():
    newer = GOLDEN.read_text(encoding="utf-8").replace('"manifest": 1', '"manifest": 2')
    with pytest.raises(ManifestInvalid, match="not of version 1"):
        decode_manifest(newer, FOLDER)


def test_an_unknown_key_is_refused():
    extra = GOLDEN.read_text(encoding="utf-8").replace('"memory_mib": 512,', '"memory_mib": 512,\n    "more": 1,')
    with pytest.raises(ManifestInvalid, match="more"):
        decode_manifest(extra, FOLDER)


def test_examples_of_a_header_are_kept_and_a_record_without_any_is_as_it_always_was():
    examples = {"act": ("act now", "tu etwas")}
    skill = replace(SKILL, header=replace(SKILL.header, examples=examples))
    text = encode_manifest(skill)
    assert decode_manifest(text, FOLDER).header.examples == examples
    assert "examples" not in encode_manifest(SKILL)
    with pytest.raises(ManifestInvalid):
        decode_manifest(text.replace('"act now"', "5"), FOLDER)
