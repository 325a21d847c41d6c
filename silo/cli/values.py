"""Read secret values, which must not be on a command line: from a prompt, standard input, a variable or a file.

Each command decides which of these it accepts, and what the value is for.
"""

from __future__ import annotations

import codecs
import os
import sys
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING

from silo_vault.secret import check_text, is_binary

from silo.cli.files import read_bytes
from silo.cli.render import say
from silo.errors import UsageError
from silo.sizes import MIB

if TYPE_CHECKING:
    from silo.cli.context import CommandContext  # which imports this module

MAX_BYTES = 64 * MIB
"""The most that is read from any source. What is too long for a secret, the vault refuses with its own words."""


def read_value(context: CommandContext, what: str, *, from_env: str | None, from_file: Path | None) -> str | bytes:
    """Return a value from the given variable or file, else typed twice on a terminal, else from standard input.

    One line break at the end of text from standard input or from a file is removed, and a byte order mark at its start.
    A file may be binary.

    Args:
        context: has the environment.
        what: what to ask for, e.g. `value of GITHUB_TOKEN`.
        from_env: the name of a variable.
        from_file: the path of a file.

    Raises:
        UsageError: there are two sources, the variable is not set, or the two typed values differ.
        FileRefused: the file can't be read.
    """
    if from_env is not None and from_file is not None:
        raise UsageError("--from-env and --from-file are two values", hint="give one of them")
    if from_env is not None:
        return read_variable(context, from_env)
    if from_file is not None:
        return _without_marks(read_bytes(os.fspath(from_file), max_bytes=MAX_BYTES))
    if sys.stdin.isatty():
        return type_twice(what)
    # As text: what is binary by accident, e.g. in UTF-16, is refused. A binary value comes from a file, on purpose.
    return check_text("this secret", _without_marks(read_bytes("-", max_bytes=MAX_BYTES)))


def read_variable(context: CommandContext, name: str) -> str:
    """Return the value of a variable.

    Raises:
        UsageError: it is not set.
    """
    found = context.environ.get(name)
    if found is None:
        raise UsageError(f"the variable {name} is not set", hint=f"export {name}, or name another one")
    return found


def type_twice(what: str) -> str:
    """Ask twice without showing the input, because a mistake in a secret would be noticed late.

    Raises:
        UsageError: the two differ, or the terminal was closed.
    """
    try:
        first = getpass(f"{what[:1].upper()}{what[1:]}: ", stream=sys.stderr)
        again = getpass("The same again: ", stream=sys.stderr)
    except EOFError:
        raise UsageError(f"no {what} was taken: the terminal was closed", hint="run it again") from None
    if first != again:
        raise UsageError(f"no {what} was taken: the two inputs differ", hint="run it again")
    return first


def type_once(what: str) -> str | None:
    """Ask for a value that exists already. Returns None without a terminal, or if it was closed."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    try:
        return getpass(f"{what[:1].upper()}{what[1:]}: ", stream=sys.stderr)
    except EOFError:
        return None


def _without_marks(data: bytes) -> bytes:
    """Return text without the marks that editors and shells add; a binary value as it is."""
    if is_binary(data.decode(errors="surrogateescape")):
        return data
    if data.startswith(codecs.BOM_UTF8):
        data = data.removeprefix(codecs.BOM_UTF8)
        say("silo: left out the byte order mark (U+FEFF) at the start, which some editors put into files")
    return data.removesuffix(b"\n").removesuffix(b"\r")
