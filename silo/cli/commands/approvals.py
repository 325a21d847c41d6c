"""`silo approvals`: show what waits for a person, and answer it without a browser.

Approving needs a person at a terminal, and so does seeing what is asked. No option replaces that person, because the
agent that asks could use it, too. Denying needs no terminal, nor does the list, which has no arguments.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from silo.cli.context import CommandContext, interrupted, run_until_signal
from silo.cli.documents import question_document
from silo.cli.options import CALLS, AsJson, add_command, add_group
from silo.cli.render import UNTERMINATED_WIDTH, emit, emit_json, emit_table, say
from silo.errors import ApprovalRequired, ApprovalTimeout, CallDenied, SiloError, UsageError
from silo.remedies import command

if TYPE_CHECKING:
    from silo_interaction import Answer, PostedQuestion

    from silo.approvals.store import Decisions, ListedQuestion

# `silo --help` loads this module, so slow modules are imported where they are used:
# `silo_interaction` (asyncio), `silo.approvals.store` and `silo.approvals.pairing` (sqlite3).

QuestionId = Annotated[str, typer.Argument(metavar="ID", help="The question's id; its first digits are enough.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = add_group(app, "approvals", _HELP, section=CALLS)
    add_command(group, "list", list_questions)
    add_command(group, "show", show)
    add_command(group, "approve", approve)
    add_command(group, "deny", deny)
    add_command(group, "revoke", revoke)
    add_command(group, "pair", pair)


_HELP = (
    "Answer waiting questions, and revoke approvals.\n\n"
    "    silo approvals list\n    silo approvals approve 3f2a\n    silo approvals revoke --all"
)


def list_questions(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the questions that wait for a person, and the decisions that still count.

        silo approvals list
        silo approvals list --json | jq -r '.questions[] | select(.state == "waiting") | .id'

    An approval counts once, or until its time is over. A denial counts for some minutes, for the same call. LEFT says
    how long.
    """
    with _opened(ctx.obj) as decisions:
        entries, now = decisions.all(), time.time()
    if as_json:
        emit_json({"questions": [question_document(entry, now) for entry in entries]})
    elif entries:
        rows = [
            (entry.posted.id, _state(entry), _left(entry, now), entry.subject, entry.posted.question.who)
            for entry in entries
        ]
        emit_table(("ID", "STATE", "LEFT", "TOOL", "FOR"), rows)
    else:
        say("no question waits, and no approval counts")


def show(ctx: typer.Context, question: QuestionId, as_json: AsJson = False) -> None:
    """Show a whole question, with all arguments.

        silo approvals show 3f2a

    While the question waits, this needs a person at a terminal: in a pipe or a file, an agent could read what others
    ask. After the decision, silo keeps only what the question was about.
    """
    from silo_interaction.terminal import render

    with _opened(ctx.obj) as decisions:
        entry, now = decisions.find(question), time.time()
    if entry.posted.state == "waiting":
        _require_reader("what is asked is shown to a person at a terminal only")
    if as_json:
        emit_json({**question_document(entry, now), "question": entry.posted.question.to_json()})
        return
    left = _left(entry, now)
    columns = max(_LEAST_COLUMNS, shutil.get_terminal_size((UNTERMINATED_WIDTH, 24)).columns)
    emit(f"{entry.posted.id}: {_state(entry)}{f', {left} left' if left else ''}")
    emit(render(entry.posted.question, columns))
    if entry.posted.state != "waiting":
        say("it does not wait any more; its details are not kept")


def approve(
    ctx: typer.Context,
    question: QuestionId,
    for_grace: Annotated[
        bool, typer.Option("--for-grace", help="Let the approval count for as long as the tool offers, not just once.")
    ] = False,
) -> None:
    """Show a whole question, and approve or deny it at this terminal.

        silo approvals approve 3f2a

    Needs a person at a terminal; there is no option to agree in advance. Ctrl-C leaves the question as it is.
    """
    from silo_interaction.terminal import duration

    context: CommandContext = ctx.obj
    with _opened(context) as decisions:
        entry = decisions.find(question)
        posted = entry.posted
        _require_waiting(posted)
        if posted.question.wanted is not None:
            name = posted.question.wanted.name
            raise UsageError(
                f"question {posted.id} wants {name!r} typed in, which only the process that asks can take",
                hint=(
                    f"type it in on the approval page, or add it with `silo vault add {name}`; "
                    f"then call {entry.subject} again"
                ),
            )
        asked = posted.question
        if for_grace:
            if not asked.grace_s:
                raise UsageError(
                    f"an approval of question {posted.id} can count only once; its tool offers nothing else",
                    hint="leave --for-grace out",
                )
            # The question, which is shown in full, says that a yes counts for longer.
            lasts = ("a yes counts", f"for {duration(asked.grace_s)}, without being asked again")
            asked = replace(asked, facts=(*asked.facts, lasts), grace_s=0)
        answer = _ask(replace(posted, question=asked))
        if answer.interrupted:
            raise interrupted()
        if for_grace and answer.approved:
            answer = replace(answer, grace=True, reason=f"{answer.reason} for {duration(posted.question.grace_s)}")
        _decide(context, decisions, entry, answer)
    if not answer.approved:
        raise CallDenied(
            f"you denied question {posted.id}",
            hint=f"the caller is told; to be asked again, call {entry.subject}",
        )


def deny(
    ctx: typer.Context,
    question: QuestionId,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Shown to the caller.")] = "",
) -> None:
    """Deny a question. Needs no terminal.

    silo approvals deny 3f2a --reason 'use the test account'
    """
    from silo_interaction import Answer

    context: CommandContext = ctx.obj
    with _opened(context) as decisions:
        entry = decisions.find(question)
        _require_waiting(entry.posted)
        if entry.posted.question.wanted is not None and not entry.here:
            # Only the process that asks can take an answer; but any process can withdraw the question.
            if not decisions.revoke(entry.posted.id):
                raise _not_waiting(decisions, entry.posted)
            _record(context, entry, "denied", reason=reason)
            return
        said = "declined with `silo approvals`"
        _decide(context, decisions, entry, Answer(approved=False, reason=f"{said}: {reason}" if reason else said))


def revoke(
    ctx: typer.Context,
    question: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The question's id; its first digits are enough.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Revoke every approval that still counts.")] = False,
) -> None:
    """Revoke an approval that still counts. The next call asks again; a call that already runs continues.

    silo approvals revoke 3f2a
    """
    context: CommandContext = ctx.obj
    if (question is None) is not every:
        raise UsageError("name one question, or give --all", hint=command("silo approvals list", "{} shows their ids"))
    with _opened(context) as decisions:
        if question is None:
            standing = [entry for entry in decisions.all() if entry.posted.state == "approved"]
            if not standing:
                say("no approval counts")
        else:
            standing = [decisions.find(question)]
            if standing[0].posted.state == "waiting":
                raise UsageError(
                    f"question {standing[0].posted.id} has not been answered yet",
                    hint=command(f"silo approvals deny {standing[0].posted.id}", "{} denies it"),
                )
        for entry in standing:
            if decisions.revoke(entry.posted.id):
                _record(context, entry, "revoked")
            elif not every:
                raise UsageError(
                    f"there is nothing to revoke: the answer to question {entry.posted.id} does not count any more",
                    hint=command("silo approvals list", "{} shows what does"),
                )


def pair(ctx: typer.Context) -> None:
    """Print a code that lets one browser answer on the approval page.

        silo approvals pair

    Needs a person at a terminal: in a pipe or a file, the agent that asks could read the code.
    """
    from silo.approvals.pairing import VALID_S

    context: CommandContext = ctx.obj
    _require_reader("a pairing code is shown to a person at a terminal only")
    with _opened(context) as decisions:
        code, pages = decisions.new_code(), decisions.pages()
    context.record("approval", verdict="code", question=None, tool=None)
    emit(code)
    where = f"at {' or '.join(pages)} and nowhere else" if pages else "on the approval page; none is served now"
    say(f"type it in {where}; it is good for one browser, for {VALID_S / 60:g} minutes")


# --- shared by the commands -------------------------------------------------------------------------------------------

_LEAST_COLUMNS = 40


@contextmanager
def _opened(context: CommandContext) -> Iterator[Decisions]:
    from silo.approvals.store import Decisions

    with closing(Decisions(context.home())) as decisions:
        yield decisions


def _ask(posted: PostedQuestion) -> Answer:
    from silo_interaction import NoAnswer, NobodyToAsk, TerminalChannel

    left = max(0.0, posted.expires_at - time.time())
    try:
        return run_until_signal(lambda: TerminalChannel().ask(posted.question, timeout_s=left))
    except NobodyToAsk as error:
        raise ApprovalRequired(
            f"only a person at a terminal can approve: {_cause(error)}",
            hint=f"{error.hint}; or answer on the approval page",
        ) from error
    except NoAnswer as error:
        raise ApprovalTimeout(
            f"the time of question {posted.id} is over, so the call is denied",
            hint="to be asked again, call the tool again",
        ) from error


def _require_reader(why: str) -> None:
    """Refuse to write to anything but the terminal of a person."""
    from silo_interaction import NobodyToAsk
    from silo_interaction.terminal import require_person

    try:
        require_person((1, "standard output"))
    except NobodyToAsk as error:
        raise ApprovalRequired(f"{why}: {_cause(error)}", hint=error.hint) from error


def _cause(error: Exception) -> str:
    return str(error).removeprefix("there is nobody to ask: ")


def _require_waiting(posted: PostedQuestion) -> None:
    if posted.state != "waiting":
        raise _no_longer(posted)


def _decide(context: CommandContext, decisions: Decisions, entry: ListedQuestion, answer: Answer) -> None:
    """Store an answer, and record it in the audit log.

    Raises:
        UsageError: the question does not wait any more, or has changed since it was shown; nothing was decided.
    """
    posted = entry.posted
    outcome = decisions.decide(posted.id, posted.digest, answer, by="silo approvals")
    if outcome == "gone":
        raise _not_waiting(decisions, posted)
    if outcome == "changed":
        raise UsageError(
            f"question {posted.id} is not what was shown here any more, and nothing was decided",
            hint=f"look at it again: `silo approvals show {posted.id}`",
        )
    _record(context, entry, "approved" if answer.approved else "denied", grace=answer.grace, reason=answer.reason)


def _record(context: CommandContext, entry: ListedQuestion, verdict: str, **facts: object) -> None:
    context.record("approval", verdict=verdict, question=entry.posted.id, tool=entry.subject, **facts)


def _not_waiting(decisions: Decisions, posted: PostedQuestion) -> SiloError:
    return _no_longer(decisions.get(posted.id) or replace(posted, state="expired"))


def _no_longer(posted: PostedQuestion) -> SiloError:
    hints = {"approved": f"`silo approvals revoke {posted.id}` revokes the approval, as long as it counts"}
    return UsageError(
        f"question {posted.id} does not wait any more: {_ENDS.get(posted.state, 'its time is over')}",
        hint=hints.get(posted.state, "to be asked again, call the tool again; `silo approvals list` shows what waits"),
    )


_ENDS = {
    "approved": "it was approved",
    "denied": "it was denied",
    "withdrawn": "the caller is gone, or asks something else now",
}


def _state(entry: ListedQuestion) -> str:
    posted = entry.posted
    if posted.state == "waiting":
        return "waiting" if posted.question.wanted is None else "waiting for a secret"
    if posted.state != "approved" or not entry.until:
        return posted.state
    return "yes" if posted.grace else "yes, once"


def _left(entry: ListedQuestion, now: float) -> str:
    end = entry.posted.expires_at if entry.posted.state == "waiting" else entry.until
    if not end:
        return ""
    minutes, seconds = divmod(max(0, int(end - now)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
