"""A command that the documentation names exists, with the options that it is given there."""

from __future__ import annotations

import re
import shlex

import pytest

_INLINE = re.compile(r"`(silo(?: [^`\n]*)?)`")
_FENCED = re.compile(r"^```(?:console|text|bash|sh)?[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TYPED = re.compile(r"(?:^\$ |\| |&& |; )(silo [^|;&\n#]*)", re.MULTILINE)


def _mentions(text: str) -> set[str]:
    found = set(_INLINE.findall(text))
    for block in _FENCED.findall(text):
        found |= set(_TYPED.findall(block))
    return {mention.strip() for mention in found}


def _flaw(mention: str, generate, root) -> str | None:
    """Say what is wrong with a command as it is written in a page, or None."""
    try:
        words = shlex.split(mention.replace("…", "").replace("...", ""))[1:]
    except ValueError:
        return "it can't be taken apart"
    context = root
    while words and hasattr(context.command, "list_commands") and not words[0].startswith("-"):
        name = words.pop(0)
        if name.isupper():  # `silo COMMAND --help`
            return None
        below = generate.child(context, name)
        if below is None:
            return f"there is no command {name!r}"
        context = below
    known = {"--help"}.union(*([*p.opts, *p.secondary_opts] for p in context.command.get_params(context)))
    given = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    unknown = [option for option in given if option not in known]
    return f"{context.command_path} has no option {unknown[0]}" if unknown else None


@pytest.fixture(scope="module")
def root(generate):
    """The context of `silo`, built once: building it takes longer than looking all mentions up."""
    return generate.root()


def test_every_command_in_the_documentation_exists(pages, generate, root):
    flaws = [
        f"{name}: `{mention}`: {flaw}"
        for name, text in pages.items()
        for mention in sorted(_mentions(text))
        if (flaw := _flaw(mention, generate, root)) is not None
    ]
    assert flaws == []


def test_a_command_that_does_not_exist_would_be_found(generate, root):
    assert _flaw("silo frobnicate", generate, root) is not None
    assert _flaw("silo run jwt.sign --frobnicate", generate, root) is not None
    assert _flaw("silo run jwt.sign --json", generate, root) is None
