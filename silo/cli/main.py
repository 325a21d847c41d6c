"""`silo`: from a process's arguments to its exit status. Each command is a file of `silo.cli.commands`.

The user waits for imports too, so slow modules are imported where they are used: `typer` and `silo.cli.app` (the
parser and the commands) and `silo.cli.serve` (the server). `silo_vault`, `silo.cli.render` and `silo.cli.context` are
imported where Ctrl-C is handled, after `main` has opened the closed streams.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from silo.errors import SiloError, SkillFailed, UsageError
from silo.remedies import Commands, command

if TYPE_CHECKING:
    from silo.cli.context import CommandContext

BUG = 70
SIGPIPE = 141
"""Exit statuses: a bug in silo (EX_SOFTWARE of sysexits.h); what a shell reports for a process that SIGPIPE ended."""


def main() -> int:
    """Run the command line of this process and return its exit status; `silo` and `python -m silo` start here."""
    _open_closed_streams()
    try:
        # First of all, so that no child process and no core dump can have the key.
        from silo_vault import MASTER_KEY_VARIABLE, VaultError, harden

        try:
            key = harden()
        except VaultError as error:
            from silo.cli.render import say_error

            say_error(error.message, error.code, error.hint)
            return 4
        environ = dict(os.environ)
        if key is not None:
            environ[MASTER_KEY_VARIABLE] = key
        debug = environ.pop("SILO_DEBUG", "") not in {"", "0"}

        from silo.cli.context import CommandContext
        from silo.cli.render import watch_stdout

        watch_stdout()
        return run(sys.argv[1:], CommandContext(environ), debug=debug)
    except KeyboardInterrupt:  # while loading: nothing was started yet
        return 130


def run(arguments: Sequence[str], context: CommandContext, *, debug: bool = False) -> int:
    """Run one command line and return its exit status; errors are printed, not raised.

    Args:
        arguments: without the name of the program.
        context: what the command works with.
        debug: show the traceback of a bug.
    """
    from silo.cli.context import EndedBySignal, interrupted
    from silo.cli.render import StdoutClosed, abandon_stdout, say_error, say_failure, stdout_failure

    try:
        return _dispatch(arguments, context)
    except StdoutClosed:
        abandon_stdout()
        return SIGPIPE
    except EndedBySignal as ended:
        return ended.exit_status
    except KeyboardInterrupt:
        failure: SiloError = interrupted()
    except SiloError as error:
        failure = error
    except Exception as error:
        expected = _only_expected(error) or stdout_failure(error)
        if expected is None:
            return _report_bug(error, debug=debug)
        failure = expected
    if isinstance(failure, SkillFailed):
        say_failure(failure)
    say_error(failure.message, failure.code, failure.hint)
    return failure.exit_status


def _dispatch(arguments: Sequence[str], context: CommandContext) -> int:
    if list(arguments) == ["mcp", "serve"]:
        # Every MCP client starts this command. It needs no parser, and loading one would delay the first answer.
        from silo.cli.serve import serve

        return serve(context)
    import typer

    from silo.cli.app import COMMANDS, build_app

    # Only the module of the named command is loaded. Without one, all are: for help, completion and suggestions.
    first = arguments[0] if arguments else ""
    app = build_app((first,) if first in COMMANDS else COMMANDS)
    try:
        status = app(list(arguments), prog_name="silo", obj=context, standalone_mode=False)
    except typer.TyperException as error:
        raise UsageError(_sentence(error.format_message()), hint=_show_help(error)) from error
    except typer.Abort:
        raise KeyboardInterrupt from None
    return status if isinstance(status, int) else 0


def _sentence(text: str) -> str:
    """Return the parser's message in silo's form: no capital, no full stop."""
    text = text.strip().removesuffix(".")
    return text[:1].lower() + text[1:]


def _show_help(error: Exception) -> Commands:
    context = getattr(error, "ctx", None)  # only the parser's own errors have one
    path = getattr(context, "command_path", "silo")
    return command(f"{path} --help", "{} shows how it is used")


def _only_expected(error: BaseException) -> SiloError | None:
    """Return the silo error that a group of one holds: a task group wraps what its tasks raise."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, SiloError) else None


def _report_bug(error: Exception, *, debug: bool) -> int:
    """Say that silo has a bug. The exception's text is not shown, because it may quote anything."""
    from silo.cli.render import say_error

    if debug:
        traceback.print_exception(error)
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/silo/" in frame.filename]
    place = f" at silo/{ours[-1].filename.rpartition('/silo/')[2]}:{ours[-1].lineno}" if ours else ""
    hint = "report it with what you ran and `silo --version`; SILO_DEBUG=1 shows the traceback, which may hold secrets"
    say_error(f"a bug in silo: {type(error).__name__}{place}", "internal-error", hint)
    return BUG


def _open_closed_streams() -> None:
    """Put `/dev/null` where a standard stream is closed (`<&-`); else a file that silo opens would take its number."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number, so this one
            os.set_inheritable(opened, True)
            setattr(sys, name, open(opened, mode))  # noqa: SIM115 - as long as the process lives
