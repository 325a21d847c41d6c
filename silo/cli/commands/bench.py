"""`silo bench`: measure this machine. The benchmarks are in `silo.cli.benchmarks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from silo_vault import VaultError

from silo.cli.context import CommandContext
from silo.cli.options import MACHINE, AsJson, add_command, add_group
from silo.cli.render import Steps, emit, emit_json
from silo.secrets.lease import from_vault_error

# `silo --help` loads this module, so slow modules are imported where they are used:
# `silo.cli.benchmarks` (pydantic, mcp, numpy, cryptography) and `silo.compose.settings` (pydantic).

_LOADING = "loading the benchmark"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    text = "Measure this machine.\n\n    silo bench call\n    silo bench vault --runs 50 --json > vault.json"
    group = add_group(app, "bench", text, section=MACHINE)
    add_command(group, "call", call)
    add_command(group, "vault", vault)
    add_command(group, "approvals", approvals)
    add_command(group, "hostile", hostile)
    add_command(group, "redaction", redaction)
    add_command(group, "routing", routing)


def call(
    ctx: typer.Context,
    runs: Annotated[int, typer.Option("--runs", min=3, max=1000, help="How often each variant is measured.")] = 15,
    as_json: AsJson = False,
) -> None:
    """Measure calls, and the same script started directly with `uv run --script`, alternating in one run.

        silo bench call
        silo bench call --runs 50 --json > docs/benchmarks/call.json

    Works in a temporary state folder. The machine should be idle otherwise. Look at the ratios, not at the seconds.
    """
    context: CommandContext = ctx.obj
    with Steps() as steps:
        steps.step(_LOADING)
        from silo.cli.benchmarks.call import CallBenchmark, table
        from silo.compose.settings import kernel_folder

        kernel = kernel_folder(context.home(), context.load_config().config)
        document = CallBenchmark(context.environ, kernel, runs=runs, on_step=steps.step).run()
    if as_json:
        emit_json(document)
    else:
        emit(table(document))


def vault(
    runs: Annotated[int, typer.Option("--runs", min=3, max=1000, help="How often each variant is measured.")] = 15,
    secrets: Annotated[
        int, typer.Option("--secrets", min=1, max=100_000, help="How many secrets the vault has.")
    ] = 10_000,
    as_json: AsJson = False,
) -> None:
    """Measure opening, reading and saving a vault of ten thousand secrets, and the memory that it takes.

        silo bench vault
        silo bench vault --runs 50 --json > docs/benchmarks/vault.json

    Works in a temporary folder, with its own vaults. The time of Argon2id and of the disk is shown separately.
    """
    with Steps() as steps:
        steps.step(_LOADING)
        from silo.cli.benchmarks.vault import VaultBenchmark, table

        try:
            document = VaultBenchmark(runs=runs, secrets=secrets, on_step=steps.step).run()
        except VaultError as error:
            raise from_vault_error(error, headless=True) from error
    if as_json:
        emit_json(document)
    else:
        emit(table(document))


def approvals(
    ctx: typer.Context,
    runs: Annotated[int, typer.Option("--runs", min=3, max=1000, help="How often each variant is measured.")] = 15,
    as_json: AsJson = False,
) -> None:
    """Measure the approval page, and calls while fifty others wait for a person.

        silo bench approvals
        silo bench approvals --runs 50 --json > docs/benchmarks/approvals.json

    Works in a temporary state folder and asks nobody. The time of the page does not include the browser's time.
    """
    context: CommandContext = ctx.obj
    with Steps() as steps:
        steps.step(_LOADING)
        from silo.cli.benchmarks.approvals import ApprovalsBenchmark, table
        from silo.compose.settings import kernel_folder

        kernel = kernel_folder(context.home(), context.load_config().config)
        document = ApprovalsBenchmark(context.environ, kernel, runs=runs, on_step=steps.step).run()
    if as_json:
        emit_json(document)
    else:
        emit(table(document))


def hostile(
    ctx: typer.Context,
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=3600, help="How long to measure with them.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Measure how fast silo answers while eight hostile guests send it what is slow to parse.

        silo bench hostile
        silo bench hostile --seconds 60 --json > docs/benchmarks/hostile.json

    Works in a temporary state folder, with guests of the namespace backend.
    """
    context: CommandContext = ctx.obj
    with Steps() as steps:
        steps.step(_LOADING)
        from silo.cli.benchmarks.hostile import HostileBenchmark, table

        document = HostileBenchmark(context.environ, seconds=seconds, on_step=steps.step).run()
    if as_json:
        emit_json(document)
    else:
        emit(table(document))


def redaction(
    runs: Annotated[int, typer.Option("--runs", min=3, max=1000, help="How often each text is measured.")] = 5,
    size_mib: Annotated[int, typer.Option("--size-mib", min=1, max=256, help="How large the texts are.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Measure how fast secrets are removed from results: typical ones, and the worst that a skill could return.

        silo bench redaction
        silo bench redaction --runs 15 --json > docs/benchmarks/redaction.json

    The secrets are made up. On a busy machine, look at the megabytes per second of processor time.
    """
    with Steps() as steps:
        steps.step(_LOADING)
        from silo.cli.benchmarks.redaction import RedactionBenchmark, table

        document = RedactionBenchmark(runs=runs, size_mib=size_mib, on_step=steps.step).run()
    if as_json:
        emit_json(document)
    else:
        emit(table(document))


def routing(
    sets: Annotated[Path, typer.Argument(help="The folder with the public sets.")],
    only: Annotated[list[str] | None, typer.Option("--set", help="Measure only this set; can be repeated.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many requests of each set; 0 means all.")] = 0,
    scale: Annotated[
        list[int] | None, typer.Option("--scale", min=10, max=1_000_000, help="Measure the speed with this many tools.")
    ] = None,
    ablations: Annotated[bool, typer.Option("--ablations", help="Also measure with each part switched off.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how often search finds the right tool in public sets of tools and requests.

        silo bench routing sets
        silo bench routing sets --scale 10000 --ablations --json > docs/benchmarks/routing.json

    `scripts/routing/fetch.py` downloads the sets and names their licences. Baselines are measured too if they are
    installed.
    """
    with Steps() as steps:
        steps.step(_LOADING)
        from silo.cli.benchmarks.routing import RoutingBenchmark, table

        benchmark = RoutingBenchmark(
            sets, names=only or (), limit=limit, scales=scale or (), ablations=ablations, on_step=steps.step
        )
        document = benchmark.run()
    if as_json:
        emit_json(document)
    else:
        emit(table(document))
