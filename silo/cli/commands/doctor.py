"""`silo doctor`: what works on this machine, what does not, and how to fix it. The backends and the vault test it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from silo.catalog.uv import Uv
from silo.cli.context import CommandContext
from silo.cli.documents import probe_document, vault_document
from silo.cli.options import MACHINE, AsJson, add_command
from silo.cli.probes import COLUMNS, chosen, rows
from silo.cli.render import Steps, emit, emit_json, emit_table
from silo.errors import DependencyUnavailable, SandboxBroken, VaultLocked
from silo.sandbox.backends.microvm.kernel import find as find_kernel
from silo.sandbox.base import Probe
from silo.version import __version__

if TYPE_CHECKING:
    from silo.config.load import Loaded
    from silo.runtime import Runtime

# `silo --help` loads this module, so slow modules are imported where they are used:
# `silo.compose.settings` (pydantic).


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, "doctor", doctor, section=MACHINE)


def doctor(
    ctx: typer.Context,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Try again, instead of using what was found since this machine booted.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say which sandboxes work here, and why the others do not.

        silo doctor
        silo doctor --json | jq '.backends[] | select(.works | not).hint'

    Exits with 5 if no sandbox is as strong as the configuration requires.
    """
    context: CommandContext = ctx.obj
    loaded = context.load_config()
    with Steps() as steps:

        async def work(runtime: Runtime) -> tuple[tuple[Probe, ...], dict[str, str | None]]:
            steps.step("trying the sandboxes")
            return await runtime.probe(refresh=refresh), await _uv(context)

        probes, uv = context.run(work)
    document = _document(context, loaded, probes, uv)
    best, refusal = chosen(probes, loaded.config)
    document["chosen"] = None if best is None else best.name
    if as_json:
        emit_json(document)
    else:
        emit_table(COLUMNS, rows(probes))
        emit("\n" + _facts(document))
    if refusal is not None:
        raise refusal


def _document(
    context: CommandContext, loaded: Loaded, probes: tuple[Probe, ...], uv: dict[str, str | None]
) -> dict[str, Any]:
    from silo.compose.settings import kernel_folder

    home = context.home()
    config_file = home / "silo.toml"
    return {
        "silo": __version__,
        "backends": [probe_document(probe) for probe in probes],
        "min_isolation": loaded.config.sandbox.min_isolation.value,
        "backend": loaded.config.sandbox.backend,
        "home": str(home),
        "config": {
            "file": str(config_file) if config_file.exists() else None,
            "changed": {key: origin for key, origin in loaded.origins.items() if origin != "default"},
        },
        "kernel": _kernel(kernel_folder(home, loaded.config)),
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "uv": uv,
        "vault": _vault(context),
    }


def _kernel(folder: Path) -> dict[str, str | None]:
    try:
        found = find_kernel(folder)
    except SandboxBroken as error:
        return {"release": None, "digest": None, "problem": error.message}
    if found is None:
        return {"release": None, "digest": None, "problem": "there is none; `silo setup` gets one"}
    return {"release": found.release, "digest": found.digest, "problem": None}


def _vault(context: CommandContext) -> dict[str, Any]:
    """Return the facts about the vault. One that can't be read is a finding, and the other findings are still shown."""
    has_master_key = "SILO_MASTER_KEY" in context.environ
    try:
        with context.vault() as vault:
            return {**vault_document(vault.status(), has_master_key=has_master_key), "problem": None}
    except VaultLocked as error:
        return {"exists": True, "keys": [], "master_key": has_master_key, "problem": error.message}


async def _uv(context: CommandContext) -> dict[str, str | None]:
    try:
        answer = await Uv(context.environ).run(["--version"], timeout_s=20.0, settings=False)
    except (DependencyUnavailable, FileNotFoundError) as error:
        return {"version": None, "problem": str(error)}
    return {"version": answer.stdout.strip().removeprefix("uv "), "problem": None}


def _facts(document: dict[str, Any]) -> str:
    kernel, uv, vault, config = (document[name] for name in ("kernel", "uv", "vault", "config"))
    keys = ", ".join(slot["kind"] for slot in vault["keys"])
    opens = vault["problem"] or (f"opens with {keys}" if vault["exists"] else "not made yet")
    changed = ", ".join(f"{key} ({origin})" for key, origin in sorted(config["changed"].items()))
    facts = (
        ("silo", document["silo"]),
        ("calls get", document["chosen"] or f"nothing: the floor is {document['min_isolation']}"),
        ("guest kernel", kernel["release"] or kernel["problem"]),
        ("home", document["home"]),
        ("configuration", changed or "all default"),
        ("vault", f"{opens}; SILO_MASTER_KEY is {'set' if vault['master_key'] else 'not set'}"),
        ("uv", uv["version"] or uv["problem"]),
        ("python", f"{document['python']['version']}, {document['python']['executable']}"),
    )
    return "\n".join(f"{label:<13}  {text}" for label, text in facts)
