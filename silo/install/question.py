"""What a person sees before a skill is installed: everything that it wants and gets, and what differs.

Reads the script of the installed version, to compare it.
"""

from __future__ import annotations

import difflib

from silo_interaction import Question

from silo.catalog.plan import InstallPlan, PlannedBuild
from silo.install.facts import changes, header_facts
from silo.model import Skill


def install_question(plan: InstallPlan, before: Skill | None, who: str) -> Question:
    """Return the question whether a plan shall be carried out.

    Args:
        before: the installed skill of that name.
        who: on whose behalf.
    """
    facts = [("skill", plan.namespace), ("from", plan.source)]
    if not plan.is_partial:
        facts.append(("digest", plan.digest[:16]))
    if plan.header.description:
        facts.append(("says", plan.header.description))
    if plan.grants:
        facts.append(("gets what its name holds", "\n".join(plan.grants)))
    facts += [("would be built", _build(build)) for build in plan.builds]
    if plan.is_partial:
        facts.append(("why", "they do not say what they depend on; the rest of the install is another question"))
        return Question(f"Build packages for {plan.namespace}", who, tuple(facts), " ".join(plan.warnings))
    facts += header_facts(plan.header, plan.packages)
    if before is not None:
        said = [_script_changes(before, plan), *changes(before, plan.header, plan.packages)]
        facts.append((f"replaces {before.digest[:16]}", "\n".join(said)))
    danger = [*plan.warnings]
    if plan.grants:
        danger.append("Whoever wrote this script gets what its name holds; say yes only if you know the script.")
    return Question(f"Install {plan.namespace}", who, tuple(facts), " ".join(danger), group="installs")


def _build(build: PlannedBuild) -> str:
    needs = ", ".join(build.needs) or "nothing"
    return f"{build.package}\n{build.hash}\nfrom {build.source}\nits build needs {needs}"


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
