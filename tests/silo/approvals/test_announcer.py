"""One window, one notification, one code: however many questions a client asks at once, or meanwhile."""

from __future__ import annotations

import threading

import pytest
from silo_interaction import Answer, Question

from silo.approvals.announcer import WINDOW_PAUSE_S, WINDOW_PAUSE_UNPAIRED_S, Announcer
from silo.approvals.store import Decisions
from silo.testing import PATIENCE_S

BASE = "http://127.0.0.1:1"


class Page:
    def __init__(self):
        self.has_session = self.has_viewer = False

    def link(self, token):
        return f"{BASE}/q/{token}"

    def stop(self):
        pass


class Desktop:
    """Notes what it shows; `shown` is what stands on the screen."""

    def __init__(self):
        self.opened, self.messages, self.shown = [], [], None

    def can_open(self):
        return True

    def open(self, url):
        self.opened.append(url)
        return True

    def notify(self, title, body):
        self.messages.append((title, body))
        self.shown = (title, body)
        return True

    def close(self):
        self.shown = None


@pytest.fixture
def it(tmp_path):
    class It:
        decisions, page, desktop, codes, now = Decisions(tmp_path), Page(), Desktop(), [], 1000.0

        def make(self, **fields):
            given = {"notifies": True, "show_code": self.codes.append, "clock": lambda: self.now, "pause_s": 1000}
            self.announcer = Announcer(self.decisions, self.page, self.desktop, **(given | fields))
            return self.announcer

        def ask(self, number=1, title="Run demo.echo", who="an agent", *, opens=True):
            for _ in range(number):
                key = f"{len(self.decisions.asked_here())} {title} {self.now}"
                posted, token, _ = self.decisions.post(
                    key, Question(title, who), subject="s", principal=who, stands_s=600, profile={}
                )
                self.announcer.announce(posted, token, opens=opens)
            return posted

        def code(self):
            return self.desktop.messages[-1][1].partition("Pairing code: ")[2].partition("\n")[0]

    it = It()
    yield it
    it.announcer.close()
    it.decisions.close()


def test_thirty_questions_at_once_open_one_window_and_show_one_message_with_their_number(it):
    timers = []

    class Timer(threading.Timer):
        def start(self):
            timers.append(self)

    it.make(timer=Timer)
    it.ask(30)
    (timer,) = timers
    timer.function()
    assert len(it.desktop.opened) == 1
    assert len(it.desktop.messages) == 2
    (first, _), (last, body) = it.desktop.messages[0], it.desktop.messages[-1]
    assert (first, last) == ("Run demo.echo", "30 questions wait for you")
    assert body.endswith(f"Answer at {BASE}/\n30 × Run demo.echo, asked by an agent")
    assert len({body.partition("\n")[0] for _, body in it.desktop.messages}) == len(it.codes) == 1
    assert it.decisions.redeem(it.codes[0])


def test_the_code_stays_the_same_and_good_while_more_questions_come(it):
    """A past fault: each question made a code, and of five the oldest became void while a person typed it."""
    it.make(pause_s=0)
    it.ask()
    code = it.code()
    for _ in range(40):
        it.now += 1
        it.ask()
    assert it.code() == code
    assert it.codes == [code]
    assert it.decisions.redeem(code)


def test_a_code_that_was_used_or_is_void_is_replaced(it):
    it.make(pause_s=0)
    it.ask()
    first = it.code()
    assert it.decisions.redeem(first)  # at the page of another process, which does not pair a browser with this one
    it.ask()
    assert it.code() != first
    assert it.decisions.redeem(it.code())
    it.page.has_session = True
    it.ask()
    assert "Pairing code" not in it.desktop.messages[-1][1]
    assert len(it.codes) == 2


def test_codes_of_other_processes_do_not_void_the_one_that_a_person_types(it, tmp_path):
    it.make(pause_s=0)
    it.ask()
    for _ in range(30):
        other = Decisions(tmp_path)
        other.new_code()
        other.close()
    assert it.decisions.redeem(it.code())


def test_the_message_says_what_the_questions_are_and_nothing_of_their_arguments(it):
    it.make(pause_s=0)
    for number, title in ((3, "Run a.b"), (2, "Run c.d"), (1, "Run e.f"), (1, "Run g.h"), (1, "Run i.j")):
        it.ask(number, title)
    title, body = it.desktop.shown
    assert title == "8 questions wait for you"
    assert body.splitlines()[1:] == [
        f"Answer at {BASE}/",
        "3 × Run a.b, asked by an agent",
        "2 × Run c.d, asked by an agent",
        "1 × Run e.f, asked by an agent",
        "and 2 others",
    ]


def test_the_message_goes_when_nothing_waits_any_more(it):
    it.make(pause_s=0)
    posted = [it.ask(), it.ask()]
    for one in posted:
        assert it.desktop.shown is not None
        it.decisions.decide(one.id, one.digest, Answer(False, "no"), by="the page")
        it.announcer.settle()
    assert it.desktop.shown is None
    it.ask()
    assert it.desktop.shown[0] == "Run demo.echo"


def test_the_next_window_comes_after_a_while_and_only_if_none_shows_the_page(it):
    it.make()
    it.ask()
    assert len(it.desktop.opened) == 1
    it.now += WINDOW_PAUSE_UNPAIRED_S - 1
    it.ask()
    assert len(it.desktop.opened) == 1, "somebody may still be typing the code"
    it.page.has_session = True
    it.ask()
    assert len(it.desktop.opened) == 2
    it.now += WINDOW_PAUSE_S
    it.page.has_viewer = True
    it.ask()
    assert len(it.desktop.opened) == 2
    it.page.has_viewer = False
    it.ask(opens=False)
    assert len(it.desktop.opened) == 2
    it.ask()
    assert len(it.desktop.opened) == 3


def test_a_channel_that_is_switched_off_is_not_used_and_makes_no_code(it):
    it.make(notifies=False, show_code=None)
    it.ask(3)
    assert it.desktop.messages == []
    assert it.decisions.renew_code("0000-0000") is False
    assert it.codes == []


def test_a_message_that_was_put_off_does_not_come_after_the_end(it):
    it.make(pause_s=0.05, clock=lambda: 0.0)
    it.ask(2)
    it.announcer.close()
    before = len(it.desktop.messages)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(PATIENCE_S)
    assert len(it.desktop.messages) == before <= 2
    assert it.desktop.shown is None
