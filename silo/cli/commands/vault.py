"""`silo vault`: secrets. A value comes from a prompt, standard input, a variable or a file, never from an argument."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from silo.cli.options import SECRETS_AND_AGENTS, AsJson, add_command, add_group

if TYPE_CHECKING:
    from silo.cli.session import Session

MAX_BYTES = 1024 * 1024
"""Read at most, of any source; what is too long for a secret is for the vault to say."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = add_group(app, "vault", _HELP, section=SECRETS_AND_AGENTS)
    add_command(group, "add", add, takes_rest=True)
    add_command(group, "list", list_names)
    add_command(group, "remove", remove)
    add_command(group, "status", status)


_HELP = "Keep the secrets of skills, encrypted.\n\n    silo vault add GITHUB_TOKEN\n    silo vault list"


def add(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Capital letters, digits and underscores.")],
    from_env: Annotated[str | None, typer.Option(metavar="VARIABLE", help="Take the value of this variable.")] = None,
    from_file: Annotated[Path | None, typer.Option(metavar="PATH", help="Take the content of this file.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in place of an earlier value.")] = False,
) -> None:
    """Add a secret. Asks for its value twice on a terminal, and reads standard input otherwise.

        silo vault add GITHUB_TOKEN
        openssl rand -hex 32 | silo vault add JWT_KEY
        silo vault add DEPLOY_KEY --from-file ~/.ssh/deploy

    One line break at the end of standard input or of a file is left out.
    """
    from silo_vault.secret import check_name

    from silo.errors import UsageError

    session: Session = ctx.obj
    if ctx.args:
        raise UsageError(
            "a secret can't be given as an argument, which stays in the shell's history and shows in the list of processes",
            hint="type it when asked, or use standard input; and change this one, it has been in the open",
        )
    if from_env is not None and from_file is not None:
        raise UsageError("--from-env and --from-file are two values", hint="give one of them")
    with session.vault() as vault:
        check_name(name)
        if not replace and name in vault.names():
            raise UsageError(f"{name} is in the vault already", hint=f"`silo vault add {name} --replace` replaces it")
        vault.put(name, _value(session, name, from_env, from_file))


def list_names(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the names of the secrets. Values are never shown.

    silo vault list
    """
    from silo.cli.render import emit, emit_json, say

    session: Session = ctx.obj
    with session.vault() as vault:
        names = vault.names()
    if as_json:
        emit_json({"secrets": list(names)})
    elif names:
        emit("\n".join(names))
    else:
        say("the vault is empty; `silo vault add NAME` adds a secret")


def remove(ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="Of the secret.")]) -> None:
    """Remove a secret. The file's last generation, which still holds it, stays beside it until the next change.

    silo vault remove GITHUB_TOKEN
    """
    session: Session = ctx.obj
    with session.vault() as vault:
        vault.remove(name)


def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show where the vault is and which keys open it. Opens nothing.

    silo vault status
    """
    from silo.cli.documents import vault_document
    from silo.cli.render import emit, emit_json

    session: Session = ctx.obj
    with session.vault() as vault:
        found = vault.status()
    document = vault_document(found, has_master_key="SILO_MASTER_KEY" in session.environ)
    if as_json:
        emit_json(document)
        return
    key = "set" if document["master_key"] else "not set"
    lines = [f"file             {found.path}{'' if found.exists else ' (not made yet)'}", f"SILO_MASTER_KEY  {key}"]
    if found.exists:
        lines += [f"made             {found.created}", f"secrets          {found.secrets}"]
        lines += [f"opens with       {slot.kind}, key {slot.key_id}, {slot.kdf}" for slot in found.keys]
    emit("\n".join(lines))


def _value(session: Session, name: str, from_env: str | None, from_file: Path | None) -> str | bytes:
    from silo.cli.files import read_bytes
    from silo.errors import UsageError

    if from_env is not None:
        found = session.environ.get(from_env)
        if found is None:
            raise UsageError(f"the variable {from_env} is not set", hint=f"export {from_env}, or leave out --from-env")
        return found
    if from_file is not None:
        return _without_last_break(read_bytes(os.fspath(from_file), max_bytes=MAX_BYTES))
    if sys.stdin.isatty():
        return _typed(name)
    return _without_last_break(read_bytes("-", max_bytes=MAX_BYTES))


def _typed(name: str) -> str:
    """Ask twice, without showing what is typed; a mistake in a secret is found out late otherwise."""
    from getpass import getpass

    from silo.errors import UsageError

    try:
        first = getpass(f"Value of {name}: ", stream=sys.stderr)
        again = getpass("The same again: ", stream=sys.stderr)
    except EOFError:
        raise UsageError(f"{name} was not added: the terminal was closed", hint="run it again") from None
    if first != again:
        raise UsageError(f"{name} was not added: the two values differ", hint="run it again")
    return first


def _without_last_break(data: bytes) -> bytes:
    return data.removesuffix(b"\n").removesuffix(b"\r")
