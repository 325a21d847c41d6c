"""`silo vault import` and `export`. `silo_vault.transfer` reads and writes the formats."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from silo_vault import Secret

from silo.cli.context import CommandContext
from silo.cli.options import AsJson
from silo.cli.render import Steps, emit, emit_bytes, emit_json, say
from silo.cli.values import read_variable, type_once, type_twice
from silo.errors import UsageError
from silo.remedies import command

if TYPE_CHECKING:
    from silo_vault.transfer import Export, Found

# `silo --help` loads this module, so slow modules are imported where they are used:
# `silo_vault.transfer` (pyrage, a native library).

Source = Literal["dotenv", "predecessor", "pass", "export"]


def import_secrets(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A file, or the folder of a password store.")],
    kind: Annotated[
        Source | None, typer.Option("--from", help="The kind of file, if silo can't tell it from the file itself.")
    ] = None,
    skill: Annotated[str, typer.Option("--skill", metavar="NS", help="Add all secrets for this skill only.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace earlier values.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be added.")] = False,
    passphrase_from_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Take the passphrase from this variable.")
    ] = None,
    identity: Annotated[
        list[Path] | None, typer.Option("--identity", metavar="PATH", help="A file with an age identity or SSH key.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add the secrets of an .env file, of silo 2's vault, of `pass`, or of an export. All of them are added, or none.

        silo vault import .env --dry-run
        silo vault import ~/.password-store --from pass
        silo vault import secrets.age

    Secrets that are already in the vault keep their values, unless you add --replace. The file stays; delete it
    yourself.
    """
    context: CommandContext = ctx.obj
    with Steps() as steps, context.vault(steps) as vault:
        kind = kind or _guess(source)
        with steps.paused():  # a passphrase may be asked for, by gpg too
            if kind == "pass":
                say(f"silo: reading {source} with gpg ...")
            found = _read(context, source, kind, passphrase_from_env, identity or [])
        values = {
            (skill or entry.namespace, entry.name): entry.value.encode(errors="surrogateescape")
            for entry in found.entries
        }
        if len(values) < len(found.entries):
            raise UsageError(
                f"{source} has secrets with the same name for several skills, which --skill {skill} would merge",
                hint="leave out --skill",
            )
        there = {(entry.namespace, entry.name) for entry in vault.entries() if not entry.is_canary}
        added = {place: value for place, value in values.items() if replace or place not in there}
        kept = sorted(set(values) - set(added))
        if not dry_run:
            vault.put_all(added)
            context.record("vault", action="import", source=kind, secrets=len(added))
    if as_json:
        emit_json(
            {
                "from": kind,
                "dry_run": dry_run,
                "added": [_document(place) for place in sorted(added)],
                "kept": [_document(place) for place in kept],
                "skipped": [{"where": one.where, "reason": one.reason} for one in found.skipped],
            }
        )
        return
    for place in sorted(added):
        say(f"{'would add' if dry_run else 'added'} {_shown(place)}")
    for place in kept:
        say(f"kept {_shown(place)}, which is in the vault already (--replace replaces it)")
    for one in found.skipped:
        say(f"skipped {one.where}: {one.reason}")
    if not values:
        say("nothing to add was found")


def export_secrets(
    ctx: typer.Context,
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, or `-` for standard output.")],
    recipients: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="RECIPIENT", help="Encrypt it to an age recipient (age1…) or an SSH public key."),
    ] = None,
    passphrase_from_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Take the passphrase from this variable.")
    ] = None,
    plain_text: Annotated[
        bool, typer.Option("--plain-text", help="Show every secret in clear text, on a terminal only.")
    ] = False,
) -> None:
    """Write every secret into one encrypted file. Leaves decoys out.

        silo vault export secrets.age
        silo vault export secrets.age --to age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p

    Encrypts it to recipients with age, or, without --to, with a passphrase that it asks for twice. `silo vault import`
    reads the file, and so does `age --decrypt`.
    """
    from silo_vault.transfer import seal_to_passphrase, seal_to_recipients, to_plain_text

    context: CommandContext = ctx.obj
    if plain_text:
        if recipients or passphrase_from_env or os.fspath(target) != "-":
            raise UsageError(
                "--plain-text goes to the terminal and is not sealed",
                hint=command("silo vault export - --plain-text", "{}"),
            )
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UsageError(
                "every secret in clear text is shown to a person on a terminal only",
                hint="encrypt it: `silo vault export secrets.age`",
            )
        say("silo: this shows every secret of the vault. Type 'show' to go on:")
        if sys.stdin.readline().strip() != "show":
            raise UsageError("nothing was shown", hint="run it again, and type show")
    if recipients and passphrase_from_env:
        raise UsageError(
            "it is encrypted to recipients or to a passphrase, not to both",
            hint="leave out --to or --passphrase-from-env",
        )
    with Steps() as steps, context.vault(steps) as vault:
        document = _to_export(vault.get_all(), vault.status().vault_id)
        if plain_text:
            context.record("vault", action="export", sealed_to="nobody", secrets=len(document.entries))
            emit(to_plain_text(document))
            return
        if recipients:
            sealed = seal_to_recipients(document, recipients)
        elif passphrase_from_env is not None:
            sealed = seal_to_passphrase(document, read_variable(context, passphrase_from_env))
        elif sys.stdin.isatty():
            with steps.paused():
                passphrase = type_twice("passphrase for the export")
            steps.step("sealing the export")
            sealed = seal_to_passphrase(document, passphrase)
        else:
            raise UsageError("there is nobody to type a passphrase", hint="use --passphrase-from-env or --to RECIPIENT")
        context.record(
            "vault",
            action="export",
            sealed_to="recipients" if recipients else "passphrase",
            secrets=len(document.entries),
        )
    _write(target, sealed)
    say(f"silo: {len(document.entries)} secrets are in {target}")


def _guess(source: Path) -> Source:
    """Return the kind of a file, from how it starts, or of a folder, from what is in it."""
    if source.is_dir():
        return "predecessor" if (source / ".salt").exists() else "pass"
    if source.is_file():
        with source.open("rb") as file:
            start = file.read(64)
        if start.startswith((b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED")):
            return "export"
        if source.name == "credentials.silo":
            return "predecessor"
    return "dotenv"


def _read(
    context: CommandContext, source: Path, kind: Source, passphrase_from_env: str | None, identities: list[Path]
) -> Found:
    from silo_vault.transfer import (
        Found,
        find_predecessor,
        needs_passphrase,
        open_sealed,
        read_dotenv,
        read_password_store,
        read_predecessor,
        read_source,
        to_text,
    )

    match kind:
        case "dotenv":
            return read_dotenv(to_text(read_source(source)))
        case "pass":
            return read_password_store(source)
        case "predecessor":
            file, salt = find_predecessor(source if source.is_dir() else source.parent)
            return read_predecessor(file, salt, _passphrase(context, "master key of that vault", passphrase_from_env))
    data = read_source(source)
    passphrase = None
    if needs_passphrase(data):
        passphrase = _passphrase(context, "passphrase of the export", passphrase_from_env)
    export = open_sealed(data, passphrase=passphrase, identities=[to_text(read_source(path)) for path in identities])
    return Found(export.entries, ())


def _passphrase(context: CommandContext, what: str, from_env: str | None) -> str:
    if from_env is not None:
        return read_variable(context, from_env)
    if (typed := type_once(what)) is None:
        raise UsageError(
            f"the {what} is needed, and nobody is there to type it", hint="give it with --passphrase-from-env VARIABLE"
        )
    return typed


def _to_export(secrets: Mapping[tuple[str, str], Secret], vault_id: str) -> Export:
    from silo_vault.transfer import Entry, Export

    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Export(vault_id, created, tuple(Entry(*place, secret.reveal()) for place, secret in secrets.items()))


def _write(target: Path, data: bytes) -> None:
    """Write a new file that only its owner can read, or standard output."""
    if os.fspath(target) == "-":
        emit_bytes(data)
        return
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{target} exists already", hint="name a file that does not exist") from None
    except OSError as error:
        raise UsageError(f"can't write {target}: {error.strerror}", hint="name another file") from error
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        target.unlink(missing_ok=True)
        raise UsageError(f"can't write {target}: {error.strerror}", hint="make room, or name another file") from error


def _document(place: tuple[str, str]) -> dict[str, str | None]:
    return {"name": place[1], "skill": place[0] or None}


def _shown(place: tuple[str, str]) -> str:
    return f"{place[0]}/{place[1]}" if place[0] else place[1]
