"""Files and modules that pages name are there; every claim of the threat model has a test."""

from __future__ import annotations

import importlib
import re

import pytest

_FILE = re.compile(r"`((?:\.ci|docs|examples|interaction|scripts|silo|tests|vault)/[\w./-]*)`")
_MODULE = re.compile(r"`(silo(?:_vault|_interaction)?(?:\.\w+)+)(?:\(\))?`")
_NO_MODULE = re.compile(r"silo\.(?:toml|schema\.json|skill|control|call|out|err)$")
"""Files, and the streams of a guest."""


@pytest.fixture(scope="module")
def kept(pages):
    """The pages without decision records and the changelog, which tell of what was."""
    return {name: text for name, text in pages.items() if not re.match(r"docs/adr/\d|docs/changelog", name)}


def test_every_file_that_a_page_names_exists(kept, repository):
    missing = [
        f"{name}: {path}"
        for name, text in kept.items()
        for path in _FILE.findall(text)
        if not (repository / path).exists()
    ]
    assert missing == []


def test_every_module_and_class_that_a_page_names_exists(kept):
    found = [(page, name) for page, text in kept.items() for name in _MODULE.findall(text)]
    assert len(found) > 20
    assert [f"{page}: {name}" for page, name in found if not _NO_MODULE.match(name) and not _is_there(name)] == []


def test_every_claim_of_the_threat_model_names_a_test(pages, repository):
    table = pages["docs/explanation/threat-model.md"].partition("\n## What holds\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", table, re.MULTILINE)
    ]
    claims = rows[2:]
    assert len(claims) > 15
    for *_, tests in claims:
        named = re.findall(r"`([^`]+)`", tests)
        assert named
        assert [path for path in named if not path.startswith("tests/") or not (repository / path).exists()] == []


def _is_there(name: str) -> bool:
    """Whether a dotted name leads to a module, or to something in one."""
    module, *attributes = name.split(".")
    there = importlib.import_module(module)
    for attribute in attributes:
        try:
            there = importlib.import_module(f"{there.__name__}.{attribute}")
        except (ImportError, AttributeError):
            if not hasattr(there, attribute):
                return False
            there = getattr(there, attribute)
    return True
