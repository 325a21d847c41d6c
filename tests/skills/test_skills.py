"""Checks of every built-in and example skill: its header, its manual, and a call as in a guest."""

import io
import json
import re
from pathlib import Path

import pytest

from silo import File
from silo.catalog.header import read_header, refuse_not_yet
from silo.sandbox.skill.base import GuestRequest
from silo.sdk.describe import describe
from silo.sdk.invoke import invoke, rehearse
from silo.sdk.skill import find_skill

REPOSITORY = Path(__file__).parents[2]
BUILT_IN = sorted(path.parent.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("skills/*/skill.py"))
EXAMPLES = ["examples/hello", "examples/bench/httpx_pydantic", "examples/bench/hostile_guest"]


def test_the_promised_skills_are_there():
    assert {"skills/jwt", "skills/table", "skills/pdf", "skills/image"} <= set(BUILT_IN)


@pytest.mark.parametrize("folder", BUILT_IN + EXAMPLES)
def test_header_and_script_agree_and_need_no_feature_that_is_not_there_yet(load_script, folder):
    header = read_header((REPOSITORY / folder / "skill.py").read_bytes(), name=Path(folder).name)
    refuse_not_yet(header)
    skill = find_skill(load_script(f"{folder}/skill.py"))
    assert skill.namespace == header.namespace
    for tool in skill.tools.values():
        assert set(tool.secrets or ()) <= set(header.secrets)
        assert not tool.network


@pytest.mark.parametrize("folder", BUILT_IN)
def test_each_tool_is_described_down_to_its_parameters(load_script, folder):
    module = load_script(f"{folder}/skill.py")
    told = describe(find_skill(module), summary=module.__doc__)
    assert told["instructions"]
    for tool in told["tools"]:
        assert tool["description"]
        assert tool["title"]
        for parameter in tool["input_schema"]["properties"].values():
            assert parameter["description"]


@pytest.mark.parametrize("folder", BUILT_IN)
def test_the_manual_names_the_skill_and_all_of_its_tools(load_script, folder):
    text = (REPOSITORY / folder / "SKILL.md").read_text(encoding="utf-8")
    front = re.match(r"---\nname: (\w+)\ndescription: (.+)\n---\n", text)
    assert front is not None
    skill = find_skill(load_script(f"{folder}/skill.py"))
    assert front[1] == skill.namespace
    assert len(front[2]) <= 1024
    for name in skill.tools:
        assert f"`{skill.namespace}.{name}`" in text


@pytest.mark.parametrize("folder", BUILT_IN)
def test_a_rehearsal_runs_the_warmup(load_script, folder):
    rehearse(find_skill(load_script(f"{folder}/skill.py")))


def call(load_script, folder: str, tool: str, arguments: dict, *, secrets=None):
    document, files = GuestRequest(tool, arguments, secrets or {}).document()
    skill = find_skill(load_script(f"{folder}/skill.py"))
    return invoke(skill, tool, io.BytesIO(json.dumps(document).encode()), files, emit=lambda *report: None)


def test_a_call_of_each_skill_answers_by_the_path_of_a_guest(load_script):
    """The skill's process is driven as in a guest: one JSON document on STDIN, files beside it."""
    signed = call(load_script, "skills/jwt", "sign", {"claims": {"sub": "42"}}, secrets={"JWT_KEY": "k" * 32})
    assert signed.data["token"].count(".") == 2
    weak = call(load_script, "skills/jwt", "sign", {"claims": {}}, secrets={"JWT_KEY": "k"})
    assert weak.is_error
    assert "too short" in weak.text
    assert weak.data == {"reason": "weak-key"}

    sales = File(b"n\n1\n2\n", "text/csv", "sales.csv")
    arguments = {"data": sales, "sql": "SELECT sum(n) AS n FROM data"}
    assert call(load_script, "skills/table", "query", arguments).data["rows"] == [{"n": 3}]
    converted = call(load_script, "skills/table", "convert", {"data": sales, "to": "jsonl"})
    assert converted.files == (File(b'{"n":1}\n{"n":2}\n', "application/jsonl", "sales.jsonl"),)

    refused = call(load_script, "skills/pdf", "text", {"document": File(b"junk")})
    assert refused.is_error
    assert "not a PDF" in refused.text

    refused = call(load_script, "skills/image", "resize", {"image": File(b"junk"), "width": 9})
    assert refused.is_error
    assert "not a picture" in refused.text
