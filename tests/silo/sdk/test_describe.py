import json
from pathlib import Path

import jsonschema
import pytest

from silo.sdk.describe import describe
from silo.sdk.errors import InvokeFailed
from silo.sdk.skill import Skill, find_skill
from silo.wire.messages import Described, encode_message

HERE = Path(__file__).parent


def test_the_rich_skill_is_described_as_the_golden_file_says(load):
    module = load(HERE / "rich_skill.py")
    found = describe(find_skill(module), summary=module.__doc__)
    assert found == json.loads((HERE / "golden" / "rich.json").read_text(encoding="utf-8"))


def test_a_description_is_the_same_each_time(load):
    first, second = (load(HERE / "rich_skill.py") for _ in range(2))
    texts = {json.dumps(describe(module.skill, summary="")) for module in (first, second, second)}
    assert len(texts) == 1


def test_all_schemas_are_valid_and_the_wire_carries_them(load):
    found = describe(load(HERE / "rich_skill.py").skill, summary="")
    for tool in found["tools"]:
        jsonschema.Draft202012Validator.check_schema(tool["input_schema"])
        assert tool["input_schema"]["additionalProperties"] is False
        if tool["output_schema"] is not None:
            jsonschema.Draft202012Validator.check_schema(tool["output_schema"])
    encode_message(Described(found, 0.0, 0.0))


def test_a_description_lets_the_tools_be_called_without_reading_annotations_again(load):
    skill = load(HERE / "rich_skill.py").skill
    describe(skill, summary="")
    assert all("signature" in vars(tool) for tool in skill.tools.values())


def test_a_manual_that_raises_is_reported_with_its_traceback():
    skill = Skill("s")

    @skill.instructions()
    def manual() -> str:
        raise ValueError("no manual today")

    with pytest.raises(InvokeFailed, match="no manual today") as caught:
        describe(skill, summary="")
    assert caught.value.code == "skill-import-error"
    assert "in manual" in caught.value.traceback


def test_a_manual_that_is_no_text_is_refused():
    skill = Skill("s")
    skill.instructions()(lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(InvokeFailed, match="return the manual as text") as caught:
        describe(skill, summary="")
    assert caught.value.code == "skill-metadata-invalid"


def test_an_annotation_that_cannot_be_used_is_reported_as_metadata():
    skill = Skill("s")

    @skill.tool()
    def work(x: complex) -> None: ...

    with pytest.raises(InvokeFailed, match="'x' of the tool 'work'") as caught:
        describe(skill, summary="")
    assert caught.value.code == "skill-metadata-invalid"
