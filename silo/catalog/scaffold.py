"""The files that `silo init` writes: a new skill that works, with a manual and a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template

from silo.catalog.header import namespace_from
from silo.catalog.header_schema import check_namespace, check_secret_name
from silo.catalog.store import MANUAL, SCRIPT
from silo.errors import HeaderInvalid, UsageError

_SKILL = Template('''# /// script
# requires-python = ">=3.11"
# dependencies = []
#
# [tool.silo]
# namespace = "$namespace"
# description = "Say hello."
$secret_tables# ///
"""Say hello."""

$imports

skill = Skill("$namespace")


@skill.tool(read_only=True$no_secrets)
def hello(name: str = "world") -> dict[str, str]:
    """Greet somebody.

    Args:
        name: who is greeted.
    """
    return {"greeting": f"Hello, {name}!"}
$secret_tools

@skill.instructions()
def manual() -> str:
    """Return what a model should know before it calls a tool of this skill."""
    return "Call `hello` with the name of the person to greet."


if __name__ == "__main__":
    skill.run()
''')

_SECRET_TABLE = Template("""#
# [tool.silo.secrets.$secret]
# deliver = "stdin"
# description = "What it opens, and where to get one."
""")

_SECRET_TOOL = Template('''

@skill.tool(read_only=True, secrets=["$secret"])
def check_$function() -> dict[str, int]:
    """Tell how long the secret $secret is, to show that it arrives; never return one itself."""
    return {"characters": len(require_secret("$secret"))}
''')

_TEST = Template('''"""Run with `pytest` in this folder; `silo` and `pytest` must be installed."""

$imports


def test_hello_greets_by_name():
    assert hello("Ada") == {"greeting": "Hello, Ada!"}
$secret_tests''')

_SECRET_TEST = Template("""

def test_check_${function}_gets_its_secret():
    with open_call(secrets={"$secret": "four"}):
        assert check_$function() == {"characters": 4}
""")

_MANUAL = Template("""---
name: $title
description: Say hello. Use it when somebody is to be greeted.
---

# $title

`$namespace.hello` greets somebody by `name` and returns the greeting.
""")


def scaffold(name: str, *, secrets: Sequence[str] = ()) -> dict[str, str]:
    """Return the files of a new skill by name; pure.

    Args:
        name: becomes the namespace; `-` and capitals are converted.
        secrets: names of secrets that its header declares, each with a tool that shows how to use one.

    Raises:
        HeaderInvalid: the name can't be a namespace, or a secret's name is not allowed.
    """
    namespace = namespace_from(name)
    named = list(dict.fromkeys(secrets))
    try:
        check_namespace(namespace)
        for secret in named:
            check_secret_name(secret)
    except ValueError as error:
        raise HeaderInvalid(f"can't make a skill {name!r}: {error}", hint="choose another name") from error
    functions = [(secret, secret.lower()) for secret in named]
    tests = sorted(["hello", *(f"check_{function}" for _, function in functions)])
    return {
        SCRIPT: _SKILL.substitute(
            namespace=namespace,
            imports=f"from silo import Skill{', require_secret' if named else ''}",
            no_secrets=", secrets=[]" if named else "",
            secret_tables="".join(_SECRET_TABLE.substitute(secret=secret) for secret in named),
            secret_tools="".join(_SECRET_TOOL.substitute(secret=a, function=b) for a, b in functions),
        ),
        MANUAL: _MANUAL.substitute(title=namespace.replace("_", "-"), namespace=namespace),
        "test_skill.py": _TEST.substitute(
            imports=f"from skill import {', '.join(tests)}"
            + ("\n\nfrom silo.sdk.context import open_call" if named else ""),
            secret_tests="".join(_SECRET_TEST.substitute(secret=a, function=b) for a, b in functions),
        ),
    }


def write_scaffold(parent: Path, name: str, *, secrets: Sequence[str] = ()) -> Path:
    """Write a new skill into a new folder and return the folder.

    Raises:
        HeaderInvalid: as for `scaffold`.
        UsageError: the folder exists, or can't be made.
    """
    if Path(name).name != name:
        raise HeaderInvalid(f"{name!r} is not a name", hint="give a name without a path, in the folder to make it in")
    files = scaffold(name, secrets=secrets)
    folder = parent / name
    try:
        folder.mkdir()
    except FileExistsError as error:
        raise UsageError(f"'{folder}' exists already", hint="choose another name, or remove it") from error
    except OSError as error:
        raise UsageError(f"can't make '{folder}': {error.strerror}", hint="choose another place") from error
    for filename, text in files.items():
        (folder / filename).write_text(text, encoding="utf-8")
    return folder
