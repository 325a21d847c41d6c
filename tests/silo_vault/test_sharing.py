"""Something slow is asked once for all who wait, and a failure that took long is repeated for as long as it took."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from silo_vault.errors import AccessRefused, KeyUnreachable
from silo_vault.sharing import MAX_BACKOFF_S, SharedQuestions

PATIENCE_S = 300.0


class Slow:
    """Answers when it is told to, and counts how often it was asked."""

    def __init__(self):
        self.asked = 0
        self.is_asked, self.may_answer = threading.Event(), threading.Event()
        self.error = None

    def __call__(self):
        self.asked += 1
        self.is_asked.set()
        assert self.may_answer.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return object()


@pytest.fixture
def questions(clock):
    return SharedQuestions(clock)


def together(questions, slow, count):
    """Ask in several threads, the later ones while the first waits; return their answers or errors."""

    def ask():
        try:
            return questions.ask("key", slow)
        except Exception as error:
            return error

    with ThreadPoolExecutor(max_workers=count) as pool:
        first = pool.submit(ask)
        assert slow.is_asked.wait(PATIENCE_S)
        others = [pool.submit(ask) for _ in range(count - 1)]
        slow.may_answer.set()
        return [one.result(PATIENCE_S) for one in (first, *others)]


def test_those_who_wait_share_one_answer_and_it_is_not_kept(questions):
    slow = Slow()
    # Threads that come after the answer ask anew, so hold it back until all wait.
    answers = together(questions, slow, 8)
    assert len(set(map(id, answers))) == slow.asked <= 8
    before = slow.asked
    questions.ask("key", slow)
    assert slow.asked == before + 1


def test_those_who_wait_share_one_failure_each_with_an_error_of_its_own(questions, clock):
    slow = Slow()
    slow.error = KeyUnreachable("late", hint="wait")
    answers = together(questions, slow, 4)
    assert all(isinstance(one, KeyUnreachable) and (one.message, one.hint) == ("late", "wait") for one in answers)
    assert len(set(map(id, answers))) == 4


@pytest.mark.parametrize(("took_s", "repeated_s"), [(0.1, 0), (5, 5), (30, 30), (500, MAX_BACKOFF_S)])
def test_a_failure_is_repeated_for_as_long_as_it_took(questions, clock, took_s, repeated_s):
    asked = []

    def fail():
        asked.append(1)
        clock.ahead_s += took_s
        raise KeyUnreachable("late", hint="wait")

    for wait_s in (0, repeated_s * 0.9, repeated_s * 0.2):
        clock.ahead_s += wait_s
        with pytest.raises(KeyUnreachable):
            questions.ask("key", fail)
    assert len(asked) == (2 if repeated_s else 3)


def test_a_refusal_and_a_fault_are_never_repeated_from_memory(questions, clock):
    asked = []

    def fail():
        asked.append(1)
        clock.ahead_s += 10
        raise errors.pop()

    errors = [ZeroDivisionError(), AccessRefused("no", hint="")]
    with pytest.raises(AccessRefused):
        questions.ask("key", fail)
    with pytest.raises(ZeroDivisionError):
        questions.ask("key", fail)
    assert questions.ask("key", lambda: 7) == 7


def test_after_forgetting_it_is_asked_at_once(questions, clock):
    def fail():
        clock.ahead_s += 10
        raise KeyUnreachable("late", hint="wait")

    with pytest.raises(KeyUnreachable):
        questions.ask("key", fail)
    with pytest.raises(KeyUnreachable):
        questions.ask("key", lambda: 7)
    assert questions.ask("other", lambda: 7) == 7
    questions.forget()
    assert questions.ask("key", lambda: 7) == 7


def test_ctrl_c_in_the_thread_that_asks_is_no_answer_for_the_others(questions):
    started, go_on = threading.Event(), threading.Event()

    def interrupted():
        started.set()
        assert go_on.wait(PATIENCE_S)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(max_workers=2) as pool:
        first = pool.submit(questions.ask, "key", interrupted)
        assert started.wait(PATIENCE_S)
        second = pool.submit(questions.ask, "key", lambda: 7)
        go_on.set()
        with pytest.raises(KeyboardInterrupt):
            first.result(PATIENCE_S)
        assert second.result(PATIENCE_S) == 7
