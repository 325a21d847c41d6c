"""Write what is made from code: `configuration.md`, `silo.schema.json`, `cli.md`, and a table of `wire.md`.

    python docs/generate.py           # write them
    python docs/generate.py --check   # exit status 1 if one is not current (the tests do this)

`silo.config.schema` and `silo.cli` explain the settings and the commands; this script only formats their texts. Pages
are deterministic: no dates, no paths, no width of a terminal.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import typer
import typer.main
from typer.core import TyperGroup

from silo.cli.app import build_app
from silo.config.load import OTHER_VARIABLES, VARIABLES
from silo.config.schema import Config
from silo.sizes import KIB, MIB
from silo.wire.messages import MESSAGES
from silo.wire.rules import OneOf, Rule

REFERENCE: Final = Path(__file__).parent / "reference"

_CONFIGURATION = """\
# Configuration

This page is made from the one schema, `silo.config.schema`. silo parses the configuration once at start and never
changes it afterwards.

A flag overrides an environment variable, a variable overrides `silo.toml` in the
[state directory](state-directory.md), and the file overrides the default. `silo config show` prints every key, its
value, and where the value came from.

An unknown key, or an unknown variable that begins with `SILO_`, is an error with a suggestion (`config-unknown-key`):
ignoring a misspelt restriction would leave it without effect. A value out of bounds, or a file that other users can
write, is an error too (`config-invalid`). Every default is the safe choice. The description of a setting that can widen
something says what it opens.


```toml
# SILO_HOME/silo.toml; each table and each key may be left out
[files]
allow_read = ["~/Documents/reports"]

[server]
expose = "router"
```

[`silo.schema.json`](silo.schema.json) is the same schema for editors.
"""

_VARIABLES = """\
## Environment variables

| variable | sets |
|---|---|
"""

_VARIABLES_END = """\
`SILO_DEBUG=1` makes the command line print the traceback of an unexpected failure, which may contain secrets. silo
ignores variables that begin with `SILO_TEST_`.
"""

_OTHER_MEANING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "SILO_HOME": "the state directory, an absolute path; default `~/.silo`",
        "SILO_MASTER_KEY": (
            "opens the vault: 32 bytes in hex or base64, or a passphrase of at least 12 characters; removed from the "
            "environment at start"
        ),
        "SILO_DEBUG": "with `1`, the command line shows the traceback of a bug, which may contain secrets",
    }
)

_CLI = """\
# Command line

`docs/generate.py` makes this page from the help of the commands.

stdout has the requested data, stderr has everything that is written for people. Success is quiet. silo prompts only on
a terminal, and each prompt has a flag that replaces it. A secret comes from a prompt, STDIN, the environment or a file,
never from an argument. silo uses colour only on a terminal, and not with `NO_COLOR` or `TERM=dumb`. `-h` and `--help`
show a command's help, `silo --version` shows the version, and `silo --install-completion` sets up completion for your
shell.


Exit status: 0 done, 1 the skill failed, 2 usage or configuration, 3 denied, 4 vault locked or secret missing, 5 no
sandbox, 70 a bug in silo, 124 timed out, 130 interrupted; 128 plus the signal's number if another signal ended it.
[Errors](errors.md) lists the codes in brackets.
"""

_JSON = """\
## JSON documents

`--json` prints one document: UTF-8, sorted keys, indented by two spaces. A new version may add keys, but does not
rename or remove any.

| command | keys |
|---|---|
"""

_DOCUMENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "silo list": """`skills`: a list of what `silo inspect` prints; `damaged`: names of skills whose record can't be
            read""",
        "silo inspect": """`namespace`, `digest`, `source`, `folder`, `installed_at`, `described_by`, `instructions`,
            `packages`, `header`, `tools` (each with `id`, `description`, `input_schema`, `output_schema`,
            `require_approval`, `secrets`, `timeout_s`, `hints`)""",
        "silo search": """`query`, `caller`, `tools`: as in `silo inspect`, each with `score` (0 to 1, only for the
            order of this answer), `why` (which words matched in which text), `low_confidence`, `siblings` (names of
            other tools of its skill), `outlook` (`runs`, `asks`, or `depends` on the arguments)""",
        "silo run": """`tool`, `text`, `has_data`, `data`, `is_error`, `files` (each with `name`, `media_type`,
            `size_bytes`, and `base64`, or `path` if it was written), `logs` (`stdout`, `stderr`, `truncated`),
            `isolation`, `guest`, `timing` (seconds by phase), `truncated`""",
        "silo approvals list": """`questions`: each with `id`, `state` (`waiting`, `approved` or `denied`), `tool`,
            `title`, `who`, `wants_secret` (a name or null), `asked_at`, `decided_at`, `decided_by`, `reason`, `grace`,
            `until` and `left_s` (null if it no longer counts), `uses`""",
        "silo approvals show": """the same for one question in any state (also `expired`, `withdrawn`), and `question`:
            `title`, `who`, `facts` and `arguments` (pairs of name and value), `changes`, `danger`, `grace_s`, `group`,
            `wanted`""",
        "silo policy explain": """`tool`, `caller`, `verdict` (`allow`, `ask` or `deny`), `reason`, `rule` and `at`
            (null where no rule applies), `rules` (those that name the tool, each with `rule`, `at`, `verdict`,
            `applies`, `mismatch`, `assumed`), `notes`""",
        "silo policy list": """`rules`: each with `rule`, `at`, `verdict`, `tool`, `arguments` (lists of patterns by
            path), `callers`, `reason`, `installed` (ids of the tools that match)""",
        "silo audit show": "`records`, as described in [audit log](audit-log.md)",
        "silo audit summary": """`tasks`: each with `session`, `kind`, `client`, `first` and `last` (times), and the
            numbers of `calls`, `questions`, `approved`, `denied`, `unanswered`, `failed`""",
        "silo audit verify": "`records` (how many), `head` (the hash of the last record), `recoveries`",
        "silo vault list": "`secrets`: each with `name` and `skill` (null if it is for all skills)",
        "silo vault status": """`file`, `exists`, `created`, `generation`, `secrets` (how many), `should_rotate`, `keys`
            (each with `kind`, `key_id`, `kdf`), `master_key`""",
        "silo vault import": """`from`, `dry_run`, `added` and `kept` (each with `name` and `skill`), `skipped` (each
            with `where` and `reason`)""",
        "silo vault canary list": "`canaries`: names",
        "silo config show": "`settings`: by key, each with `value` and `origin`",
        "silo doctor": """`silo`, `backends` (each with `isolation`, `works`, `detail`, `missing`, `notes`, `hint`),
            `chosen`, `backend`, `min_isolation`, `home`, `config`, `kernel`, `python`, `uv`, `vault`""",
        "silo demo": """`client`, `tools`, `answers`, `host_kernel`, `guest_kernel`, `isolation`, `timing_s`, `total_s`,
            `secret` (where silo looked for it, and `found`)""",
        "silo bench call": "the machine, and every sample; see [benchmarks](../benchmarks/README.md)",
        "silo bench approvals": "the machine, every sample, their medians, and `ratio_beside_to_alone`",
        "silo bench hostile": """the machine, what became of the hostile calls, and every sample in milliseconds, `without`
            and `beside` the guests: `ping_ms` of the event loop, `ping_ready_ms` without waiting for a processor,
            `page_ms` of the approval page""",
        "silo bench routing": """the machine, and the figures of each search backend on each set; see [the
            score](routing-score.md)""",
        "silo bench redaction": "the machine, every sample, and each figure with its aim",
        "silo bench vault": "the machine, every sample, and each figure with its aim",
    }
)


def configuration() -> str:
    """Return `configuration.md`."""
    schema = Config.model_json_schema()
    defaults = Config().model_dump(mode="json")
    lines = [_CONFIGURATION]
    for section, reference in schema["properties"].items():
        table = _resolve(reference, schema)
        lines.append(f"## `[{section}]`\n")
        lines.append(_help(re.sub(r"^`\[\w+\]`: (.)", lambda found: found[1].upper(), table["description"])) + "\n")
        lines += [*_keys(table, defaults[section], schema), ""]
        for key, spec in table["properties"].items():
            item = _resolve(_resolve(spec, schema).get("items", {}), schema)
            if "properties" in item:
                lines.append(f"### `[[{section}.{key}]]`\n")
                lines.append(
                    _wrapped(re.sub(r"^[^:]*: (.)", lambda found: found[1].upper(), item["description"])) + "\n"
                )
                given = {name: part["default"] for name, part in item["properties"].items() if "default" in part}
                lines += [*_keys(item, given, schema), ""]
    lines.append(_VARIABLES + "\n".join(_variables()) + "\n")
    lines.append(_VARIABLES_END)
    return "\n".join(lines)


def config_schema() -> str:
    """Return `silo.schema.json`, the JSON Schema of `silo.toml`."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def command_line() -> str:
    """Return `cli.md`."""
    lines = [_CLI]
    for context in commands():
        command = context.command
        lines.append(f"## `{context.command_path}`\n")
        lines.append(_help(command.help or "") + "\n")
        lines.append("```text\n" + " ".join([context.command_path, *command.collect_usage_pieces(context)]) + "\n```\n")
        rows = list(_parameters(context))
        if rows:
            lines.append("| parameter | means |\n|---|---|\n" + "\n".join(rows) + "\n")
    lines.append(_JSON + "\n".join(f"| `{command}` | {_cell(keys)} |" for command, keys in _DOCUMENTS.items()) + "\n")
    return "\n".join(lines)


def root() -> typer.Context:
    """Return the context of `silo` itself."""
    return typer.Context(typer.main.get_command(build_app()), info_name="silo")


def child(context: typer.Context, name: str) -> typer.Context | None:
    """Return the context of a command below another one, or None if there is none of that name."""
    group = context.command
    found = group.get_command(context, name) if isinstance(group, TyperGroup) else None
    return typer.Context(found, info_name=name, parent=context) if found is not None else None


def commands() -> Iterator[typer.Context]:
    """Yield every command that can be typed, in the order of the help, with the context that gives its whole name."""
    yield from _leaves(root())


def wire() -> str:
    """Return `wire.md`: the page as it is, with the table of messages made from the one that checks them."""
    before, begin, rest = _read(REFERENCE / "wire.md").partition(_TABLE_BEGINS)
    _, end, after = rest.partition(_TABLE_ENDS)
    lines = ["| type | from | longest | field | must be |", "|---|---|---|---|---|"]
    for kind, form in MESSAGES.items():
        first = f"| `{kind.TYPE}` | {form.sender} | {_size(form.longest)} "
        for name, rule in form.rules.items() or [("", None)]:
            lines.append(f"{first}| {f'`{name}`' if name else ''} | {_cell(_rule(rule))} |")
            first = "| | | "
    return f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{end}{after}"


PAGES: Final[Mapping[str, Callable[[], str]]] = MappingProxyType(
    {"configuration.md": configuration, "silo.schema.json": config_schema, "cli.md": command_line, "wire.md": wire}
)

_TABLE_BEGINS = "<!-- The table of messages: written by docs/generate.py -->"
_TABLE_ENDS = "<!-- The end of the table of messages -->"


def _rule(rule: Rule | None) -> str:
    if isinstance(rule, OneOf):
        return "one of " + ", ".join(f"`{value}`" for value in sorted(rule.values))
    return "" if rule is None else str(rule)


def _size(size_bytes: int) -> str:
    return f"{size_bytes // MIB} MiB" if size_bytes >= MIB else f"{size_bytes // KIB} KiB"


def _leaves(context: typer.Context) -> Iterator[typer.Context]:
    command = context.command
    if not isinstance(command, TyperGroup):
        yield context
        return
    for name in command.list_commands(context):
        below = child(context, name)
        if below is not None and not below.command.hidden:
            yield from _leaves(below)


def _keys(table: Mapping[str, Any], defaults: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a Markdown table of the keys of a table of the configuration."""
    yield "| key | value | default | means |\n|---|---|---|---|"
    for key, spec in table["properties"].items():
        value = defaults.get(key)
        default = "not set" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"
        if key in table.get("required", ()):
            default = "must be given"
        yield f"| `{key}` | {_value(spec, schema)} | {default} | {_cell(spec['description'])} |"


def _parameters(context: typer.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        if parameter.name != "help" and (record := parameter.get_help_record(context)) is not None:
            name = re.sub(r" <(str|list\[str\]|path)>$", "", record[0]).replace("<int range>", "N")
            yield f"| `{_cell(name)}` | {_cell(record[1])} |"


def _help(text: str) -> str:
    r"""Return a command's help as Markdown; blocks that keep their lines (`\b`) and examples become code."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.replace("\f", "").strip("\n")):
        if paragraph.startswith("\b"):
            parts.append("```text\n" + textwrap.dedent(paragraph.removeprefix("\b\n").rstrip()) + "\n```")
        elif all(line.startswith("silo ") for line in paragraph.splitlines()):
            parts.append(f"```text\n{paragraph}\n```")
        else:
            parts.append(_wrapped(paragraph))
    return "\n\n".join(parts)


def _wrapped(text: str) -> str:
    """Return a paragraph in lines of at most 120 columns; code between backquotes stays on one line."""
    joined = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\0"), " ".join(text.split()))
    lines = textwrap.wrap(joined, 120, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _resolve(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = part.get("$ref")
    if reference is None:
        inner = part.get("allOf")
        return _resolve(inner[0], schema) if inner else part
    found: Mapping[str, Any] = schema["$defs"][reference.removeprefix("#/$defs/")]
    return found


def _value(spec: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Say in a few words what a key takes."""
    resolved = _resolve(spec, schema)
    if "enum" in resolved:
        return ", ".join(f"`{value}`" for value in resolved["enum"])
    if "anyOf" in resolved:
        return " or ".join(_value(part, schema) for part in resolved["anyOf"] if part.get("type") != "null")
    kind = resolved.get("type")
    if kind == "array":
        return "a list of absolute paths" if resolved["items"].get("format") == "path" else "a list"
    if resolved.get("format") == "path":
        return "an absolute path"
    if kind == "boolean":
        return "`true`, `false`"
    if kind in ("integer", "number"):
        word = "a whole number" if kind == "integer" else "a number"
        return f"{word}, {resolved['minimum']:g} to {resolved['maximum']:g}"
    return str(kind)


def _variables() -> Iterator[str]:
    for name in sorted({*VARIABLES, *OTHER_VARIABLES}):
        meaning = f"`{VARIABLES[name]}`" if name in VARIABLES else _OTHER_MEANING[name]
        yield f"| `{name}` | {meaning} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the pages, or say which are not current."""
    stale = [name for name, make in PAGES.items() if _read(REFERENCE / name) != make()]
    if "--check" in arguments:
        for name in stale:
            print(f"docs/reference/{name} is not current: run `python docs/generate.py`", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (REFERENCE / name).write_text(PAGES[name](), encoding="utf-8")
    return 0


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
