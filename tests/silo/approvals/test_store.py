"""The store of questions and decisions: what counts as a yes, how long, for whom, and what stays in the file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from silo_interaction import Answer, Question, WantedSecret

from silo.approvals.state_file import StateFile
from silo.approvals.store import ALWAYS_ASKED, MAX_QUESTION_BYTES, MOST_OF_ONE, MOST_WAITING, Decisions
from silo.approvals.store_schema import SCHEMA, SCHEMA_VERSION
from silo.errors import CallDenied, StateUnusable, UsageError

YES, NO, GRACE = Answer(True, "yes"), Answer(False, "not now"), Answer(True, "yes", grace=True)
MARK = "a-value-that-must-not-stay"
STANDS_S, GRACE_S = 60, 300


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def open_store(tmp_path, clock):
    """Opens another store on the same folder, as another process would."""
    stores = []

    def open_another():
        stores.append(Decisions(tmp_path, now=clock))
        return stores[-1]

    yield open_another
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


def put_up(store, key="a", question=None, **fields):
    given = {"subject": "github.close_issue", "principal": "mcp:test", "stands_s": STANDS_S, "profile": {}} | fields
    question = question or Question("Close it", "test", arguments=(("number", 7),), grace_s=GRACE_S)
    return store.post(key, question, **given)[0]


def decide(store, posted, answer=YES):
    return store.decide(posted.id, posted.digest, answer, by="the test")


def agree(store, key="a", answer=YES, **fields):
    posted = put_up(store, key, **fields)
    assert decide(store, posted, answer) == "decided"
    return posted


def crash(folder):
    """As if the processes that ask had been killed: their locks are gone, and they wrote nothing."""
    for path in (folder / "run").iterdir():
        path.unlink()


# --- a yes ------------------------------------------------------------------------------------------------------------


def test_nothing_is_usable_before_a_person_said_yes(store):
    posted = put_up(store)
    assert (store.standing("a"), store.use("a"), store.refusal("a")) == (None, None, None)
    decide(store, posted, NO)
    assert (store.standing("a"), store.use("a")) == (None, None)


def test_a_yes_lets_one_call_of_its_key_through(store, open_store):
    posted = agree(store)
    assert store.use("b") is None
    other = open_store()
    assert store.standing("a").id == other.standing("a").id == posted.id
    used = other.use("a")
    assert (used.id, used.state, used.reason) == (posted.id, "approved", "yes")
    assert (store.standing("a"), store.use("a"), other.use("a")) == (None, None, None)


def test_a_grace_lets_calls_through_until_it_is_over(store, clock):
    agree(store, answer=GRACE)
    clock.now += GRACE_S - 1
    assert store.use("a").grace
    assert store.use("a").grace
    assert store.all()[0].uses == 2
    clock.now += 1
    assert store.use("a") is None


def test_a_yes_without_grace_is_used_up_even_where_a_grace_was_offered(store):
    agree(store, answer=YES)
    assert store.use("a") is not None
    assert store.use("a") is None


def test_a_grace_is_used_before_a_yes_that_counts_once(store, open_store):
    agree(store)
    agree(open_store(), answer=GRACE)
    assert [store.use("a").grace for _ in range(3)] == [True, True, True]


def test_a_yes_that_nobody_uses_ends_as_long_after_the_decision_as_the_question_would_have_stood(store, clock):
    posted = put_up(store)
    clock.now += STANDS_S - 1
    decide(store, posted)
    clock.now += STANDS_S - 1
    assert store.standing("a") is not None
    clock.now += 1
    assert (store.standing("a"), store.use("a")) == (None, None)


def test_a_decision_survives_a_restart_and_the_question_does_not(store, open_store):
    agree(store, "a")
    waiting = put_up(store, "b")
    store.close()
    again = open_store()
    assert (again.get(waiting.id).state, again.get(waiting.id).reason) == ("withdrawn", "silo stopped")
    assert decide(again, waiting) == "gone"
    assert again.use("b") is None
    assert again.use("a") is not None


def test_a_closed_store_says_that_silo_stops(store):
    agree(store)
    store.close()
    store.close()
    for attempt in (lambda: store.use("a"), lambda: put_up(store), store.waiting, store.version):
        with pytest.raises(StateUnusable, match="stopping"):
            attempt()


# --- deciding ---------------------------------------------------------------------------------------------------------


def test_what_was_shown_must_be_what_will_happen(store):
    posted = put_up(store)
    for digest in ("0" * 64, "", "\ud800", "ä", posted.digest.upper()):
        assert store.decide(posted.id, digest, YES, by="test") == "changed"
    assert store.get(posted.id).state == "waiting"
    assert store.use("a") is None


def test_the_first_decision_counts(store, open_store):
    posted = put_up(store)
    assert decide(open_store(), posted, NO) == "decided"
    assert decide(store, posted, YES) == "gone"
    assert store.use("a") is None


@pytest.mark.parametrize("question_id", ["", "0" * 16, "0" * 15, "%", "*" * 16, "\ud800", "a\0"])
def test_an_id_of_no_question_leads_nowhere(store, question_id):
    posted = put_up(store)
    assert store.decide(question_id, posted.digest, YES, by="test") == "gone"
    assert store.get(question_id) is None
    assert store.revoke(question_id) is False
    store.withdraw(question_id, "test")
    assert store.get(posted.id).state == "waiting"


def test_a_question_whose_time_is_over_is_a_no(store, clock):
    posted = put_up(store)
    clock.now += STANDS_S
    assert decide(store, posted) == "gone"
    assert (store.get(posted.id).state, store.get(posted.id).reason) == ("expired", "nobody answered in time")
    assert (store.waiting(), store.use("a")) == ([], None)
    clock.now -= STANDS_S  # setting the clock back restores nothing
    assert decide(store, posted) == "gone"


def test_a_question_of_a_process_that_is_gone_is_a_no(store, open_store, tmp_path):
    posted = put_up(store)
    other = open_store()
    crash(tmp_path)
    assert decide(other, posted) == "gone"
    assert other.get(posted.id).state == "withdrawn"
    assert (other.waiting(), other.use("a")) == ([], None)


def test_a_clock_that_is_set_back_ends_what_waits_and_what_was_agreed_to(store, clock):
    posted = put_up(store, "a")
    agree(store, "b", GRACE)
    clock.now -= 1
    assert decide(store, posted) == "gone"
    assert (store.get(posted.id).state, store.get(posted.id).reason) == ("expired", "the clock was set back")
    assert store.use("b") is None
    clock.now += 1
    assert store.use("b") is None


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (Question("q", "w"), GRACE),
        (Question("q", "w", grace_s=5), Answer(False, "no", grace=True)),
        (Question("q", "w"), Answer(True, "yes", value="x")),
        (Question("q", "w"), Answer(True, "yes", keep=True)),
        (Question("q", "w", wanted=WantedSecret("K")), YES),
        (Question("q", "w", wanted=WantedSecret("K")), Answer(True, "yes", value="")),
        (Question("q", "w", wanted=WantedSecret("K")), Answer(False, "no", value="x")),
        (Question("q", "w", wanted=WantedSecret("K")), Answer(True, "yes", value="x", keep=True)),
        (Question("q", "w", wanted=WantedSecret("K", keeper="the vault")), Answer(False, "no", keep=True)),
    ],
)
def test_an_answer_to_another_question_decides_nothing(store, question, answer):
    posted = put_up(store, question=question)
    with pytest.raises(ValueError):
        decide(store, posted, answer)
    assert store.get(posted.id).state == "waiting"
    assert (store.use("a"), store.take_secret("a")) == (None, None)


def test_a_refusal_counts_until_the_question_would_have_ended(store, open_store, clock):
    posted = agree(store, answer=NO, refusal="a")
    clock.now += STANDS_S - 1
    refused = open_store().refusal("a")
    assert (refused.id, refused.state, refused.reason) == (posted.id, "denied", "not now")
    assert store.refusal("b") is None
    clock.now += 1
    assert store.refusal("a") is None


def test_an_answer_without_words_says_through_what_it_came(store):
    posted = agree(store, answer=Answer(False, ""))
    assert store.get(posted.id).reason == "denied through the test"
    assert store.find(posted.id).by == "the test"


def test_the_last_word_on_a_key_counts(store, open_store):
    first, second = (put_up(open_store(), refusal="r") for _ in range(2))
    decide(store, first, GRACE)
    decide(store, second, NO)
    assert store.use("a") is None, "a no takes back what was agreed to"
    assert store.refusal("r").id == second.id
    third = agree(open_store(), refusal="r")
    assert store.refusal("r") is None
    assert store.use("a").id == third.id


def test_a_no_answers_all_waiting_questions_that_it_covers_and_no_others(store, open_store, clock):
    """An agent may put a call up in ten spellings before a person sees the first."""
    here, there = (put_up(one, key, refusal="r") for one, key in ((store, "a"), (open_store(), "b")))
    other, bare, wordless = (put_up(store, key, refusal=refusal) for key, refusal in (("c", "s"), ("d", ""), ("e", "")))
    decide(store, here, NO)
    assert [posted.id for posted in store.waiting()] == [other.id, bare.id, wordless.id]
    assert (store.get(there.id).state, store.get(there.id).reason) == ("denied", "not now")
    assert store.find(there.id).by == "the test"
    assert decide(store, there) == "gone"
    assert store.use("b") is None
    decide(store, bare, NO)
    assert store.refusal("") is None
    assert store.get(wordless.id).state == "waiting", "a no that covers nothing else leaves the others alone"


def test_a_yes_is_for_one_key_whatever_a_no_would_have_covered(store):
    agree(store, "a", GRACE, refusal="r")
    waiting = put_up(store, "b", refusal="r")
    assert store.use("b") is None
    assert store.get(waiting.id).state == "waiting"


# --- too many questions -----------------------------------------------------------------------------------------------


def fill(store, number, principal, **fields):
    for each in range(number):
        put_up(store, f"{principal} {each}", principal=principal, **fields)


def test_one_asker_with_all_its_questions_keeps_nobody_else_from_being_asked_about(store, open_store):
    fill(store, MOST_OF_ONE, "mcp:flood")
    with pytest.raises(CallDenied, match=f"{MOST_OF_ONE} questions of this client wait"):
        put_up(store, "more", principal="mcp:flood")
    put_up(store, "mcp:flood 0", principal="mcp:flood")  # one that waits already is joined, not counted again
    put_up(open_store(), "x", principal="mcp:other")
    put_up(open_store(), "y", principal="cli:me", is_person=True)
    decide(store, store.waiting()[0])
    put_up(store, "more", principal="mcp:flood")


def test_a_full_page_still_takes_a_few_of_each_asker_and_all_of_a_person(store):
    for number in range(MOST_WAITING // MOST_OF_ONE):
        fill(store, MOST_OF_ONE, f"mcp:flood {number}")
    fill(store, ALWAYS_ASKED, "mcp:other")
    with pytest.raises(CallDenied, match="wait for a person already"):
        put_up(store, "more", principal="mcp:other")
    fill(store, MOST_OF_ONE, "cli:me", is_person=True)
    fill(store, ALWAYS_ASKED, "mcp:yet another")


def test_the_askers_are_told_apart_by_more_than_their_name(store):
    fill(store, MOST_OF_ONE, "mcp:test", asker="session 1")
    put_up(store, "x", principal="mcp:test", asker="session 2")
    with pytest.raises(CallDenied):
        put_up(store, "y", principal="mcp:test", asker="session 1")


def test_even_many_askers_together_put_up_so_many_and_no_more(store, monkeypatch):
    monkeypatch.setattr("silo.approvals.store.MOST_WAITING", 6)
    monkeypatch.setattr("silo.approvals.store.MOST_EVER", 9)
    for number in range(9):
        put_up(store, f"{number}", principal=f"mcp:{number}")
    with pytest.raises(CallDenied, match="9 questions wait"):
        put_up(store, "one more", principal="mcp:new")
    put_up(store, "mine", principal="cli:me", is_person=True)


def test_what_was_agreed_to_last_is_remembered_for_each_tool_and_client(store, open_store, clock):
    assert store.last_agreed("t", "p") is None
    agree(store, "a", subject="t", principal="p", profile={"script": "1"})
    clock.now += 1
    agree(store, "b", subject="t", principal="p", profile={"script": "2"})
    agree(store, "c", NO, subject="t", principal="p", profile={"script": "3"})
    put_up(store, "d", subject="t", principal="p", profile={"script": "4"})
    revoked = agree(store, "e", subject="t", principal="p", profile={"script": "5"})
    store.revoke(revoked.id)
    assert open_store().last_agreed("t", "p") == {"script": "2"}
    assert store.last_agreed("t", "q") is store.last_agreed("u", "p") is None


# --- putting questions up ---------------------------------------------------------------------------------------------


def test_the_very_same_question_is_joined_by_those_who_ask_it_too(store, open_store):
    question = Question("q", "w")
    fields = {"subject": "s", "principal": "p", "stands_s": STANDS_S, "profile": {}}
    first, token, is_new = store.post("a", question, **fields)
    assert is_new
    assert store.post("a", question, **fields) == (first, token, False)
    other, _, is_new = open_store().post("a", question, **fields)
    assert is_new, "another process has a question of its own, which ends with it"
    assert other.id != first.id
    decide(store, first)
    assert store.post("a", question, **fields)[0].id not in (first.id, other.id)


def test_a_question_about_something_else_takes_the_place_of_the_one_with_its_key(store):
    old = put_up(store, "a", Question("q", "w", facts=(("isolation", "microvm"),)))
    new = put_up(store, "a", Question("q", "w", facts=(("isolation", "namespace"),)))
    assert [posted.id for posted in store.waiting()] == [new.id]
    assert decide(store, old) == "gone"
    assert store.use("a") is None


def test_a_question_that_is_withdrawn_can_not_be_answered_and_a_decided_one_stays(store):
    posted, decided = put_up(store, "a"), agree(store, "b")
    store.withdraw(posted.id, "the call was ended")
    store.withdraw(decided.id, "the call was ended")
    assert decide(store, posted) == "gone"
    assert store.get(posted.id).reason == "the call was ended"
    assert store.use("b") is not None


@pytest.mark.parametrize("stands_s", [0, -1, float("nan"), float("inf")])
def test_a_question_must_stand_for_some_time_and_not_for_ever(store, stands_s):
    with pytest.raises(ValueError):
        put_up(store, stands_s=stands_s)


def test_a_question_that_is_too_long_or_not_json_is_an_error(store):
    for value in ("x" * MAX_QUESTION_BYTES, float("nan"), object()):
        with pytest.raises((ValueError, TypeError)):
            put_up(store, question=Question("q", "w", arguments=(("x", value),)))
    posted = put_up(store, question=Question("q", "w", arguments=(("x", "x" * (MAX_QUESTION_BYTES - 1000)),)))
    assert store.get(posted.id) == posted


_names = st.text(st.characters(exclude_categories=()), max_size=8)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=6,
)
_questions = st.builds(
    Question,
    title=_names,
    who=_names,
    facts=st.lists(st.tuples(_names, _names), max_size=3).map(tuple),
    danger=_names,
    arguments=st.lists(st.tuples(_names, _json), max_size=3).map(tuple),
    changes=st.lists(_names, max_size=2).map(tuple),
    grace_s=st.integers(0, 1000),
    group=_names,
    wanted=st.none() | st.builds(WantedSecret, _names, _names, _names),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(question=_questions, words=_names, key=st.uuids().map(lambda uuid: uuid.hex))
def test_any_text_of_a_stranger_is_kept_as_it_is(store, question, words, key):
    posted = put_up(store, key, question, subject=words, principal=words, profile={words: words})
    assert store.get(posted.id) == posted
    assert posted.digest == store.get(posted.id).question.digest()
    value = "x" if question.wanted else None
    decide(store, posted, Answer(True, words, value=value))
    entry = store.find(posted.id)
    assert (entry.subject, entry.principal) == (words, words)
    wanted = WantedSecret(question.wanted.name) if question.wanted else None
    assert entry.posted.question == Question(question.title, question.who, wanted=wanted)
    assert entry.posted.reason == (words or "approved through the test")
    if question.wanted is None:
        assert store.last_agreed(words, words) == {words: words}


# --- what is left behind ----------------------------------------------------------------------------------------------


def traces(folder):
    return [path.name for path in folder.rglob("*") if path.is_file() and MARK.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "how", ["approved", "denied", "expired", "withdrawn", "crashed", "closed", "revoked", "replaced"]
)
def test_values_of_arguments_are_kept_only_as_long_as_the_question_waits(store, open_store, clock, tmp_path, how):
    question = Question("q", "w", facts=(("does", MARK),), arguments=(("x", MARK * 1000),), changes=(MARK,))
    posted = put_up(store, question=question)
    other = open_store()
    assert traces(tmp_path) == ["state.db"]
    if how in ("approved", "denied"):
        decide(other, posted, YES if how == "approved" else NO)
    elif how == "expired":
        clock.now += STANDS_S
        other.version()  # the next transaction of any process
    elif how == "withdrawn":
        other.withdraw(posted.id, "test")
    elif how == "crashed":
        crash(tmp_path)
        other.version()
    elif how == "closed":
        store.close()
    elif how == "revoked":
        assert other.revoke(posted.id)
    else:
        put_up(store, question=Question("q", "other"))
    assert traces(tmp_path) == []
    left = other.get(posted.id)
    assert left.question == Question("q", "w")
    assert left.digest == posted.digest


def test_a_week_later_nothing_is_known_of_it(store, clock):
    agree(store, "a")
    denied = agree(store, "b", NO)
    clock.now += 7 * 24 * 3600 + 1
    assert store.all(standing=False) == []
    assert store.get(denied.id) is None


def test_nothing_is_written_before_somebody_is_asked(store, tmp_path):
    assert store.use("a") is store.standing("a") is store.refusal("a") is store.last_agreed("s", "p") is None
    assert store.follow("x", "s") is store.get("0" * 16) is store.take_secret("a") is None
    assert not store.redeem("ABCD-EFGH")
    assert store.revoke("0" * 16) is False
    store.withdraw("0" * 16, "test")
    assert store.all() == store.waiting() == []
    assert store.version() == store.version()
    store.close()
    assert list(tmp_path.iterdir()) == []


# --- a secret that is typed in ----------------------------------------------------------------------------------------

WANTED = Question("Type it in", "test", wanted=WantedSecret("TOKEN", keeper="the vault"))


def test_a_secret_that_is_typed_in_is_handed_over_once_and_never_written(store, tmp_path):
    posted = agree(store, question=WANTED, answer=Answer(True, "given", value=MARK, keep=True))
    assert traces(tmp_path) == []
    assert MARK not in repr(vars(store))
    assert (store.use("a"), store.standing("a"), store.take_secret("b")) == (None, None, None)
    answer = store.take_secret("a")
    assert (answer.value, answer.keep) == (MARK, True)
    assert store.take_secret("a") is None
    assert store.find(posted.id).uses == 1


def test_a_secret_can_be_typed_in_only_where_it_is_wanted(store, open_store):
    posted = put_up(store, question=WANTED)
    other = open_store()
    put_up(other, "b")
    assert posted.id not in [found.id for found in other.waiting()]
    assert decide(other, posted, Answer(True, "given", value=MARK)) == "gone"
    assert decide(other, posted, NO) == "gone"
    assert next((entry.posted.id, entry.here) for entry in other.all()) == (posted.id, False)
    assert posted.id in [found.id for found in store.waiting()]


def test_a_secret_is_forgotten_when_its_question_would_have_ended(store, clock):
    agree(store, question=WANTED, answer=Answer(True, "given", value=MARK))
    clock.now += STANDS_S
    store.version()
    assert store.take_secret("a") is None
    clock.now -= STANDS_S
    assert store.take_secret("a") is None


def test_a_secret_that_was_taken_back_elsewhere_is_not_handed_over(store, open_store):
    posted = agree(store, question=WANTED, answer=Answer(True, "given", value=MARK))
    assert open_store().revoke(posted.id)
    assert store.take_secret("a") is None


# --- links and codes --------------------------------------------------------------------------------------------------


def test_a_link_leads_to_its_question_for_the_first_session_only(store, open_store):
    posted, token, _ = store.post("a", Question("q", "w"), subject="s", principal="p", stands_s=60, profile={})
    other = open_store()
    assert other.follow(token[:-1], "one") is None
    assert other.follow(token, "one").id == posted.id
    assert store.follow(token, "two") is None
    assert store.follow(token, "one").id == posted.id
    decide(store, posted)
    assert store.follow(token, "two") is None
    assert store.follow(token, "one").state == "approved"


def test_a_link_is_dead_once_its_question_is_decided(store):
    posted, token, _ = store.post("a", Question("q", "w"), subject="s", principal="p", stands_s=60, profile={})
    decide(store, posted)
    assert store.follow(token, "late") is None
    assert store.follow("\ud800", "\ud800") is None


def test_neither_link_nor_code_is_stored(store, tmp_path):
    _, token, _ = store.post("a", Question("q", "w"), subject="s", principal="p", stands_s=60, profile={})
    code = store.new_code()
    stored = (tmp_path / "state.db").read_bytes()
    for text in (token, code, code.replace("-", "")):
        assert text.encode() not in stored
    assert len(token) >= 32  # 192 bits


def test_a_code_pairs_once_in_any_spelling_that_crockford_reads(store, open_store):
    other = open_store()
    code = store.new_code()
    typed = code.lower().replace("0", "o").replace("1", "l").replace("-", " ")
    assert other.redeem(typed)
    assert not other.redeem(code)
    assert not store.redeem(code)


def test_a_code_is_valid_for_five_minutes(store, clock):
    code, later = store.new_code(), store.new_code()
    clock.now += 299
    assert store.redeem(code)
    clock.now += 1
    assert not store.redeem(later)


def test_of_more_than_sixty_four_codes_the_oldest_go(store):
    codes = [store.new_code() for _ in range(65)]
    assert [store.redeem(code) for code in codes] == [False] + [True] * 64


def test_a_code_that_is_shown_again_is_good_for_another_five_minutes(store, open_store, clock):
    code = store.new_code()
    for _ in range(5):
        clock.now += 299
        assert store.renew_code(code)
    clock.now += 299
    assert open_store().redeem(code)
    assert not store.renew_code(code), "it was used"
    late = store.new_code()
    clock.now += 300
    assert not store.renew_code(late)
    assert not store.redeem(late)
    assert not store.renew_code("")


def test_ten_wrong_codes_make_all_codes_void(store, open_store, clock):
    code = store.new_code()
    assert not any(store.redeem(f"0000-000{digit}") for digit in range(9))
    assert open_store().redeem(code), "nine are none too many"
    code = store.new_code()
    assert not store.redeem("wrong")
    assert not store.redeem(code)
    code = store.new_code()
    clock.now -= 1  # setting the clock back does not start a new count
    code = store.new_code()
    assert not store.redeem("")
    assert not store.redeem(code)
    clock.now += 602
    code = store.new_code()
    assert not store.redeem("\ud800" * 100)
    assert store.redeem(code)


def test_the_sealing_key_is_one_for_all_and_stays(store, open_store):
    key = store.sealing_key()
    assert len(key) == 32
    assert open_store().sealing_key() == key
    store.close()
    assert open_store().sealing_key() == key


# --- looking ----------------------------------------------------------------------------------------------------------


def test_the_version_changes_with_everything_that_changes_and_with_nothing_else(store, open_store, clock, tmp_path):
    other = open_store()
    posted, token, _ = other.post("a", Question("q", "w"), subject="s", principal="p", stands_s=60, profile={})
    last = put_up(other, "b")
    seen = {store.version()}

    def is_new():
        version = store.version()
        assert store.version() == version
        known = version in seen
        seen.add(version)
        return not known

    for change in (
        lambda: other.follow(token, "one"),
        lambda: decide(other, posted),
        lambda: store.use("a"),
        lambda: store.withdraw(last.id, "test"),
        lambda: put_up(store, "c"),
        lambda: setattr(clock, "now", clock.now + STANDS_S),
        lambda: put_up(other, "d"),
        lambda: crash(tmp_path),
    ):
        assert not is_new()
        change()
        assert is_new()


def test_the_list_shows_what_waits_and_what_stands(store, open_store, clock):
    waits = put_up(store, "a" * 64)
    clock.now += 1
    stands = agree(store, "b" * 64, answer=GRACE)
    clock.now += 1
    agree(store, "c")
    store.use("c")
    refused = agree(store, "d", NO)
    entries = open_store().all()
    assert [entry.posted.id for entry in entries] == [waits.id, stands.id, refused.id]
    assert [entry.here for entry in entries] == [True, False, False]
    assert entries[1].key == "b" * 12
    assert entries[1].until == clock.now - 1 + GRACE_S
    assert len(store.all(standing=False)) == 4


def test_a_question_is_found_by_the_beginning_of_its_id(store):
    posted = put_up(store)
    for prefix in (posted.id, posted.id[:4], posted.id[:8].upper()):
        assert store.find(prefix).posted.id == posted.id
    for prefix in ("", posted.id[:3], "*" * 4, "????", posted.id + "0", "\ud800abcd"):
        with pytest.raises(UsageError, match="isn't the id"):
            store.find(prefix)
    absent = "0000" if not posted.id.startswith("0000") else "1111"
    with pytest.raises(UsageError, match="there is no question"):
        store.find(absent)


def test_what_was_agreed_to_can_be_taken_back(store, open_store):
    posted, waiting, used = agree(store, "a", answer=GRACE), put_up(store, "b"), agree(store, "c")
    store.use("c")
    other = open_store()
    assert [other.revoke(item.id) for item in (posted, waiting, used)] == [True, True, False]
    assert not other.revoke(posted.id)
    assert (store.use("a"), store.standing("a")) == (None, None)
    assert decide(store, waiting) == "gone"
    assert (store.get(posted.id).state, store.get(posted.id).reason) == ("withdrawn", "taken back")


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_private_whatever_the_umask(store, tmp_path):
    old = os.umask(0)
    try:
        put_up(store)
    finally:
        os.umask(old)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["state.db"]
    for path in (tmp_path / "state.db", *(tmp_path / "run").iterdir()):
        assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("how", ["link", "dangling link", "folder", "fifo", "readable", "writable"])
def test_a_file_that_is_not_mine_alone_is_refused(store, tmp_path, how):
    path, target = tmp_path / "state.db", tmp_path / "elsewhere"
    agree(store)
    if how in ("link", "dangling link"):
        path.rename(target)
        path.symlink_to(target if how == "link" else tmp_path / "nowhere")
    elif how in ("folder", "fifo"):
        path.unlink()
        path.mkdir(mode=0o700) if how == "folder" else os.mkfifo(path, 0o600)
    else:
        path.chmod(0o640 if how == "readable" else 0o602)
    for attempt in (
        lambda: store.use("a"),
        lambda: put_up(store, "b"),
        store.version,
        store.new_code,
        store.sealing_key,
    ):
        with pytest.raises(StateUnusable, match="not a private file of yours"):
            attempt()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("how", ["garbage", "cut", "no table", "a row"])
def test_a_damaged_file_is_an_error_whose_hint_gets_silo_going_again(store, open_store, tmp_path, how):
    path = tmp_path / "state.db"
    agree(store)
    store.close()
    if how == "garbage":
        path.write_bytes(b"\xff" * 8192)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        db = sqlite3.connect(path)
        db.execute("DROP TABLE questions" if how == "no table" else "UPDATE questions SET question = '{}'")
        db.commit()
        db.close()
    other = open_store()
    for attempt in (lambda: other.use("a"), lambda: other.standing("a")):
        with pytest.raises(StateUnusable, match="damaged") as caught:
            attempt()
    subprocess.run(["sh", "-c", caught.value.hint.rpartition(": ")[2]], check=True)
    assert other.use("a") is None
    agree(other)
    assert other.use("a") is not None


def test_a_file_of_a_newer_silo_is_left_alone(store, tmp_path):
    agree(store)
    db = sqlite3.connect(tmp_path / "state.db")
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    before = (tmp_path / "state.db").read_bytes()
    for attempt in (lambda: store.use("a"), lambda: put_up(store, "b"), store.waiting):
        with pytest.raises(StateUnusable, match="newer silo"):
            attempt()
    store.close()
    assert (tmp_path / "state.db").read_bytes() == before


def test_a_file_of_version_1_is_brought_up_to_date_and_its_decisions_stay_in_the_list(store, open_store, tmp_path):
    posted = agree(store)
    store.close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        for statement in (
            "DROP INDEX questions_by_refusal",
            *(f"ALTER TABLE questions DROP COLUMN {column}" for column in ("asker", "person", "refusal")),
            "PRAGMA user_version = 1",
        ):
            db.execute(statement)
        db.commit()
    later = open_store()
    assert [entry.posted.id for entry in later.all()] == [posted.id]
    put_up(later, "b", refusal="r")
    with closing(sqlite3.connect(tmp_path / "state.db")) as db, closing(sqlite3.connect(":memory:")) as new:
        for statement in SCHEMA:
            new.execute(statement)
        columns = [one.execute("PRAGMA table_info(questions)").fetchall() for one in (db, new)]
        assert columns[0] == columns[1]
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_a_file_that_was_moved_away_under_a_running_silo_is_not_used_any_more(store, open_store, tmp_path):
    agree(store)
    waiting = put_up(store, "b")
    (tmp_path / "state.db").rename(tmp_path / "aside")
    agree(open_store(), "c")
    assert store.use("a") is None
    assert store.get(waiting.id) is None
    assert store.use("c") is not None
    (tmp_path / "state.db").unlink()
    assert store.use("a") is None
    put_up(store, "b")
    assert (tmp_path / "state.db").exists()


def test_a_file_that_another_process_holds_for_too_long_is_an_error(store, tmp_path):
    agree(store)
    file = StateFile(tmp_path, patience_s=0.05)
    holder = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateUnusable, match="another process has locked"), file.transaction(change=True):
        pytest.fail("two at once")
    with file.transaction(change=False) as db:
        assert db.execute("SELECT count(*) FROM questions").fetchone()[0] == 1
    holder.close()
    file.close()


@pytest.mark.parametrize("name", ["a b", "a?mode=memory", "a#b", "a%20b", "ä", "a'b"])
def test_a_home_of_any_name_will_do(tmp_path, name):
    home = tmp_path / name
    home.mkdir()
    store = Decisions(home)
    agree(store)
    store.close()
    assert (home / "state.db").stat().st_size > 0
