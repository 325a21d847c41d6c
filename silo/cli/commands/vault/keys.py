"""`silo vault rekey`, `rotate`, `lock`, `restore`: which keys open the vault, and which of its files is current."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from silo_vault import KeySlot, KeysReturn, SecretInfo, VaultStatus

from silo.cli.context import CommandContext
from silo.cli.render import Steps, say
from silo.cli.values import read_value
from silo.errors import UsageError


def rekey(
    ctx: typer.Context,
    add: Annotated[
        list[str] | None,
        typer.Option("--add", metavar="KIND", help="Add a key of this kind: env, keyring, passphrase, transit or kv."),
    ] = None,
    replace: Annotated[
        str | None, typer.Option("--replace", metavar="KIND", help="Replace all keys of this kind with a new one.")
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="ID", help="Remove the key with this id; it no longer opens the vault."),
    ] = None,
    from_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Take the new key or passphrase from this variable.")
    ] = None,
    from_file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Take the new key or passphrase from this file.")
    ] = None,
) -> None:
    """Change which keys open the vault. Secrets stay as they are. `silo vault status` shows the keys and their ids.

        silo vault rekey --add passphrase
        silo vault rekey --replace env --from-file new-key.txt
        silo vault rekey --add keyring --remove 5d0c1f9a20b3c4e7

    One of the present keys must open the vault. A recovery passphrase is typed twice; keep it away from this machine. A
    process that uses `SILO_MASTER_KEY` takes a new key at its next start.
    """
    context: CommandContext = ctx.obj
    kinds = [*(add or []), *([replace] if replace else [])]
    gone = list(remove or [])
    if not kinds and not gone:
        raise UsageError("there is nothing to change", hint="say which key with --add, --replace or --remove")
    if len([kind for kind in kinds if kind in _TYPED]) > 1:
        raise UsageError("two keys can't be typed at once", hint="add one after the other")

    def ask(kind: str) -> str:
        with steps.paused():
            value = read_value(context, _TYPED[kind], from_env=from_env, from_file=from_file)
        return value if isinstance(value, str) else _text(value)

    with Steps() as steps, context.vault_setup(steps) as setup:
        before = setup.vault.status()
        if replace is not None:
            gone += [slot.key_id for slot in before.keys if slot.kind == replace]
        providers = [setup.new_key(kind, partial(ask, kind)) for kind in kinds]
        setup.vault.rekey(add=providers, remove=gone)
        after = setup.vault.status()
        context.record("vault", action="rekey", added=_ids(after, before), removed=_ids(before, after))
    for slot in after.keys:
        say(f"opens with {slot.kind}, key {slot.key_id}")


def rotate(
    ctx: typer.Context,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="ID", help="Remove the key with this id; it no longer opens the vault."),
    ] = None,
) -> None:
    """Make a new data key and encrypt every secret under it. The old data key opens nothing that is saved later.

        silo vault rotate

    Every key that opens the vault must be available; a passphrase is asked for. Drop a lost key by its id. If somebody
    has read a secret, change it where it was issued.
    """
    context: CommandContext = ctx.obj
    with context.vault_setup() as setup:
        before = setup.vault.status()
        setup.vault.rotate(drop=drop or [])
        after = setup.vault.status()
        context.record("vault", action="rotate", added=_ids(after, before), removed=_ids(before, after))


def lock(ctx: typer.Context) -> None:
    """Make every process forget the vault's keys. Each process notices at its next use of the vault.

        silo vault lock

    Restart what was started with SILO_MASTER_KEY. The keyring, HashiCorp Vault and a person are asked again.
    """
    context: CommandContext = ctx.obj
    with context.vault_setup() as setup:
        setup.vault.lock()
        context.record("vault", action="lock")


def restore(
    ctx: typer.Context,
    source: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The file to bring back; without it, the backup.")
    ] = None,
    accept_rollback: Annotated[
        bool, typer.Option("--accept-rollback", help="Accept the file that is in place, although it is older.")
    ] = False,
    accept_key: Annotated[
        list[str] | None,
        typer.Option("--accept-key", metavar="ID", help="Let this key open the vault again, although it was removed."),
    ] = None,
) -> None:
    """Bring the secrets of an older file of the vault back, as its newest generation.

        silo vault restore
        silo vault restore /media/backup/credentials.silo

    The replaced file becomes the backup, and its keys stay. If it does not open, it is kept under another name, and the
    keys of the older file open the vault. If one of these was removed, silo asks first; without a terminal, name it
    with --accept-key. Says which secrets change. The audit log records the restore.
    """
    context: CommandContext = ctx.obj
    if accept_rollback and source is not None:
        raise UsageError("--accept-rollback is about the file in place", hint="leave out FILE, or leave out the option")
    with Steps() as steps, context.vault_setup(steps) as setup:
        vault = setup.vault
        path = vault.path if accept_rollback else vault.backup if source is None else source.expanduser().absolute()
        try:
            done = vault.restore(path, keys=accept_key or ())
        except KeysReturn as error:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            with steps.paused():
                if not _agrees(error.restoration.keys):
                    raise UsageError("nothing was restored", hint="run it again, and type restore") from None
            done = vault.restore(path, keys=[slot.key_id or slot.kind for slot in error.restoration.keys])
        context.record(
            "vault",
            action="restore",
            source=str(path),
            accept_rollback=accept_rollback,
            generation=vault.status().generation,
            keys_back=sorted(slot.key_id or slot.kind for slot in done.keys),
            secrets_back=len(done.returned),
        )
    say(f"silo: {path} is the newest generation now")
    for slot in done.keys:
        say(f"opens again with {slot.kind}, key {slot.key_id}")
    for infos, what in (
        (done.returned, "is there again, after it was removed"),
        (done.earlier, "has an earlier value again"),
        (done.gone, "is missing; the backup has it"),
    ):
        for info in infos:
            say(f"{'decoy ' if info.is_canary else ''}{_place(info)} {what}")
    if not done.is_compared:
        say("silo: secrets that were removed since may be there again; `silo vault list` shows what there is")
    if done.aside is not None:
        say(f"silo: what was there before could not be used; it is kept as {done.aside}")


def _agrees(keys: Sequence[KeySlot]) -> bool:
    """Ask a person on the terminal whether keys may open the vault again."""
    for slot in keys:
        say(f"opens again with {slot.kind}, key {slot.key_id}")
    say("silo: these keys were removed, or are not known to open the vault. Who has one of them can read every secret.")
    say("silo: type 'restore' to go on:")
    return sys.stdin.readline().strip() == "restore"


def _place(info: SecretInfo) -> str:
    return f"{info.namespace}/{info.name}" if info.namespace else info.name


_TYPED = {"env": "new key", "passphrase": "recovery passphrase"}
"""What to ask for, by kind of key; only keys that are text can be typed."""


def _ids(status: VaultStatus, other: VaultStatus) -> list[str]:
    """Return the ids of the keys in one state that are not in the other."""
    return sorted({slot.key_id for slot in status.keys} - {slot.key_id for slot in other.keys})


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise UsageError("the key is not text", hint="give 32 bytes in hex or base64, or a passphrase") from None
