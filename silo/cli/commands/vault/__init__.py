"""`silo vault`: the secrets of skills (`secrets`), the keys of the vault (`keys`), import and export (`transfer`)."""

from __future__ import annotations

import typer

from silo.cli.commands.vault import keys, secrets, transfer
from silo.cli.options import SECRETS_AND_AGENTS, add_command, add_group


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = add_group(app, "vault", _HELP, section=SECRETS_AND_AGENTS)
    add_command(group, "add", secrets.add, takes_rest=True)
    add_command(group, "get", secrets.get)
    add_command(group, "list", secrets.list_names)
    add_command(group, "remove", secrets.remove)
    add_command(group, "status", secrets.status)
    add_command(group, "import", transfer.import_secrets)
    add_command(group, "export", transfer.export_secrets)
    add_command(group, "restore", keys.restore)
    add_command(group, "rekey", keys.rekey)
    add_command(group, "rotate", keys.rotate)
    add_command(group, "lock", keys.lock)
    canary = add_group(group, "canary", _CANARY_HELP)
    add_command(canary, "add", secrets.add_canary)
    add_command(canary, "list", secrets.list_canaries)
    add_command(canary, "remove", secrets.remove_canary)


_HELP = "Keep the secrets of skills, encrypted.\n\n    silo vault add GITHUB_TOKEN\n    silo vault list"

_CANARY_HELP = (
    "Keep decoys, which no skill ever gets: one that turns up in a call shows that somebody read the vault.\n\n"
    "    silo vault canary add PROD_ADMIN_KEY"
)
