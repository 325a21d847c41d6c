"""What to do about an error: each kind as a person reads it, and that no code parses those words.

`tests/silo/server/protocol/test_results.py` tests how a model reads each kind.
"""

import ast
from pathlib import Path

import pytest

import silo
from silo.errors import SiloError, UsageError
from silo.names import suggest
from silo.remedies import (
    INSPECT_TOOL,
    LIST_SKILLS,
    LIST_TOOLS,
    Advice,
    AnswerQuestion,
    CallAgain,
    Commands,
    DoNotCallAgain,
    HeaderLine,
    NearestNames,
    Setting,
    command,
)
from silo.secrets.redaction import Redactor


@pytest.mark.parametrize(
    ("remedy", "words"),
    [
        (Advice("look elsewhere"), "look elsewhere"),
        (command("silo doctor"), "run `silo doctor`"),
        (command("silo vault add A", "add it with {}"), "add it with `silo vault add A`"),
        (Commands(("a", "b"), "add them with {}, now"), "add them with `a` and `b`, now"),
        (LIST_SKILLS, "`silo list` shows what is; `silo install` adds one"),
        (LIST_TOOLS, "`silo list` shows the installed skills and their tools"),
        (INSPECT_TOOL, "`silo inspect` shows what the tool takes"),
        (HeaderLine('namespace = "a"', "add {} to [tool.silo]"), 'add `namespace = "a"` to [tool.silo]'),
        (HeaderLine("[tool.silo.secrets]", "declare it under {}"), "declare it under [tool.silo.secrets]"),
        (Setting("[secrets.sources]", "change {} in silo.toml"), "change [secrets.sources] in silo.toml"),
        (Setting("files.max_mib", "raise {} in silo.toml"), "raise `files.max_mib` in silo.toml"),
        (CallAgain("when the user is there"), "call it again when the user is there"),
        (DoNotCallAgain("the user asks for it"), "do not call it again unless the user asks for it"),
        (NearestNames(("a.b",)), "did you mean 'a.b'?"),
        (NearestNames(("a.b", "a.c", "a.d")), "did you mean 'a.b', 'a.c' or 'a.d'?"),
        (
            AnswerQuestion("http://127.0.0.1:9/q", "a.b"),
            (
                "ask the user to open http://127.0.0.1:9/q and to answer there, then call a.b again with the same "
                "arguments; a browser that is not paired yet needs a code, which the desktop notification and "
                "`silo approvals pair` show to the user"
            ),
        ),
    ],
)
def test_a_person_reads_each_kind(remedy, words):
    assert str(remedy) == words
    assert SiloError("m", hint=remedy).hint == words


def test_plain_text_is_advice():
    error = UsageError("m", hint="look elsewhere")
    assert error.remedy == Advice("look elsewhere")
    assert error.hint == "look elsewhere"


def test_what_a_command_line_holds_is_not_taken_for_a_place():
    assert str(command("echo {}", "{} prints braces")) == "`echo {}` prints braces"


def test_names_that_are_near_come_before_any_other_remedy():
    assert suggest("jwt.sgin", ["jwt.sign", "pdf.text"], otherwise=LIST_TOOLS) == NearestNames(("jwt.sign",))
    assert suggest("zzz", ["jwt.sign"], otherwise=LIST_TOOLS) is LIST_TOOLS
    assert suggest("zzz", [], otherwise="leave it out") == Advice("leave it out")


def test_redaction_keeps_the_kind_unless_it_holds_a_secret():
    redactor = Redactor({"KEY": "s3cr3t-value"})
    assert redactor.error(UsageError("m", hint=INSPECT_TOOL)).remedy is INSPECT_TOOL
    cleaned = redactor.error(UsageError("m", hint=command("silo run a.b s3cr3t-value")))
    assert cleaned.remedy == Advice("run `silo run a.b [redacted:KEY]`")


def test_no_layer_takes_a_hint_apart():
    """Code that needs the kind of a remedy must check its type, because words may change at any time."""
    found = []
    for path in sorted(Path(silo.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                looked_at = [node.left, *node.comparators]
            elif isinstance(node, ast.Attribute):
                looked_at = [node.value]  # `error.hint.startswith`
            elif isinstance(node, ast.Subscript):
                looked_at = [node.value]
            else:
                continue
            if any(isinstance(part, ast.Attribute) and part.attr == "hint" for part in looked_at):
                found.append(f"{path}:{node.lineno}")
    # Redaction compares a hint with its redacted self, to see whether it holds a secret.
    assert [place for place in found if "/secrets/redaction.py:" not in place] == []
