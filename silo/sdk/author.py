"""`skill.run()`: run one tool from the command line, for the author of a skill. **Not isolated**, and it says so.

From the arguments on, `uv run skill.py list_issues --repo acme/site` runs the same code as a call inside a guest
(`silo.sdk.invoke.run_tool`), but in the author's own process, with the author's files and network. `silo run` makes an
isolated call.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from silo.sdk.coerce import CoercionError, coerce_arguments
from silo.sdk.encode import Outcome
from silo.sdk.errors import InvokeFailed, SecretUnavailable
from silo.sdk.files import File
from silo.sdk.invoke import run_tool
from silo.sdk.shapes import Array, Field, FileInput, OneOf, Parsed, Refined, Scalar, Shape
from silo.sdk.signature import Signature
from silo.sdk.skill import Skill, ToolDefinition

DONE, FAILED, MISUSED = 0, 1, 2
"""Exit statuses: the tool returned; it failed; the command line was wrong."""

_MISUSE = frozenset({"arguments-invalid", "tool-unknown", "skill-metadata-invalid"})


def main(skill: Skill, argv: Sequence[str]) -> int:
    """Run the tool that the command line names and return the exit status. Only results go to stdout."""
    try:
        return _main(skill, argv)
    except InvokeFailed as failure:
        if failure.traceback:
            _say(failure.traceback.rstrip())
        _say(f"silo: error: {failure.message} [{failure.code}]")
        return MISUSED if failure.code in _MISUSE else FAILED


def _main(skill: Skill, argv: Sequence[str]) -> int:
    if argv and argv[0] in ("-h", "--help"):
        print(_overview(skill))
        return DONE
    if not argv:
        _say(_overview(skill))
        return MISUSED
    tool = _tool(skill, argv[0])
    try:
        given = vars(_parser(tool).parse_args(argv[1:]))
    except SystemExit as done:  # argparse has printed help or usage
        return DONE if not done.code else MISUSED
    _say(
        f"silo: warning: {skill.namespace}.{tool.name} runs WITHOUT silo's isolation, with all of your own rights; "
        f"`silo run {skill.namespace}.{tool.name}` isolates it"
    )
    fields = {field.name: field for field in tool.signature.parameters}
    arguments = {name: _value(fields[name], text) for name, text in given.items()}
    outcome = run_tool(tool, arguments, _StdinSecrets(tool), _show_progress)
    _show(outcome)
    return FAILED if outcome.is_error else DONE


def _tool(skill: Skill, name: str) -> ToolDefinition:
    if name in skill.tools:
        return skill.tools[name]
    near = difflib.get_close_matches(name, skill.tools, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(skill.tools) or 'none'}"
    raise InvokeFailed("tool-unknown", f"the skill {skill.namespace!r} has no tool {name!r}; {hint}")


def _overview(skill: Skill) -> str:
    width = max((len(name) for name in skill.tools), default=0)
    first_lines = ((tool.name, tool.signature.description.partition("\n")[0]) for tool in skill.tools.values())
    lines = [
        f"usage: {_program()} TOOL [--PARAMETER VALUE ...]",
        "",
        f"Tools of {skill.namespace}:",
        *(f"  {name:{width}}  {text}".rstrip() for name, text in first_lines),
        "",
        f"`{_program()} TOOL --help` lists a tool's parameters. This runs without silo's isolation, for development.",
        'Secrets are read from STDIN as one JSON object, {"NAME": "value"}, when the tool asks for the first.',
    ]
    return "\n".join(lines)


def _parser(tool: ToolDefinition) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{_program()} {tool.name}",
        description=tool.signature.description.replace("%", "%%"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        conflict_handler="resolve",  # a parameter may be called `help`; `-h` stays
    )
    for field in tool.signature.parameters:
        flags = dict.fromkeys((f"--{field.name.replace('_', '-')}", f"--{field.name}"))
        is_switch = _core(field.shape) == Scalar(bool)
        parser.add_argument(
            *flags,
            dest=field.name,
            required=field.required,
            default=argparse.SUPPRESS,
            metavar=_metavar(field.shape),
            help=field.description.replace("%", "%%") or None,
            nargs="?" if is_switch else None,
            const="true" if is_switch else None,
        )
    return parser


def _value(field: Field, text: str) -> object:
    """Return the value of an option: the text itself where the tool takes text, a `File` for a path, else JSON."""
    core = _core(field.shape)
    if isinstance(core, Scalar | Parsed) and (core == Scalar(str) or isinstance(core, Parsed)):
        return text
    if isinstance(core, FileInput):
        return _file(text)
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    if isinstance(core, Array) and isinstance(_core(core.item), FileInput) and isinstance(value, list):
        return [_file(str(path)) for path in value]
    try:
        coerce_arguments(Signature("", (field,), None), {field.name: value})
    except CoercionError:
        # `int | str` given `007`, or a Literal of texts: the text may only look like JSON.
        return text if _fits(field, text) else value
    return value


def _fits(field: Field, text: str) -> bool:
    try:
        coerce_arguments(Signature("", (field,), None), {field.name: text})
    except CoercionError:
        return False
    return True


def _core(shape: Shape) -> Shape:
    """Return a shape without its bounds, and without None if one option is left."""
    if isinstance(shape, Refined):
        return _core(shape.shape)
    if isinstance(shape, OneOf):
        others = [option for option in shape.options if option != Scalar(type(None))]
        return _core(others[0]) if len(others) == 1 else shape
    return shape


def _metavar(shape: Shape) -> str:
    match _core(shape):
        case FileInput():
            return "PATH"
        case Scalar(kind=kind) if kind is str:
            return "TEXT"
        case Scalar(kind=kind) if kind in (int, float):
            return "NUMBER"
        case Parsed(format=name):
            return name.upper()
        case _:
            return "JSON"


def _file(path: str) -> File:
    try:
        return File.from_path(Path(path))
    except OSError as error:
        raise InvokeFailed("arguments-invalid", f"can't read the file {path!r}: {error.strerror}") from None


class _StdinSecrets(Mapping[str, str]):
    """Secrets from a JSON object on STDIN, never from arguments or the environment.

    STDIN is read when the tool asks for its first secret: a tool that needs none must not wait for an open STDIN.
    """

    def __init__(self, tool: ToolDefinition) -> None:
        self._tool = tool
        self._values: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        if self._tool.secrets is not None and name not in self._tool.secrets:
            raise KeyError(name)
        if name not in self._read():
            raise SecretUnavailable(
                f"the secret {name!r} is not on STDIN; in author mode, pipe a JSON object there: "
                f'echo \'{{"{name}": "..."}}\' | {_program()} {self._tool.name} ...'
            )
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> dict[str, str]:
        if self._values is None:
            self._values = {} if sys.stdin is None or sys.stdin.isatty() else _parse_secrets(sys.stdin.read())
        return self._values


def _parse_secrets(text: str) -> dict[str, str]:
    try:
        found = json.loads(text) if text.strip() else {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        # The parser's message is left out, because it would quote the secrets.
        raise InvokeFailed("arguments-invalid", 'STDIN must hold the secrets as one JSON object: {"NAME": "value"}')
    return found


def _show_progress(progress: float, total: float | None, message: str | None) -> None:
    share = f"{progress:g}" if total is None else f"{progress:g}/{total:g}"
    _say(f"silo: progress: {share} {message or ''}".rstrip())


def _show(outcome: Outcome) -> None:
    if outcome.text:
        print(outcome.text)
    for file in outcome.files:
        _say(f"silo: file: {file.save()} ({file.media_type}, {file.size} bytes)")


def _program() -> str:
    return Path(sys.argv[0]).name or "skill.py"


def _say(text: str) -> None:
    print(text, file=sys.stderr)
