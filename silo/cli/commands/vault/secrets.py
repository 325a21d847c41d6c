"""`silo vault add`, `list`, `remove`, `status`, and decoys."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from silo_vault.secret import check_name, check_namespace, is_binary

from silo.cli.context import CommandContext
from silo.cli.documents import vault_document
from silo.cli.options import AsJson
from silo.cli.render import Steps, emit, emit_bytes, emit_json, say
from silo.cli.values import read_value
from silo.errors import UsageError

SHORT_BYTES = 8
"""A shorter value is easy to guess, and likely to be in a result by chance; the person who adds it is warned."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="Capital letters, digits and underscores.")]
SkillName = Annotated[
    str, typer.Option("--skill", metavar="NS", help="Only for this skill; comes before a global one.")
]
FromEnv = Annotated[str | None, typer.Option(metavar="VARIABLE", help="Take the value of this variable.")]
FromFile = Annotated[Path | None, typer.Option(metavar="PATH", help="Take the content of this file.")]


def add(
    ctx: typer.Context,
    name: Name,
    skill: SkillName = "",
    from_env: FromEnv = None,
    from_file: FromFile = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an earlier value.")] = False,
) -> None:
    """Add a secret. Asks for its value twice on a terminal, and reads standard input otherwise.

        silo vault add GITHUB_TOKEN
        openssl rand -hex 32 | silo vault add JWT_KEY --skill jwt
        silo vault add DEPLOY_KEY --from-file ~/.ssh/deploy

    A value has at most 1 MiB. From a file it may be binary; a skill gets it by require_secret_bytes. Removes one line
    break at the end of text.
    """
    context: CommandContext = ctx.obj
    if ctx.args:
        raise UsageError(
            "a secret can't be given as an argument, "
            "which stays in the shell's history and shows in the list of processes",
            hint="type it when asked, or use standard input; and change this one, it has been in the open",
        )
    if from_env is not None and from_file is not None:
        raise UsageError("--from-env and --from-file are two values", hint="give one of them")
    with Steps() as steps, context.vault(steps) as vault:
        check_name(name)
        check_namespace(skill)
        if not replace and name in vault.names(namespace=skill):
            raise UsageError(
                f"{_place(skill, name)} is in the vault already",
                hint=f"`silo vault add {name}{f' --skill {skill}' if skill else ''} --replace` replaces it",
            )
        with steps.paused():
            value = read_value(context, f"value of {_place(skill, name)}", from_env=from_env, from_file=from_file)
        replaced = name in vault.names(namespace=skill)
        vault.put(name, value, namespace=skill)
        context.record("vault", action="add", name=name, skill=skill, replaced=replaced)
        data = value.encode() if isinstance(value, str) else value
        size = len(data)
    if is_binary(data.decode(errors="surrogateescape")):
        say(f"silo: the value is binary ({size:,} bytes); a skill gets it by require_secret_bytes")
    if size < SHORT_BYTES:
        say(
            f"silo: warning: the value has {size} bytes; one below {SHORT_BYTES} can be guessed, "
            "and can't be redacted reliably"
        )


def get(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The secret's name.")],
    skill: SkillName = "",
    to_pipe: Annotated[
        bool, typer.Option("--to-pipe", help="Write it to standard output also if that is not a terminal.")
    ] = False,
) -> None:
    """Show the value of a secret to a person at a terminal.

        silo vault get GITHUB_TOKEN
        silo vault get KEYSTORE --skill signer --to-pipe > store.p12

    A pipe or a file gets it with --to-pipe only, so that no log or agent has it by accident. It is recorded.
    """
    context: CommandContext = ctx.obj
    with context.vault() as vault:
        if not to_pipe and not sys.stdout.isatty():
            raise UsageError(
                "standard output is not a terminal, and a value is shown to a person only",
                hint="run it in a terminal; --to-pipe writes it anyway",
            )
        found = vault.get(name, namespace=skill)
        if found.is_binary and not to_pipe:
            raise UsageError(
                f"{_place(skill, name)} is binary, and a terminal would act on its bytes",
                hint=f"silo vault get {name}{f' --skill {skill}' if skill else ''} --to-pipe > FILE",
            )
        context.record("vault", action="get", name=name, skill=skill, to="pipe" if to_pipe else "terminal")
    if to_pipe:
        emit_bytes(found.reveal_bytes())
    else:
        emit(found.reveal())


def list_names(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the names of the secrets. Never shows or decrypts a value.

        silo vault list

    A secret of one skill is listed as skill/NAME.
    """
    context: CommandContext = ctx.obj
    with context.vault() as vault:
        entries = [entry for entry in vault.entries() if not entry.is_canary]
    if as_json:
        emit_json({"secrets": [{"name": entry.name, "skill": entry.namespace or None} for entry in entries]})
    elif entries:
        emit("\n".join(_place(entry.namespace, entry.name) for entry in entries))
    else:
        say("the vault is empty; `silo vault add NAME` adds a secret")


def remove(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The secret's name.")],
    skill: SkillName = "",
) -> None:
    """Remove a secret. The previous generation of the file still has it, and stays until the next change.

    silo vault remove GITHUB_TOKEN
    """
    context: CommandContext = ctx.obj
    with context.vault() as vault:
        vault.remove(name, namespace=skill)
        context.record("vault", action="remove", name=name, skill=skill)


def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show where the vault is and which keys open it. Opens nothing.

    silo vault status
    """
    context: CommandContext = ctx.obj
    with context.vault() as vault:
        found = vault.status()
    document = vault_document(found, has_master_key="SILO_MASTER_KEY" in context.environ)
    if as_json:
        emit_json(document)
        return
    key = "set" if document["master_key"] else "not set"
    lines = [f"file             {found.path}{'' if found.exists else ' (not made yet)'}", f"SILO_MASTER_KEY  {key}"]
    if found.exists:
        lines += [f"made             {found.created}", f"generation       {found.generation}"]
        lines += [f"secrets          {found.secrets}"]
        lines += [f"opens with       {slot.kind}, key {slot.key_id}, {slot.kdf}" for slot in found.keys]
        if found.should_rotate:
            lines.append(f"sealed values    {found.seals}; `silo vault rotate` makes a new data key")
    emit("\n".join(lines))


# --- decoys -----------------------------------------------------------------------------------------------------------


def add_canary(ctx: typer.Context, name: Name, from_env: FromEnv = None, from_file: FromFile = None) -> None:
    """Add a decoy: 40 random letters and digits, or your own value. Each call then opens the vault to look for it.

        silo vault canary add PROD_ADMIN_KEY

    Give it a name that a thief would like. If a decoy appears in what a call is given or sends back, the call ends;
    `silo audit show` has the alert.
    """
    context: CommandContext = ctx.obj
    with Steps() as steps, context.vault(steps) as vault:
        if from_env is None and from_file is None:
            vault.add_canary(name)
        else:
            with steps.paused():
                value = read_value(context, f"value of {name}", from_env=from_env, from_file=from_file)
            vault.add_canary(name, value)
        context.record("vault", action="add-canary", name=name)


def list_canaries(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the names of the decoys.

    silo vault canary list
    """
    context: CommandContext = ctx.obj
    with context.vault() as vault:
        names = [entry.name for entry in vault.entries() if entry.is_canary]
    if as_json:
        emit_json({"canaries": names})
    elif names:
        emit("\n".join(names))
    else:
        say("there is no decoy; `silo vault canary add NAME` adds one")


def remove_canary(
    ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="The decoy's name.")]
) -> None:
    """Remove a decoy.

    silo vault canary remove PROD_ADMIN_KEY
    """
    context: CommandContext = ctx.obj
    with context.vault() as vault:
        vault.remove_canary(name)
        context.record("vault", action="remove-canary", name=name)


def _place(skill: str, name: str) -> str:
    return f"{skill}/{name}" if skill else name
