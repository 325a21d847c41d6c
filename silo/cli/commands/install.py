"""`silo install`: show what a skill wants, ask, install. The steps are in `silo.install.installer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from silo.cli.asking import quiet_terminal, show_code
from silo.cli.context import CommandContext
from silo.cli.options import SKILLS, BackendName, add_command
from silo.cli.render import Steps, say
from silo.errors import ApprovalRequired, ApprovalTimeout, CallDenied, Interrupted
from silo.model import Skill

if TYPE_CHECKING:
    from silo_interaction import Channel

    from silo.catalog.plan import InstallPlan
    from silo.runtime import Runtime

# `silo --help` loads this module, so slow modules are imported where they are used:
# `silo_interaction` (asyncio) and `silo.install.question` (difflib, packaging).


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
    provision: Annotated[
        bool,
        typer.Option(
            "--provision", help="Agree to code that `install.provision` in silo.toml names, and refuse other code."
        ),
    ] = False,
    allow_builds: Annotated[
        bool,
        typer.Option("--allow-builds", help="Build packages without a wheel in a sandbox, once you have agreed."),
    ] = False,
    allow_unsandboxed_builds: Annotated[
        bool,
        typer.Option(
            "--allow-unsandboxed-builds", help="The same; where no sandbox works, ask you to build without one."
        ),
    ] = False,
    backend: BackendName = None,
) -> None:
    """Install a skill, or a new version of it.

        silo install jwt
        silo install ./weather --yes

    Shows what the skill wants, and asks you to agree. Then the script runs for the first time, in a sandbox, to report
    its tools. Neither its code nor its dependencies' code runs outside a sandbox. If anything fails, nothing is
    installed.

    If the name holds a secret or approvals, and the code is new, --yes is not enough: an agent can pass it, too. You
    are asked in your terminal or on the approval page. To install without a person, write the code's digest into
    silo.toml, and use --provision.
    """
    context: CommandContext = ctx.obj
    with Steps() as steps:

        async def work(runtime: Runtime) -> Skill:
            async def agree(plan: InstallPlan) -> bool:
                # If a person is needed, silo asks about the whole plan by itself.
                if yes or provision or plan.needs_person:
                    for warning in () if plan.needs_person and not provision else plan.warnings:
                        say(f"silo: warning: {warning}")
                    return True
                before = next((one for one in await runtime.skills() if one.namespace == plan.namespace), None)
                return await _agreed(plan, before, runtime, channel)

            steps.step(f"reading {source}")
            return await runtime.install(
                source,
                agree=agree,
                name=name,
                allow_builds=allow_builds,
                allow_unsandboxed_builds=allow_unsandboxed_builds,
                on_step=steps.step,
                backend=backend,
                provision=provision,
            )

        channel = quiet_terminal(steps)
        skill = context.run(work, channel=channel, show_code=show_code)
    say(f"installed {skill.namespace}: {', '.join(tool.id for tool in skill.tools) or 'it has no tools'}")
    if skill.header.secrets:
        say(
            "its secrets, if they are not in the vault yet: "
            + "; ".join(f"silo vault add {one}" for one in skill.header.secrets)
        )


async def _agreed(plan: InstallPlan, before: Skill | None, runtime: Runtime, channel: Channel) -> bool:
    from silo_interaction import InteractionError, NoAnswer

    from silo.install.question import install_question

    again = "`--yes` agrees without asking"
    question = install_question(plan, before, "you, on the command line")
    try:
        answer = await channel.ask(question, timeout_s=runtime.config.approval.timeout_s)
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
