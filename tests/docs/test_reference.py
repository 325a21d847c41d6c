"""Pages made from code are current, and pages written by hand name what the code has."""

from __future__ import annotations

import inspect
import re
import tomllib

import pytest

import silo
from silo.catalog.header_schema import SecretTable, SiloTable, ToolTable
from silo.cli.documents import result_document
from silo.config.schema import Config
from silo.model import Isolation, Logs, Result
from silo.runtime import Runtime
from silo.server.protocol import results, tools
from silo.wire.messages import Booted, Described, Exited, Failed, Finished, Held, Hold, Progress, Rehearse, Rehearsed, Resume, Run


@pytest.mark.parametrize("page", ["configuration.md", "silo.schema.json", "cli.md"])
def test_a_page_that_is_made_from_code_is_current(generate, repository, page):
    shown = (repository / "docs/reference" / page).read_text(encoding="utf-8")
    assert shown == generate.PAGES[page](), "run `python docs/generate.py`"


def test_the_configuration_page_has_every_key(pages):
    for section, field in Config.model_fields.items():
        for key in field.annotation.model_fields:
            assert re.search(rf"^\| `{key}` \|", pages["docs/reference/configuration.md"], re.MULTILINE), (section, key)


def test_the_command_line_page_has_every_command(pages, generate):
    for context in generate.commands():
        assert f"\n## `{context.command_path}`\n" in pages["docs/reference/cli.md"]


def test_every_command_that_prints_json_has_its_keys_told(pages, generate):
    told = pages["docs/reference/cli.md"].partition("## JSON documents")[2]
    for context in generate.commands():
        if any("--json" in parameter.opts for parameter in context.command.get_params(context)):
            assert f"\n| `{context.command_path}` |" in told


def test_the_keys_of_a_result_are_those_that_are_told(pages):
    result = Result("", None, False, (), False, Logs(), Isolation.MICROVM, {}, {})
    row = re.search(r"^\| `silo run` \| (.*)$", pages["docs/reference/cli.md"], re.MULTILINE)[1]
    assert set(result_document("a.b", result, [])) <= set(re.findall(r"`(\w+)`", row))


def test_the_header_page_has_every_key(pages):
    text = pages["docs/reference/skill-header.md"]
    missing = [
        key
        for table in (SiloTable, SecretTable, ToolTable)
        for key in table.model_fields
        if f"`{key}`" not in text and key not in ("secrets", "tools")
    ]
    assert missing == []


def test_the_sdk_page_has_every_name_that_a_skill_may_import(pages):
    text = pages["docs/reference/sdk.md"]
    missing = [name for name in silo.__all__ if name not in text and name != "__version__"]
    assert missing == []


def test_the_wire_page_has_every_message_with_its_fields(pages):
    text = pages["docs/reference/wire.md"]
    for message in (Booted, Described, Exited, Failed, Finished, Held, Hold, Progress, Rehearse, Rehearsed, Resume, Run):
        row = re.search(rf"^\| `{message.TYPE}` \|.*$", text, re.MULTILINE)
        assert row is not None, message.TYPE
        missing = [name for name in message.__dataclass_fields__ if f"`{name}`" not in row[0] and name != "TYPE"]
        assert missing == [], message.TYPE


def test_the_server_page_has_every_name_that_a_client_sees(pages):
    text = pages["docs/reference/mcp-server.md"]
    names = [value for module in (results, tools) for name, value in vars(module).items() if name.startswith("META_")]
    missing = [name for name in [*names, tools.SEARCH, tools.EXECUTE] if f"`{name}`" not in text]
    assert missing == []


def test_every_dependency_is_named_with_its_reason(pages, repository):
    text = pages["docs/explanation/dependencies.md"]
    for project in ("pyproject.toml", "vault/pyproject.toml", "interaction/pyproject.toml"):
        for requirement in tomllib.loads((repository / project).read_text())["project"].get("dependencies", []):
            name = re.match(r"[\w.-]+", requirement)[0]
            assert re.search(rf"^\| .*`{name}`", text, re.MULTILINE), f"{name} of {project}"


def test_the_changelog_speaks_of_the_version_that_this_is(pages):
    assert f"\n## {silo.__version__}" in pages["docs/changelog.md"]


def test_every_promise_names_a_test_that_exists(pages, repository):
    named = re.findall(r"`(tests/promises/\w+\.py)`", pages["docs/explanation/threat-model.md"])
    assert named
    missing = sorted({name for name in named if not (repository / name).is_file()})
    assert missing == []


def test_the_page_on_python_has_every_method_with_its_parameters(pages):
    cells = re.findall(r"^\| (`[^|]+`) \|", pages["docs/how-to/use-from-python.md"], re.MULTILINE)
    told = {name: given for cell in cells for name, given in re.findall(r"`(\w+)(\([^)]*\))?`", cell)}
    for name, member in vars(Runtime).items():
        if name.startswith("_") or name == "outlooks":  # deprecated
            continue
        assert name in told
        given = re.findall(r"(\w+)(?:=|, |\))", told[name])
        parameters = inspect.signature(member).parameters if callable(member) else ()
        assert [one for one in parameters if one != "self" and one not in given] == [], name
