"""`silo policy`: the standing rules, and their verdict on a call, by `silo.calls.explain`. Nothing runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from silo.cli.arguments import split_words
from silo.cli.commands.run import read_arguments
from silo.cli.context import CommandContext
from silo.cli.options import CALLS, AsJson, add_command, add_group
from silo.cli.render import emit, emit_json, emit_table, say
from silo.model import Caller, Tool
from silo.policy.rules import CALLERS, Rule
from silo.schema.walk import properties

if TYPE_CHECKING:
    from silo_interaction import Question

    from silo.calls.explain import CallExplanation
    from silo.config.load import Loaded
    from silo.policy.evaluate import Finding

# `silo --help` loads this module, so slow modules are imported where they are used:
# `silo.compose.settings` (pydantic).


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = add_group(app, "policy", _HELP, section=CALLS)
    add_command(group, "explain", explain)
    add_command(group, "list", list_rules)


_HELP = "Say what may run, and why.\n\n    silo policy explain jwt.sign\n    silo policy list"


def explain(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="NS.TOOL|KEY=VALUE", help="As for `silo run`; arguments may be left out."),
    ],
    args: Annotated[
        str | None,
        typer.Option("--args", metavar="JSON|@FILE|-", help="All arguments as one JSON object; KEY=VALUE adds to it."),
    ] = None,
    caller: Annotated[
        Literal["mcp", "cli", "library"],
        typer.Option(help="Who would make the call: an agent's client, `silo run`, or a Python program."),
    ] = "mcp",
    as_json: AsJson = False,
) -> None:
    """Say whether a call would run, ask or be refused, and which rule says so.

        silo policy explain table.query data=@sales.csv sql='select * from data'
        silo policy explain jwt.sign --caller cli --json

    Nothing runs, nobody is asked, and the vault stays closed. Lists each rule that names the tool. If a rule does not
    apply, says why. Where a person would be asked, shows what they would see. If the tool does not take the arguments,
    says so.
    """
    from silo.compose.settings import rules_of

    context: CommandContext = ctx.obj
    name, rest = split_words(words, lambda: [tool.id for skill in context.skills() for tool in skill.tools])
    loaded = context.load_config()
    given = read_arguments(context, name, rest, args)
    found = context.run(lambda runtime: runtime.explain(name, given, caller=Caller(caller)))
    places = dict(zip((rule.name for rule in rules_of(loaded.config.policy)), loaded.rule_places(), strict=True))
    notes = [note for finding in found.findings for note in _notes(finding.rule, found.tool)]
    if found.refused is not None:
        notes.insert(
            0, f"the tool does not take these arguments, so the call is refused first: {found.refused.message}"
        )
    if as_json:
        emit_json(_explanation_document(found, caller, places, notes))
        return
    decision = found.decision
    by = f"{decision.rule} ({places[decision.rule]})" if decision.rule else "none applies"
    rows = [
        (finding.rule.name, finding.rule.verdict, places[finding.rule.name], _applies(finding))
        for finding in found.findings
    ]
    emit(f"{decision.verdict}: {decision.reason}\nrule: {by}\n" + ("\n" if rows else ""))
    if rows:
        emit_table(("RULE", "VERDICT", "AT", "APPLIES"), rows)
    if found.question is not None:
        emit("\n" + _shown(found.question))
    for note in notes:
        say(f"silo: note: {note}")


def list_rules(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the rules, in the order of `silo.toml`.

        silo policy list
        silo policy list --json | jq '.rules[] | select(.verdict == "allow")'

    The order does not matter: deny wins over ask, and ask wins over allow.
    """
    context: CommandContext = ctx.obj
    loaded = context.load_config()
    documents = _rule_documents(loaded, [tool for skill in context.skills() for tool in skill.tools])
    if as_json:
        emit_json({"rules": documents})
    elif not documents:
        say("there are no rules; skills and tools say which calls ask a person")
    else:
        emit_table(("RULE", "VERDICT", "AT", "ABOUT"), [_rule_row(document) for document in documents])
        for document in documents:
            if not document["installed"]:
                say(f"silo: note: {document['rule']} names no tool that is installed")


def _notes(rule: Rule, tool: Tool) -> list[str]:
    """List the arguments that a rule names but the tool does not take: a misspelt one restricts nothing."""
    if tool.input_schema.get("additionalProperties") is not False:
        return []
    return [
        f"{rule.name} names the argument {path!r}, and {tool.id} has none of that name"
        for path in rule.arguments
        if not any(path == name or path.startswith(f"{name}.") for name in properties(tool.input_schema))
    ]


def _shown(question: Question) -> str:
    """Return the question that a person would be asked, line by line."""
    lines = [f"a person is asked: {question.title}"]
    for label, value in (*question.facts, *question.arguments):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines += [f"  {label}: {line}" for line in text.splitlines()[:1]]
    return "\n".join(lines)


def _applies(finding: Finding) -> str:
    if finding.mismatch is not None:
        return f"no: {finding.mismatch}"
    unknown = " and ".join(finding.assumed)
    return f"yes: not given, and the default is not known: {unknown}" if unknown else "yes"


def _explanation_document(
    found: CallExplanation, caller: str, places: Mapping[str, str], notes: Sequence[str]
) -> dict[str, Any]:
    decision = found.decision
    return {
        "tool": found.tool.id,
        "caller": caller,
        "verdict": decision.verdict,
        "reason": decision.reason,
        "rule": decision.rule or None,
        "at": places.get(decision.rule),
        "rules": [
            {
                "rule": finding.rule.name,
                "at": places[finding.rule.name],
                "verdict": finding.rule.verdict,
                "applies": finding.mismatch is None,
                "mismatch": finding.mismatch,
                "assumed": list(finding.assumed),
            }
            for finding in found.findings
        ],
        "notes": list(notes),
    }


def _rule_documents(loaded: Loaded, tools: Sequence[Tool]) -> list[dict[str, Any]]:
    from silo.compose.settings import rules_of

    return [
        {
            "rule": rule.name,
            "at": place,
            "verdict": rule.verdict,
            "tool": [glob.text for glob in rule.tools],
            "arguments": {path: [glob.text for glob in globs] for path, globs in rule.arguments.items()},
            "callers": list(rule.callers),
            "reason": rule.reason,
            "installed": sorted(tool.id for tool in tools if rule.names(tool)),
        }
        for rule, place in zip(rules_of(loaded.config.policy), loaded.rule_places(), strict=True)
    ]


def _rule_row(document: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return a rule for the table; default values are left out."""
    about = " or ".join(document["tool"])
    if document["arguments"]:
        about += " with " + ", ".join(f"{path}={' or '.join(globs)}" for path, globs in document["arguments"].items())
    if set(document["callers"]) != set(CALLERS):
        about += f" through {' or '.join(document['callers'])}"
    if document["reason"]:
        about += f": {document['reason']}"
    return document["rule"], document["verdict"], document["at"], about
