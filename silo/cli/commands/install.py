"""`silo install`: show what a skill wants, ask, install. The steps are in `silo.install.installer`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated

import typer

from silo.cli.context import CommandContext
from silo.cli.documents import changes, header_facts
from silo.cli.options import SKILLS, BackendName, add_command
from silo.cli.render import Steps, say
from silo.errors import ApprovalRequired, ApprovalTimeout, CallDenied, Interrupted
from silo.model import Skill

if TYPE_CHECKING:
    from silo_interaction import Question

    from silo.catalog.plan import InstallPlan
    from silo.runtime import Runtime

# `silo --help` loads this module, so slow modules are imported where they are used:
# `silo_interaction` (asyncio).


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, "install", install, section=SKILLS)


def install(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A built-in skill, a `.py` file, or a folder with a `skill.py`.")
    ],
    name: Annotated[
        str | None, typer.Option(metavar="NS", help="Use this name instead of the namespace in the skill's header.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Agree to what the skill wants without being asked.")
    ] = False,
    allow_builds: Annotated[
        bool,
        typer.Option("--allow-builds", help="Build packages without a wheel, which runs their code on this machine."),
    ] = False,
    backend: BackendName = None,
) -> None:
    """Install a skill, or a new version of it.

        silo install jwt
        silo install ./weather --yes

    Shows what the skill wants, and asks you to agree. Then the script runs for the first time, in a sandbox, to report
    its tools. Neither its code nor its dependencies' code runs outside the sandbox. If anything fails, nothing is
    installed.
    """
    context: CommandContext = ctx.obj
    with Steps() as steps:

        async def work(runtime: Runtime) -> Skill:
            async def agree(plan: InstallPlan) -> bool:
                before = next((one for one in await runtime.skills() if one.namespace == plan.namespace), None)
                return await _agreed(plan, before, runtime.config.approval.timeout_s, steps, is_yes=yes)

            steps.step(f"reading {source}")
            return await runtime.install(
                source, agree=agree, name=name, allow_builds=allow_builds, on_step=steps.step, backend=backend
            )

        skill = context.run(work)
    say(f"installed {skill.namespace}: {', '.join(tool.id for tool in skill.tools) or 'it has no tools'}")
    if skill.header.secrets:
        say(
            "its secrets, if they are not in the vault yet: "
            + "; ".join(f"silo vault add {one}" for one in skill.header.secrets)
        )


async def _agreed(plan: InstallPlan, before: Skill | None, timeout_s: float, steps: Steps, *, is_yes: bool) -> bool:
    from silo_interaction import InteractionError, NoAnswer, TerminalChannel

    if is_yes:
        for warning in plan.warnings:
            say(f"silo: warning: {warning}")
        return True
    again = "`--yes` agrees without asking"
    try:
        with steps.paused():
            answer = await TerminalChannel().ask(_question(plan, before), timeout_s=timeout_s)
    except NoAnswer as error:
        raise ApprovalTimeout(f"{plan.namespace} was not installed: {error.message}", hint=again) from error
    except InteractionError as error:
        raise ApprovalRequired(
            f"installing {plan.namespace} needs your agreement (SILO_APPROVAL_REQUIRED): {error.message}", hint=again
        ) from error
    if answer.interrupted:
        raise Interrupted(f"{plan.namespace} was not installed: {answer.reason}", hint="nothing was changed")
    if not answer.approved:
        raise CallDenied(f"{plan.namespace} was not installed: {answer.reason}", hint="nothing was changed")
    return True


def _question(plan: InstallPlan, before: Skill | None) -> Question:
    """Return what a person must see: everything that the skill wants, and what differs from the installed version."""
    from silo_interaction import Question

    facts = [("skill", plan.namespace), ("from", plan.source), ("digest", plan.digest[:16])]
    if plan.header.description:
        facts.append(("says", plan.header.description))
    facts += header_facts(plan.header, plan.packages)
    if before is not None:
        said = [_script_changes(before, plan), *changes(before, plan.header, plan.packages)]
        facts.append((f"replaces {before.digest[:16]}", "\n".join(said)))
    return Question(f"Install {plan.namespace}", "you, on the command line", tuple(facts), " ".join(plan.warnings))


def _script_changes(before: Skill, plan: InstallPlan) -> str:
    """Return a sentence on how many lines of the script differ from the installed version."""
    try:
        old = before.script.read_bytes().decode(errors="replace").splitlines()
    except OSError:
        return "the installed script can't be read"
    new = plan.script.decode(errors="replace").splitlines()
    marks = [
        line[0] for line in difflib.unified_diff(old, new, n=0, lineterm="") if not line.startswith(("---", "+++"))
    ]
    if not any(mark in "+-" for mark in marks):
        return "script: the same" if before.digest == plan.digest else "script: the same, its lock differs"
    return f"script: {marks.count('+')} lines added, {marks.count('-')} removed; compare it with {before.script}"
