"""Imports stand at the top of a module, so that a reader sees there what it needs.

A slow module may be imported inside a function. The importing module then has one comment, or a paragraph of its
docstring, that says so and names it: "…, so slow modules are imported where they are used: `mcp` and `pydantic`."
`test_startup_imports.py` checks that commands load nothing slow that they do not need.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = (REPOSITORY / "silo", REPOSITORY / "vault" / "silo_vault", REPOSITORY / "interaction" / "silo_interaction")

NOT_FOR_SPEED = {
    "interaction/silo_interaction/desktop.py": {"jeepney"},  # an optional dependency
    "silo/runtime.py": {"silo.sync"},  # which imports `silo.runtime`
}

_PHRASE = "slow modules are imported where they are used:"
_NAME = re.compile(r"`([a-z_][a-z0-9_.]*)`")


def test_only_named_modules_are_imported_inside_functions():
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}: {name}"
        for folder in PACKAGES
        for path in sorted(folder.rglob("*.py"))
        for line, name in _misplaced(path.read_text(), NOT_FOR_SPEED.get(str(path.relative_to(REPOSITORY)), set()))
    ]
    assert found == [], "move them to the top, or say in the module's comment that they are slow"


@pytest.mark.parametrize(
    ("source", "misplaced"),
    [
        pytest.param("import json", [], id="at the top"),
        pytest.param("def f():\n    import json", ["json"], id="no comment"),
        pytest.param("class A:\n    async def f(self):\n        from a.b import c", ["a.b"], id="method"),
        pytest.param("# {phrase}\n# `rich` (tables).\n\ndef f():\n    from rich.text import Text", [], id="comment"),
        pytest.param('"""A.\n\nSo, {phrase} `rich`.\n"""\ndef f():\n    import rich', [], id="docstring"),
        pytest.param("# {phrase} `rich`.\n\n# `json`\ndef f():\n    import json", ["json"], id="another comment"),
        pytest.param("# {phrase} `a.b`.\n\ndef f():\n    import a.bc", ["a.bc"], id="a name that starts alike"),
    ],
)
def test_a_name_in_the_comment_allows_a_module_and_what_is_in_it(source, misplaced):
    source = source.format(phrase=_PHRASE)
    assert [name for _, name in _misplaced(source, set())] == misplaced


def _misplaced(source: str, allowed: set[str]) -> Iterator[tuple[int, str]]:
    """Yield line and module of each import inside a function that nothing allows."""
    allowed = allowed | _named(source)
    for line, name in _local_imports(ast.parse(source)):
        if not any(name == one or name.startswith(f"{one}.") for one in allowed):
            yield line, name


def _named(source: str) -> set[str]:
    """Return the modules that the comment names. It ends at an empty line."""
    paragraphs = (" ".join(line.removeprefix("# ") for line in text.splitlines()) for text in source.split("\n\n"))
    return {name for text in paragraphs for name in _NAME.findall(text.partition(_PHRASE)[2])}


def _local_imports(tree: ast.AST, *, is_inside: bool = False) -> Iterator[tuple[int, str]]:
    for node in ast.iter_child_nodes(tree):
        if is_inside and isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif is_inside and isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or "."
        inside = is_inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _local_imports(node, is_inside=inside)
