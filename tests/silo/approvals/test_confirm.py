"""`Approvals.confirm`: a question about something that is no call. Only a yes to this very question counts, once."""

import anyio
import pytest
from silo_interaction import Answer, NoAnswer, NobodyToAsk, Question

from silo.approvals.consent import Approvals
from silo.approvals.store import MOST_OF_ONE, Decisions
from silo.errors import ApprovalRequired, ApprovalTimeout, CallDenied, Interrupted
from silo.model import Caller
from silo.testing import PATIENCE_S
from silo.testing.fakes import ScriptedChannel

pytestmark = pytest.mark.anyio

QUESTION = Question("Install pay", who="somebody", facts=(("gets", "the secret KEY"),))
YES, NO = Answer(True, "approved"), Answer(False, "not this one")


class Page:
    """A page that some browser is paired with."""

    has_session = True
    has_viewer = False

    def link(self, token):
        return f"http://127.0.0.1:1/q/{token}"

    def stop(self):
        pass


@pytest.fixture
def decisions(tmp_path):
    tmp_path.chmod(0o700)
    store = Decisions(tmp_path)
    yield store
    store.close()


def confirm(approvals, tell=lambda message: None):
    return approvals.confirm(QUESTION, subject="Install pay", caller=Caller("cli"), again="`silo install`", tell=tell)


async def answered(decisions, answer):
    with anyio.fail_after(PATIENCE_S):
        while not (waiting := decisions.waiting()):
            await anyio.sleep(0.01)
    decisions.decide(waiting[0].id, waiting[0].digest, answer, by="the page")


async def test_a_yes_at_the_terminal_counts_once_and_for_this_question_only(decisions):
    person = ScriptedChannel([YES, NO])
    approvals = Approvals(decisions, terminal=person)
    number = await confirm(approvals)
    assert decisions.find(number).uses == 1
    assert [entry.posted.state for entry in decisions.all()] == []
    with pytest.raises(CallDenied, match="not this one"):
        await confirm(approvals)
    assert person.asked == [QUESTION, QUESTION]


@pytest.mark.parametrize(("answer", "error"), [(YES, None), (NO, CallDenied)])
async def test_the_page_answers_and_the_caller_is_told_where(decisions, answer, error):
    told = []
    approvals = Approvals(decisions, page=Page())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answered, decisions, answer)
        if error is None:
            assert await confirm(approvals, told.append)
        else:
            with pytest.raises(error):
                await confirm(approvals, told.append)
    assert told[0].startswith("waiting for a person at http://127.0.0.1:1/q/")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (NoAnswer("nobody answered", hint="h"), ApprovalTimeout),
        (NobodyToAsk("nobody is there", hint="h"), ApprovalRequired),
        (Answer(False, "Ctrl-C", interrupted=True), Interrupted),
    ],
)
async def test_what_is_no_yes_is_an_error_and_leaves_nothing_to_answer(decisions, answer, error):
    with pytest.raises(error):
        await confirm(Approvals(decisions, terminal=ScriptedChannel([answer])))
    assert decisions.waiting() == []


async def test_a_question_that_is_not_answered_in_time_is_a_no(decisions):
    with anyio.fail_after(PATIENCE_S), pytest.raises(ApprovalTimeout):
        await confirm(Approvals(decisions, page=Page(), timeout_s=0.2))


async def test_a_caller_that_goes_takes_its_question_along(decisions):
    with anyio.move_on_after(PATIENCE_S) as scope:
        await confirm(Approvals(decisions, page=Page()), lambda message: scope.cancel())
    assert decisions.waiting() == []


async def test_headless_and_without_channels_nobody_is_asked(decisions):
    person = ScriptedChannel([YES])
    for approvals in (
        Approvals(decisions, terminal=person, headless=True),
        Approvals(decisions, terminal=person, channels=()),
        Approvals(decisions),
    ):
        with pytest.raises(ApprovalRequired, match="SILO_APPROVAL_REQUIRED"):
            await confirm(approvals)
    assert person.asked == []


async def test_questions_of_commands_without_a_person_do_not_crowd_out_a_persons_own(decisions):
    caller = Caller("cli", "me")
    for number in range(MOST_OF_ONE):
        decisions.post(
            f"{number:064x}", QUESTION, subject="a.b", principal="cli:me", stands_s=60, profile={}, asker="cli:me"
        )
    approvals = Approvals(decisions, terminal=ScriptedChannel([YES]))
    with pytest.raises(CallDenied, match="wait for a person already"):
        await approvals.confirm(QUESTION, subject="Install pay", caller=caller, again="`silo install`")
    person = Caller("cli", "me", terminal="/dev/pts/1")
    assert await approvals.confirm(QUESTION, subject="Install pay", caller=person, again="`silo install`")


class Screen:
    """A desktop that notes which messages it shows."""

    def __init__(self):
        self.shown = []

    def can_open(self):
        return False

    def open(self, url):
        return False

    def notify(self, title, body):
        self.shown.append(title)
        return True

    def close(self):
        self.shown.clear()


async def test_the_message_goes_with_the_question(decisions):
    screen, seen = Screen(), []

    def told(message):
        seen.extend(screen.shown)
        (waiting,) = decisions.waiting()
        decisions.decide(waiting.id, waiting.digest, YES, by="the page")

    await confirm(Approvals(decisions, page=Page(), desktop=screen), told)
    assert seen == ["Install pay"]
    assert screen.shown == []
