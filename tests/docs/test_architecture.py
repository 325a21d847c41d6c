"""The page that says where things are: every path on it exists, and every folder of silo is on it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
ROWS = ("a backend", "a step of a call", "an error", "a command", "a configuration key", "an MCP client")


@pytest.fixture(scope="module")
def text():
    return PAGE.read_text()


def test_each_thing_that_a_contributor_adds_has_a_row_with_a_file_that_exists(text):
    rows = {cells[0]: cells[1] for cells in re.findall(r"^\| ([^|`]+?) \| `([^`]+)` \|", text, re.MULTILINE)}
    assert set(ROWS) <= rows.keys()
    for path in rows.values():
        assert (ROOT / path).is_file()


def test_every_path_on_the_page_exists(text):
    paths = re.findall(r"`((?:silo|vault|interaction|tests|docs)/[\w./]*|\.importlinter)`", text)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_folder_and_module_of_silo_is_on_the_page(text):
    there = {
        path.stem
        for path in (ROOT / "silo").iterdir()
        if (path / "__init__.py").is_file() or (path.suffix == ".py" and not path.name.startswith("_"))
    }
    told = set(re.findall(r"\w+", text))
    assert sorted(there - told - {"version"}) == []
