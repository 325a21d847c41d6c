"""`silo run`: one call, from words to a printed result. It goes through `Runtime.call`, like an agent's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from silo.cli.arguments import parse_document, parse_words, split_words
from silo.cli.asking import quiet_terminal, show_code
from silo.cli.context import CommandContext
from silo.cli.documents import result_document
from silo.cli.files import load_files, prepare_folder, read_text, write_files
from silo.cli.options import CALLS, AsJson, BackendName, Headless, add_command
from silo.cli.render import Steps, emit, emit_json, emit_json_value, say, say_error, say_logs, say_timing
from silo.errors import UsageError
from silo.model import ProgressReport, Result, Skill
from silo.names import split_id
from silo.sizes import MIB

if TYPE_CHECKING:
    from silo.runtime import Runtime

# `silo --help` loads this module, so slow modules are imported where they are used:
# `silo.catalog.builtin` (packaging, uv).


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, "run", run, section=CALLS)


def run(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="NS.TOOL|KEY=VALUE", help="The tool, then its arguments; `NS TOOL` works too."),
    ],
    args: Annotated[
        str | None,
        typer.Option("--args", metavar="JSON|@FILE|-", help="All arguments as one JSON object; KEY=VALUE adds to it."),
    ] = None,
    backend: BackendName = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the files of the result there.")] = None,
    headless: Headless = False,
    timing: Annotated[bool, typer.Option("--timing", help="Print on stderr where the time went.")] = False,
    as_json: AsJson = False,
) -> int:
    """Call one tool in a fresh sandbox and print its answer.

        silo run jwt.sign claims='{"sub": "42"}'
        silo run table.query data=@sales.csv sql='select * from data'
        silo run image.resize image=@cat.png width=64 --output thumbs

        KEY=VALUE  converted to what the tool takes; several make a list
        KEY=@PATH  a file (`@-`: standard input), where the tool takes one
        KEY:=JSON  JSON as it is
        KEY        true

    Exits with 1 if the tool failed, 3 if it was refused, 4 if a secret is missing, 124 if it took too long.
    """
    context: CommandContext = ctx.obj
    tool, rest = split_words(words, lambda: [tool.id for skill in context.skills() for tool in skill.tools])
    folder = None if output is None else prepare_folder(output)
    arguments = read_arguments(context, tool, rest, args)
    with Steps() as steps:

        def report(progress: ProgressReport) -> None:
            steps.step(_progress_text(tool, progress))

        async def work(runtime: Runtime) -> Result:
            steps.step(f"running {tool}")
            return await runtime.call(tool, arguments, backend=backend, on_progress=report)

        result = context.run(
            work,
            channel=quiet_terminal(steps),
            show_code=show_code,
            overrides={"approval.headless": True} if headless else None,
        )
    note = _note(context, tool)
    if note:
        say(note)
    written = [] if folder is None else write_files(result.files, folder)
    if as_json:
        emit_json(result_document(tool, result, written))
    else:
        _show(tool, result, written)
    if timing:
        say_timing(result.timing)
    if result.is_error:
        say_error(f"{tool} reports a failure", "skill-failed", "its answer says why")
        return 1
    return 0


def _note(context: CommandContext, tool: str) -> str:
    """Return a note for an author who has edited the script since it was installed; empty if it is unchanged."""
    from silo.catalog.builtin import has_changed

    parts = split_id(tool)
    skill = next((skill for skill in context.skills() if parts and skill.namespace == parts[0]), None)
    if skill is None or not has_changed(skill):
        return ""
    source = skill.source.removeprefix("builtin:")
    return f"silo: note: {source} has changed; this ran what was installed, `silo install {source}` takes the change"


def read_arguments(context: CommandContext, tool: str, words: list[str], document: str | None) -> dict[str, Any]:
    """Return the arguments of the call. Files are read here, on the main thread, so that Ctrl-C can end a read."""
    given: dict[str, Any] = {}
    if document is not None:
        reads_stdin = document in {"-", "@-"}
        if reads_stdin and any(word.endswith("=@-") for word in words):
            raise UsageError("standard input can't be both --args and a file", hint="put one of them into a file")
        path = "-" if reads_stdin else document[1:] if document.startswith("@") else None
        given = parse_document(document if path is None else read_text(path))
    if words:
        given |= parse_words(words, _schema(context.skills(), tool))
    return dict(load_files(given, max_bytes=context.load_config().config.files.max_mib * MIB)) if given else {}


def _schema(skills: tuple[Skill, ...], name: str) -> Mapping[str, Any]:
    """Return the input schema of a tool, or an empty one: the call itself reports an unknown tool, and records that."""
    parts = split_id(name)
    tools = (tool for skill in skills for tool in skill.tools)
    return next((tool.input_schema for tool in tools if (tool.skill, tool.name) == parts), {})


def _progress_text(tool: str, progress: ProgressReport) -> str:
    done = f" {progress.progress:g} of {progress.total:g}" if progress.total else ""
    return f"{tool}:{done} {progress.message or ''}".rstrip()


def _show(tool: str, result: Result, written: list[Path]) -> None:
    say_logs(tool, result.logs.stdout, result.logs.stderr)
    if result.text or not result.has_data:
        emit(result.text)
    else:
        emit_json_value(result.data)
    for path in written:
        say(f"wrote {path}")
    if result.files and not written:
        for file in result.files:
            say(f"not written: {file.name or 'a file without a name'} ({file.media_type}, {file.size} bytes)")
        say("`--output DIR` writes the files of a result")
