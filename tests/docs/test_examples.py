"""Code in the documentation is the code of the repository, and Python in it is Python."""

from __future__ import annotations

import ast
import textwrap
import tomllib

from silo.catalog.header import read_header
from silo.config.schema import Config


def _blocks(walkthrough, pages):
    for name, text in pages.items():
        for block in walkthrough.read_blocks(text):
            yield f"{name}:{block.line}", block


def test_what_a_page_takes_from_an_example_is_what_the_example_says(walkthrough, pages, repository):
    taken = 0
    for where, block in _blocks(walkthrough, pages):
        source = block.attributes.get("include") or block.attributes.get("title", "")
        if source.startswith("examples/"):
            taken += 1
            text = (repository / source).read_text(encoding="utf-8")
            if "include" in block.attributes:
                assert block.text in text, f"{where} is no part of {source}"
            else:
                assert block.text == text, f"{where} is not {source}"
    assert taken >= 2


def test_python_in_the_documentation_can_be_parsed(walkthrough, pages):
    for where, block in _blocks(walkthrough, pages):
        if block.language == "python":
            # Snippets may stand inside of a function that the page does not show.
            body = textwrap.indent(block.text, "    ")
            try:
                ast.parse(f"async def snippet():\n{body}\n    pass\n")
            except SyntaxError as error:
                raise AssertionError(f"{where}: {error}") from error


def test_headers_in_the_documentation_are_accepted(walkthrough, pages):
    checked = 0
    for where, block in _blocks(walkthrough, pages):
        if block.language == "python" and block.text.startswith("# /// script"):
            read_header(block.text.encode(), name="example", filename=where)
            checked += 1
    assert checked >= 4


def test_configuration_in_the_documentation_is_accepted(walkthrough, pages):
    checked = 0
    for where, block in _blocks(walkthrough, pages):
        if block.language == "toml":
            assert Config.model_validate(tomllib.loads(block.text)), where
            checked += 1
    assert checked >= 3
