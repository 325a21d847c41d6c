"""Asking and waiting, with the real store: which channel is tried when, and that only a yes lets a call run.

`tests/silo_interaction/page` tests the page itself, `tests/e2e/test_approvals.py` attacks it. Here a fake page reads
the store.
"""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest
from silo_interaction import Answer, NobodyToAsk

from silo.approvals.consent import CHANNELS
from silo.approvals.store import MOST_OF_ONE
from silo.audit.log import read
from silo.audit.summary import summarize
from silo.errors import (
    ApprovalPending,
    ApprovalRequired,
    ApprovalTimeout,
    CallDenied,
    Interrupted,
    SecretMissing,
)
from silo.model import Call, Caller, Isolation
from silo.testing import PATIENCE_S
from silo.testing.fakes import FakeRunner, make_skill, make_tool

pytestmark = pytest.mark.anyio

GUARDED = make_skill(make_tool(require_approval=True, properties={"text": {"type": "string"}}))
KEYED = make_skill(make_tool(require_approval=True, secrets=["KEY"], properties={"text": {"type": "string"}}))
PLAIN_KEYED = make_skill(make_tool(secrets=["KEY", "OTHER"]))
BASE = "http://127.0.0.1:1/q/"


class Page:
    """Gives out links; the test says whether a browser is paired, or shows the page."""

    def __init__(self, *, has_session=False, has_viewer=False):
        self.has_session, self.has_viewer, self.links, self.is_stopped = has_session, has_viewer, [], False

    def link(self, token):
        self.links.append(BASE + token)
        return self.links[-1]

    def stop(self):
        self.is_stopped = True


class Desktop:
    def __init__(self, *, has_browser):
        self.has_browser, self.opened, self.messages = has_browser, [], []

    def can_open(self):
        return self.has_browser

    def open(self, url):
        self.opened.append(url)
        return True

    def notify(self, title, body):
        self.messages.append(f"{title}\n{body}")
        return True

    def close(self):
        pass


class Person:
    """Reads the store and answers each waiting question, as the page would."""

    def __init__(self, it, *answers):
        self.it, self.answers, self.seen = it, list(answers), []

    async def __aenter__(self):
        self._group = await anyio.create_task_group().__aenter__()
        self._group.start_soon(self._look)
        return self

    async def __aexit__(self, *exc):
        self._group.cancel_scope.cancel()
        return await self._group.__aexit__(*exc)

    async def _look(self):
        while self.answers:
            if self.it.decisions is not None:
                for posted in self.it.decisions.waiting():
                    self.seen.append(posted.question)
                    answer = self.answers.pop(0)
                    assert self.it.decisions.decide(posted.id, posted.digest, answer, by="the page") == "decided"
            await anyio.sleep(0.01)


YES, NO = Answer(True, "approved on the page"), Answer(False, "not this one")
GRACE = Answer(True, "approved on the page", grace=True)


async def agent(it, text="x", *, patience_s=5.0, tool="demo.echo", caller=None, **fields):
    """Call as the MCP server does for a client that can't show links."""
    caller = caller or Caller("mcp", "test-client", session="s1")
    call = Call("call-1", tool, {"text": text} if text is not None else {}, caller, patience_s=patience_s, **fields)
    return await it.pipeline().run(call, it.progress)


@pytest.fixture
def asking(bench):
    def make(*skills, **fields):
        it = bench(*skills, page=fields.pop("page", Page()), **fields)
        it.runner = FakeRunner(notes=it.notes)
        it.told = []
        it.progress = lambda report: it.told.append(report.message)
        return it

    return make


async def test_a_call_that_a_person_approves_on_the_page_runs(asking):
    it = asking(GUARDED)
    async with Person(it, YES) as person:
        await agent(it)
    assert len(it.runner.requests) == 1
    assert [question.title for question in person.seen] == ["Run demo.echo"]
    assert any(it.page.links[0] in (message or "") for message in it.told), "whoever waits is told where"


async def test_a_yes_lets_one_call_run_and_no_second_one(asking):
    it = asking(GUARDED)
    async with Person(it, YES):
        await agent(it)
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0)
    assert len(it.runner.requests) == 1


async def test_a_grace_lets_the_same_call_run_again_and_no_other(asking):
    it = asking(GUARDED)
    async with Person(it, GRACE):
        await agent(it)
    await agent(it, patience_s=0)
    assert len(it.runner.requests) == 2
    with pytest.raises(ApprovalPending):
        await agent(it, "another text", patience_s=0)
    for other in (Caller("mcp", "another client", "s1"), Caller("mcp", "test-client", "s2"), Caller("mcp", "s1")):
        with pytest.raises(ApprovalPending):
            await agent(it, patience_s=0, caller=other)
    it.skills = [replace(GUARDED, digest="e" * 64)]
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0)
    assert len(it.runner.requests) == 2


async def test_a_weaker_isolation_asks_again(asking):
    it = asking(GUARDED)
    async with Person(it, GRACE):
        await agent(it)
    it.runner = FakeRunner(isolation=Isolation.NAMESPACE, notes=it.notes)
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0)
    assert it.runner.requests == []


async def test_an_agent_that_calls_again_finds_the_answer(asking):
    it = asking(GUARDED)
    with pytest.raises(ApprovalPending) as caught:
        await agent(it, patience_s=0)
    assert caught.value.link == it.page.links[0]
    assert caught.value.link in caught.value.hint
    (posted,) = it.decisions.waiting()
    assert caught.value.question == posted.id
    it.decisions.decide(posted.id, posted.digest, YES, by="the page")
    await agent(it, patience_s=0)
    assert len(it.runner.requests) == 1


async def test_calling_again_while_it_waits_asks_nobody_twice(asking):
    it = asking(GUARDED)
    for _ in range(3):
        with pytest.raises(ApprovalPending):
            await agent(it, patience_s=0)
    assert len(it.decisions.waiting()) == 1
    (task,) = summarize(read(it.folder))
    assert (task.calls, task.questions, task.unanswered) == (3, 1, 3)


async def test_two_calls_at_once_with_one_yes_run_once(asking):
    it = asking(GUARDED)
    outcomes = []

    async def one():
        try:
            await agent(it, patience_s=1.0)
            outcomes.append("ran")
        except ApprovalPending:
            outcomes.append("pending")

    async with Person(it, YES), anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(one)
    assert sorted(outcomes) == ["pending", "ran"]
    assert len(it.runner.requests) == 1


async def test_a_no_and_its_reason_reach_the_agent_and_stand_for_the_same_call(asking):
    it = asking(GUARDED)
    async with Person(it, NO):
        with pytest.raises(CallDenied, match="not this one") as caught:
            await agent(it)
    assert caught.value.code == "denied"
    with pytest.raises(CallDenied, match="not this one"):
        await agent(it, patience_s=0)
    assert it.decisions.waiting() == []
    assert it.runner.requests == []


async def test_a_person_who_said_no_at_the_terminal_and_runs_it_again_is_asked_again(asking):
    it = asking(GUARDED, answers=[NO, YES])
    me = Caller("cli", "me")
    with pytest.raises(CallDenied):
        await agent(it, patience_s=None, caller=me)
    it.answers = [YES]
    await agent(it, patience_s=None, caller=me)
    assert len(it.runner.requests) == 1


async def test_no_answer_in_time_is_a_no(asking):
    it = asking(GUARDED, timeout_s=0.2)
    with pytest.raises(ApprovalTimeout):
        await agent(it)
    assert it.runner.requests == []


async def test_headless_asks_nobody_and_fails_at_once(asking):
    it = asking(GUARDED, headless=True)
    with anyio.fail_after(PATIENCE_S), pytest.raises(ApprovalRequired, match="SILO_APPROVAL_REQUIRED"):
        await agent(it, patience_s=None)
    assert it.page.links == []
    it = asking(PLAIN_KEYED, headless=True)
    with pytest.raises(SecretMissing, match="SILO_AUTH_REQUIRED"):
        await agent(it, None, patience_s=None)


async def test_silo_that_stops_while_it_asks_means_no(asking):
    it = asking(GUARDED)
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0)
    (posted,) = it.decisions.waiting()
    await it.approvals().close()
    assert it.page.is_stopped
    from silo.approvals.store import Decisions

    later = Decisions(it.folder)
    assert later.get(posted.id).state == "withdrawn"
    assert later.decide(posted.id, posted.digest, YES, by="the page") == "gone"
    it.decisions = later
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0)
    assert it.runner.requests == []


async def test_a_yes_for_one_connection_of_a_client_is_no_yes_for_another_one(asking):
    """A past fault: whoever claims the same name used the approval up."""
    it = asking(GUARDED)
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0)
    (posted,) = it.decisions.waiting()
    it.decisions.decide(posted.id, posted.digest, YES, by="the page")
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0, caller=Caller("mcp", "test-client", session="s2"))
    assert it.runner.requests == []
    await agent(it, patience_s=0)
    assert len(it.runner.requests) == 1


@pytest.mark.parametrize("text", [" x", "x\n", "X", "x\u200b", "ｘ"])
@pytest.mark.parametrize("session", ["s1", "s2"])
async def test_who_was_refused_is_not_asked_about_again_with_another_blank_or_connection(asking, text, session):
    it = asking(GUARDED)
    async with Person(it, NO):
        with pytest.raises(CallDenied):
            await agent(it)
    with pytest.raises(CallDenied, match="not this one"):
        await agent(it, text, patience_s=0, caller=Caller("mcp", "test-client", session=session))
    assert it.decisions.waiting() == []
    for text, caller in (("y", "test-client"), ("x", "another client")):
        with pytest.raises(ApprovalPending):
            await agent(it, text, patience_s=0, caller=Caller("mcp", caller, session=session))
    assert it.runner.requests == []


async def test_variations_that_wait_already_are_refused_with_the_first_no(asking):
    it = asking(GUARDED)
    for text in ("x", " x", "x ", "x y"):
        with pytest.raises(ApprovalPending):
            await agent(it, text, patience_s=0)
    first = it.decisions.waiting()[0]
    it.decisions.decide(first.id, first.digest, NO, by="the page")
    (left,) = it.decisions.waiting()
    assert left.question.arguments == (("text", "x y"),)


async def test_a_yes_that_nobody_used_survives_a_restart(asking):
    from silo.approvals.store import Decisions

    it = asking(GUARDED)
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0)
    (posted,) = it.decisions.waiting()
    it.decisions.decide(posted.id, posted.digest, YES, by="the page")
    await it.approvals().close()
    it.decisions = Decisions(it.folder)
    await agent(it, patience_s=0)
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0)
    assert len(it.runner.requests) == 1


# --- channels ---------------------------------------------------------------------------------------------------------


async def test_the_terminal_comes_first_and_then_no_page_is_served(asking):
    it = asking(GUARDED, answers=[YES], desktop=Desktop(has_browser=True))
    await agent(it, patience_s=None, caller=Caller("cli", "me"))
    assert len(it.channel.asked) == 1
    assert it.page.links == []
    assert it.desktop.opened == []


async def test_the_user_sets_the_order_of_the_channels(asking):
    it = asking(GUARDED, answers=[YES], desktop=Desktop(has_browser=True), channels=("browser", "terminal"))
    async with Person(it, YES):
        await agent(it, patience_s=None, caller=Caller("cli", "me"))
    assert it.channel.asked == []
    assert it.desktop.opened == it.page.links


async def test_a_terminal_with_nobody_at_it_hands_on_to_the_browser(asking):
    it = asking(GUARDED, answers=[NobodyToAsk("x", hint="y")], desktop=Desktop(has_browser=True))
    async with Person(it, YES):
        await agent(it, patience_s=None)
    assert len(it.runner.requests) == 1


@pytest.mark.parametrize("channels", [(), ("terminal",), ("notification",), ("client",)])
async def test_without_any_channel_that_reaches_somebody_the_call_is_refused_at_once(asking, channels):
    it = asking(GUARDED, channels=channels, desktop=Desktop(has_browser=True))
    with anyio.fail_after(PATIENCE_S), pytest.raises(ApprovalRequired):
        await agent(it)
    assert it.decisions.waiting() == []


async def test_a_program_without_a_screen_and_without_an_agent_to_pass_the_link_on_has_nobody_to_ask(asking):
    it = asking(GUARDED, desktop=Desktop(has_browser=False))
    with anyio.fail_after(PATIENCE_S), pytest.raises(ApprovalRequired):
        await agent(it, patience_s=None, caller=Caller("library"))


async def test_a_client_that_shows_links_is_not_given_a_browser_as_well(asking):
    it = asking(GUARDED, desktop=Desktop(has_browser=True))
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0, shows_links=True)
    assert it.desktop.opened == []
    assert len(it.desktop.messages) == 1


async def test_a_browser_that_shows_the_page_already_is_not_opened_again(asking):
    it = asking(GUARDED, page=Page(has_session=True, has_viewer=True), desktop=Desktop(has_browser=True))
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0)
    assert it.desktop.opened == []


async def test_one_question_opens_one_tab_and_shows_one_message(asking):
    it = asking(GUARDED, desktop=Desktop(has_browser=True))
    for _ in range(3):
        with pytest.raises(ApprovalPending):
            await agent(it, patience_s=0)
    assert len(it.desktop.opened) == len(it.desktop.messages) == 1


async def test_thirty_calls_at_once_open_one_window_and_show_one_code(asking):
    it = asking(GUARDED, desktop=Desktop(has_browser=True))
    codes = []
    approvals = it.approvals(show_code=codes.append)
    pipeline = replace(it.pipeline(), approvals=approvals)

    async def one(number):
        caller = Caller("mcp", "test-client", session="s1")
        call = Call("c", "demo.echo", {"text": f"{number}"}, caller, patience_s=3.0)
        with pytest.raises(ApprovalPending):
            await pipeline.run(call)

    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(one, number)
    assert len(it.desktop.opened) == 1
    assert len(codes) == 1
    assert len(it.desktop.messages) < 30
    assert "30 questions wait for you" in it.desktop.messages[-1]
    assert all(codes[0] in message for message in it.desktop.messages)
    assert it.decisions.redeem(codes[0])
    await approvals.close()


async def test_a_pairing_code_goes_to_the_desktop_and_never_to_the_agent(asking):
    it = asking(GUARDED, desktop=Desktop(has_browser=False))
    with pytest.raises(ApprovalPending) as caught:
        await agent(it, patience_s=0.05)
    code = it.desktop.messages[0].partition("Pairing code: ")[2].partition("\n")[0]
    assert it.decisions.redeem(code)
    said = " ".join([str(caught.value), caught.value.hint, caught.value.link, *(text or "" for text in it.told)])
    assert code not in said
    it = asking(GUARDED, page=Page(has_session=True), desktop=Desktop(has_browser=False))
    with pytest.raises(ApprovalPending):
        await agent(it, "more", patience_s=0)
    assert "Pairing code" not in it.desktop.messages[0], "a browser is paired already"


async def test_ctrl_c_at_the_terminal_ends_the_call(asking):
    it = asking(GUARDED, answers=[Answer(False, "interrupted at the terminal", interrupted=True)])
    with pytest.raises(Interrupted):
        await agent(it, patience_s=None, caller=Caller("cli", "me"))
    assert it.runner.requests == []
    assert it.decisions.waiting() == []


async def test_an_answer_from_elsewhere_ends_the_question_at_the_terminal(asking):
    class Silent:
        async def ask(self, question, *, timeout_s):
            await anyio.sleep_forever()

    it = asking(GUARDED)
    it.channel = Silent()
    async with Person(it, YES):
        with anyio.fail_after(PATIENCE_S):
            await agent(it, patience_s=None, caller=Caller("cli", "me"))
    assert len(it.runner.requests) == 1


async def test_a_call_that_is_cancelled_leaves_no_question_behind(asking):
    it = asking(GUARDED, desktop=Desktop(has_browser=True))
    with anyio.move_on_after(0.3):
        await agent(it, patience_s=None)
    assert it.decisions.waiting() == []


# --- what the person sees ---------------------------------------------------------------------------------------------


async def test_a_person_sees_what_changed_since_the_last_yes(asking):
    it = asking(GUARDED)
    async with Person(it, YES, NO, NO) as person:
        await agent(it, "one")
        with pytest.raises(CallDenied):
            await agent(it, "two")
        it.skills = [replace(GUARDED, digest="e" * 64)]
        with pytest.raises(CallDenied):
            await agent(it, "one")
    first, second, third = person.seen
    assert first.changes == ()
    assert second.changes == ("The argument text is not what it was the last time.",)
    assert third.changes == ("The skill's script or its packages are not those of the last approval.",)


async def test_values_of_arguments_are_not_kept_after_the_decision(asking):
    it = asking(GUARDED)
    async with Person(it, YES):
        await agent(it, "a-value-that-is-private")
    await it.approvals().close()
    for path in it.folder.rglob("*"):
        if path.is_file():
            assert b"a-value-that-is-private" not in path.read_bytes(), path


# --- secrets ----------------------------------------------------------------------------------------------------------

GIVEN = Answer(True, "given on the page", value="s3cr3t-value")


async def test_a_missing_secret_is_asked_for_and_goes_to_the_call_alone(asking):
    kept = []
    it = asking(PLAIN_KEYED, secrets={"OTHER": "other-value"}, keep=lambda *what: kept.append(what))
    async with Person(it, GIVEN) as person:
        await agent(it, None)
    (request,) = it.runner.requests
    assert request.secrets == {"KEY": "s3cr3t-value", "OTHER": "other-value"}
    assert person.seen[0].wanted.name == "KEY"
    assert kept == []
    with pytest.raises(ApprovalPending):
        await agent(it, None, patience_s=0)  # the answer was for one call
    for path in it.folder.rglob("*"):
        assert not path.is_file() or b"s3cr3t-value" not in path.read_bytes()


async def test_a_secret_that_is_to_be_kept_is_stored_for_the_skill_that_wanted_it(asking):
    kept = []
    it = asking(PLAIN_KEYED, secrets={"OTHER": "x" * 8}, keep=lambda *what: kept.append(what))
    async with Person(it, Answer(True, "given", value="s3cr3t-value", keep=True)):
        await agent(it, None)
    assert kept == [("demo", "KEY", "s3cr3t-value")]


async def test_a_secret_that_is_mapped_elsewhere_is_not_offered_to_be_kept(asking):
    it = asking(PLAIN_KEYED, secrets={"OTHER": "x" * 8}, mapped={"KEY": "silo://NOT_THERE"}, keep=lambda *what: None)
    async with Person(it, GIVEN) as person:
        await agent(it, None)
    assert person.seen[0].wanted.keeper == ""


async def test_who_refuses_to_give_a_secret_is_not_asked_again_at_once(asking):
    it = asking(PLAIN_KEYED)
    async with Person(it, Answer(False, "not for this skill")):
        with pytest.raises(SecretMissing, match="not for this skill"):
            await agent(it, None)
    with pytest.raises(SecretMissing, match="not for this skill"):
        await agent(it, None, patience_s=0)
    assert it.runner.requests == []


async def test_a_yes_is_not_used_up_while_a_secret_is_still_missing(asking):
    it = asking(KEYED)
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0)
    (posted,) = it.decisions.waiting()
    it.decisions.decide(posted.id, posted.digest, YES, by="the page")
    with pytest.raises(ApprovalPending) as caught:
        await agent(it, patience_s=0)
    assert "KEY" in caught.value.title
    (posted,) = it.decisions.waiting()
    it.decisions.decide(posted.id, posted.digest, GIVEN, by="the page")
    await agent(it, patience_s=0)
    (request,) = it.runner.requests
    assert request.secrets == {"KEY": "s3cr3t-value"}
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0)


async def test_two_missing_secrets_given_in_two_calls_are_both_there_for_the_third(asking):
    it = asking(PLAIN_KEYED)
    pipeline = it.pipeline()
    call = Call("c", "demo.echo", {}, Caller("mcp", "test-client"), patience_s=0)
    for value in ("first-value", "second-value"):
        with pytest.raises(ApprovalPending):
            await pipeline.run(call)
        (posted,) = it.decisions.waiting()
        it.decisions.decide(posted.id, posted.digest, Answer(True, "given", value=value), by="the page")
    await pipeline.run(call)
    (request,) = it.runner.requests
    assert request.secrets == {"KEY": "first-value", "OTHER": "second-value"}


async def test_a_secret_is_asked_for_only_after_the_call_was_approved(asking):
    it = asking(KEYED)
    async with Person(it, NO) as person:
        with pytest.raises(CallDenied):
            await agent(it)
    assert [question.title for question in person.seen] == ["Run demo.echo"]
    assert not any(note.startswith("get") for note in it.notes), "nothing was looked up"


async def test_a_secret_that_was_typed_in_goes_to_the_call_that_was_shown_and_to_no_other(asking):
    """A past fault: the next call of that client got it, whatever its arguments."""
    it = asking(KEYED)

    async def ask(text, session, *answers):
        """Call, and answer the questions that come up; return what the last one showed."""
        for answer in answers:
            with pytest.raises(ApprovalPending) as caught:
                await agent(it, text, patience_s=0, caller=Caller("mcp", "test-client", session))
            posted = it.decisions.get(caught.value.question)
            it.decisions.decide(posted.id, posted.digest, answer, by="the page")
        return posted.question

    question = await ask("shown", "s1", YES, GIVEN)
    assert question.arguments == (("text", "shown"),), "a person sees what the secret is for"
    for text, session in (("another", "s1"), ("shown", "s2")):
        await ask(text, session, YES)
        with pytest.raises(ApprovalPending) as caught:
            await agent(it, text, patience_s=0, caller=Caller("mcp", "test-client", session))
        assert caught.value.title == "Type in KEY for demo", "it is asked for again"
    assert it.runner.requests == []
    await agent(it, "shown", patience_s=0)
    (request,) = it.runner.requests
    assert (request.arguments, request.secrets) == ({"text": "shown"}, {"KEY": "s3cr3t-value"})


def test_the_channels_of_the_configuration_are_those_that_are_tried():
    from silo.config.schema import ApprovalSection

    assert ApprovalSection().channels == CHANNELS


async def test_an_agent_cannot_flood_a_person_with_questions(asking):
    it = asking(GUARDED)
    for number in range(MOST_OF_ONE):
        with pytest.raises(ApprovalPending):
            await agent(it, f"{number}", patience_s=0)
    with pytest.raises(CallDenied, match="wait for a person already"):
        await agent(it, "more", patience_s=0)
    assert len(it.decisions.waiting()) == MOST_OF_ONE
    for other in (Caller("mcp", "test-client", "s2"), Caller("library", "", "s1"), Caller("cli", "me", "s3")):
        with pytest.raises(ApprovalPending):
            await agent(it, "more", patience_s=0, caller=other)


async def test_a_person_is_asked_at_the_terminal_whatever_else_waits(asking):
    it = asking(GUARDED)
    for number in range(MOST_OF_ONE * 4):
        with pytest.raises(ApprovalPending):
            await agent(it, f"{number}", patience_s=0, caller=Caller("mcp", "flood", f"{number % 4}"))
    it.answers = [YES]
    await agent(it, patience_s=None, caller=Caller("cli", "me", "s", "tty"))
    assert len(it.runner.requests) == 1


async def test_a_yes_to_another_call_in_between_does_not_take_the_question_down(asking):
    it = asking(GUARDED)
    with pytest.raises(ApprovalPending) as first:
        await agent(it, "one", patience_s=0)
    with pytest.raises(ApprovalPending):
        await agent(it, "two", patience_s=0)
    (_, posted) = it.decisions.waiting()
    it.decisions.decide(posted.id, posted.digest, YES, by="the page")
    with pytest.raises(ApprovalPending) as again:
        await agent(it, "one", patience_s=0)
    assert again.value.question == first.value.question


async def test_of_two_calls_that_both_saw_one_yes_only_one_runs(asking):
    """Both find the yes and get their secrets, and only then is it used up: the second call must ask again."""

    class BothAreHere:
        def __init__(self):
            self.count, self.event = 0, anyio.Event()

        async def __aenter__(self):
            self.count += 1
            if self.count == 2:
                self.event.set()
            with anyio.fail_after(PATIENCE_S):
                await self.event.wait()

        async def __aexit__(self, *exc):
            return None

    it = asking(GUARDED)
    with pytest.raises(ApprovalPending):
        await agent(it, patience_s=0)
    (posted,) = it.decisions.waiting()
    it.decisions.decide(posted.id, posted.digest, YES, by="the page")
    pipeline = replace(it.pipeline(), slots=BothAreHere())
    outcomes = []

    async def one():
        try:
            await pipeline.run(
                Call("c", "demo.echo", {"text": "x"}, Caller("mcp", "test-client", session="s1"), patience_s=0)
            )
            outcomes.append("ran")
        except ApprovalPending:
            outcomes.append("pending")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(one)
    assert sorted(outcomes) == ["pending", "ran"]
    assert len(it.runner.requests) == 1
