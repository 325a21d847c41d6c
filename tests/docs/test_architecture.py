"""The page that says where things are: its layers are those of the import contract, and what it names exists."""

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "architecture.md"
ROWS = (
    *("a backend", "a runner", "a step of a call", "an error", "a command", "a configuration key", "an MCP client"),
    *("a wire message", "a place for secrets", "a channel that asks a person"),
)


@pytest.fixture(scope="module")
def text():
    return PAGE.read_text(encoding="utf-8")


def section(text, heading):
    """Return what stands under a heading of the second level."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def layers_of_the_contract():
    """Return the layers as they are written, without those that need not exist (in parentheses) and do not."""
    parser = configparser.ConfigParser()
    parser.read_string((ROOT / ".importlinter").read_text(encoding="utf-8"))
    contract = parser["importlinter:contract:layers"]
    assert contract["containers"] == "silo"
    layers = []
    for line in contract["layers"].split("\n"):
        separator = " : " if ":" in line else " | "
        names = [name.strip() for name in line.split(separator.strip())]
        layers.append(separator.join(name for name in names if not name.startswith("(") or exists(name.strip("()"))))
    return [layer for layer in layers if layer]


def exists(name):
    return (ROOT / "silo" / name).is_dir() or (ROOT / "silo" / f"{name}.py").is_file()


def folders():
    return {path.parent.name for path in (ROOT / "silo").glob("*/__init__.py")}


def modules():
    return {path.stem for path in (ROOT / "silo").glob("[!_]*.py")}


def test_the_layers_are_those_of_the_import_contract(text):
    (block,) = re.findall(r"```text\n(.*?)\n```", section(text, "The layers"), re.DOTALL)
    drawn = [re.split(r" {2,}", line)[0] for line in block.splitlines()]
    assert drawn == layers_of_the_contract()


def test_the_import_contract_knows_every_folder_and_module():
    named = {name.strip("()") for layer in layers_of_the_contract() for name in re.split(r" [|:] ", layer)}
    assert named == folders() | modules()


def test_every_folder_and_module_is_explained_in_one_line(text):
    rows = re.findall(r"^\| (`[^|]+`) \| \S[^|]+ \|$", section(text, "The folders"), re.MULTILINE)
    told = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert sorted(told) == sorted([f"{name}/" for name in folders()] + [f"silo/{name}.py" for name in modules()])


def test_each_thing_that_a_contributor_adds_has_a_row_with_a_file_that_exists(text):
    rows = {cells[0]: cells[1] for cells in re.findall(r"^\| ([^|`]+?) \| `([^`]+)` \|", text, re.MULTILINE)}
    assert set(ROWS) <= rows.keys()
    for path in rows.values():
        assert (ROOT / path).is_file()


def test_every_path_on_the_page_exists(text):
    paths = re.findall(r"`((?:silo|vault|interaction|tests|docs)/[\w./]*|\.importlinter)`", text)
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_what_the_drawings_name_exists(text):
    for heading in ("The way of a call", "The way of an installation"):
        (drawing,) = re.findall(r"```text\n(.*?)\n```", section(text, heading), re.DOTALL)
        named = set(re.findall(r"\b[a-z]+(?:/[a-z.]+)+", drawing))
        named |= {one or other for one, other in re.findall(r"├─ ([a-z]+)|└─ ([a-z]+)", drawing)}
        missing = [name for name in named if not any((ROOT / "silo" / f"{name}{end}").exists() for end in ("", ".py"))]
        assert missing == []
