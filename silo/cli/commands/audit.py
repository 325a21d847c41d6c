"""`silo audit`: what ran, and whether the record is whole. `silo.audit.log` writes and checks the log."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Annotated

import typer

from silo.audit import log
from silo.audit.log import AuditRecord
from silo.audit.summary import summarize
from silo.cli.context import CommandContext
from silo.cli.options import CALLS, AsJson, add_command, add_group
from silo.cli.render import Steps, emit, emit_json, emit_table, say


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = add_group(app, "audit", _HELP, section=CALLS)
    add_command(group, "show", show)
    add_command(group, "summary", summary)
    add_command(group, "verify", verify)


_HELP = (
    "Show what ran, and check that the record is whole.\n\n"
    "    silo audit show -n 5\n    silo audit summary\n    silo audit verify"
)


def show(
    ctx: typer.Context,
    last: Annotated[int, typer.Option("-n", "--last", min=1, help="How many records, counted from the end.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the last records, oldest first.

        silo audit show -n 50
        silo audit show --json | jq '.records[] | select(.outcome != "ok")'

    Does not check the chain of hashes; `silo audit verify` does.
    """
    context: CommandContext = ctx.obj
    with Steps() as steps:
        steps.step("reading the audit log")
        records = deque(log.read(context.home()), maxlen=last)
    if as_json:
        emit_json({"records": [record.to_json() for record in records]})
    elif not records:
        say("nothing is recorded yet")
    else:
        emit_table(("NO", "TIME", "EVENT", "WHAT", "FOR", "OUTCOME"), [_row(record) for record in records])


def summary(
    ctx: typer.Context,
    last: Annotated[int, typer.Option("-n", "--last", min=1, help="How many tasks, counted from the end.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show for each task how many calls, refusals and questions it had.

        silo audit summary
        silo audit summary --json | jq '.tasks[] | select(.questions > 5)'

    A task is one session of one client. Many questions in one task tire people. If a question always gets the same
    answer, a rule in silo.toml can give it.
    """
    context: CommandContext = ctx.obj
    with Steps() as steps:
        steps.step("reading the audit log")
        tasks = summarize(log.read(context.home()))[-last:]
    if as_json:
        emit_json({"tasks": [task.to_json() for task in tasks]})
    elif not tasks:
        say("nothing is recorded yet")
    else:
        emit_table(
            ("TASK", "SINCE", "FOR", "CALLS", "QUESTIONS", "APPROVED", "DENIED", "UNANSWERED", "FAILED"),
            [
                (
                    task.session,
                    task.first,
                    f"{task.kind} {task.client}".strip(),
                    *(
                        str(n)
                        for n in (task.calls, task.questions, task.approved, task.denied, task.unanswered, task.failed)
                    ),
                )
                for task in tasks
            ],
        )


def verify(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Check every record against the one before it. Exits with 2 if a line was changed, dropped or moved.

    silo audit verify
    """
    context: CommandContext = ctx.obj
    with Steps() as steps:
        steps.step("checking the audit log")
        found = log.verify(context.home())
    if as_json:
        recoveries = [record.to_json() for record in found.recoveries]
        emit_json({"records": found.records, "head": found.head, "recoveries": recoveries})
    else:
        said = f"{found.records} records, each follows from the one before; the last one is {found.head}"
        emit(said if found.records else "nothing is recorded yet")
        for record in found.recoveries:
            emit(_recovery(record))


def _recovery(record: AuditRecord) -> str:
    """Say what was found and cut before a record."""
    body = record.body
    torn, lost, saved = body.get("torn_bytes", 0), body.get("lost_records", 0), body.get("saved_as")
    kept = f", kept in {saved}" if saved else ""
    return (
        f"record {record.seq}: the end of the log was damaged before it, at or before {record.time}: "
        f"{torn} bytes were cut off{kept}, and {lost} records are missing"
    )


def _row(record: AuditRecord) -> tuple[str, str, str, str, str, str]:
    body = record.body
    caller = body.get("caller")
    client = f"{caller.get('kind', '')} {caller.get('client', '')}".strip() if isinstance(caller, dict) else ""
    took = f" in {body['duration_ms']} ms" if "duration_ms" in body else ""
    return (
        str(record.seq),
        record.time,
        record.event,
        str(body.get("tool") or body.get("skill") or _change(body)),
        client,
        f"{body.get('outcome', '')}{took}",
    )


def _change(body: Mapping[str, object]) -> str:
    """Say what was done with the vault: the action, and the secret if it was one."""
    return " ".join(str(body[key]) for key in ("action", "name") if key in body)
