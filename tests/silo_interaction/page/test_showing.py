"""What a person sees: the whole question, in a form that can't pass for something else, and the result of a button."""

import json
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from silo_interaction import PostedQuestion, Question, WantedSecret
from silo_interaction.page import views
from silo_interaction.page.render import Renderer
from silo_interaction.visible import visible, visible_lines

RENDERER = Renderer("silo")
HOSTILE = "</code></pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp; {{ 7*7 }} \u202eabc\x1b[2J\r\n"
TAGS = {"a", "body", "button", "code", "dd", "details", "div", "dl", "dt", "footer", "form", "h1", "h2", "h3", "head"}
TAGS |= {"header", "html", "img", "input", "kbd", "label", "li", "link", "main", "mark", "meta", "nav", "output", "p"}
TAGS |= {"path", "pre", "script", "section", "span", "strong", "summary", "svg", "textarea", "title", "ul"}

odd = st.one_of(
    st.text(max_size=60),
    st.text(st.sampled_from("<>&\"'/{}%\u202e\u200b\x00\x1b\r\n \ta=;!-"), max_size=60),
    st.just(HOSTILE),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | odd,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd, inner, max_size=4),
    max_leaves=12,
)
questions = st.builds(
    Question,
    title=odd,
    who=odd,
    facts=st.lists(st.tuples(odd, odd), max_size=3).map(tuple),
    danger=odd,
    arguments=st.lists(st.tuples(odd, values), max_size=3).map(tuple),
    changes=st.lists(odd, max_size=3).map(tuple),
    grace_s=st.sampled_from([0, 300]),
    group=odd,
    wanted=st.none() | st.builds(WantedSecret, name=odd, description=odd, keeper=odd),
)


def posted(question: Question) -> PostedQuestion:
    now = time.time()
    return PostedQuestion("0123456789abcdef", question, question.digest(), now, now + 300)


def render_detail(question: Question) -> str:
    return RENDERER.html(
        "question.html",
        path_secret="PATH_SECRET",
        csrf="CSRF",
        unpaired="",
        question=views.detail(posted(question), time.time()),
        waiting=1,
        before="",
        after="",
        done=None,
        changed=False,
        hasty=False,
        shown="SHOWN",
        max_reason=500,
    )


def render_queue(question: Question) -> str:
    groups = views.queue([posted(question)], time.time())
    return RENDERER.html(
        "queue.html", path_secret="PATH_SECRET", csrf="CSRF", unpaired="", groups=groups, waiting=1, done=None
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=questions)
def test_no_text_becomes_markup_and_none_is_missing(read, question):
    page = read(render_detail(question))
    assert set(page.tags) <= TAGS
    assert page.tags.count("script") == 1
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    texts = [question.title, question.who, *question.changes, *(label for label, _ in question.facts)]
    for text in texts:
        assert visible(text) in page.text
    for text in (question.danger, *(text for _, text in question.facts)):
        assert "\n".join(visible_lines(text)) in page.text
    assert page.text.isprintable() or set(page.text) - {"\n"} == {c for c in page.text if c.isprintable()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=questions)
def test_every_argument_is_there_whole(read, question):
    page = read(render_detail(question))
    for name, value in question.arguments:
        assert visible(name) in page.text
        is_text = isinstance(value, str) and "\n" in value
        text = value if is_text else json.dumps(value, ensure_ascii=False, indent=2)
        assert "\n".join(visible_lines(text)) in page.text
    assert page.values("data-argument") == [visible(name) for name, _ in question.arguments]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=questions)
def test_the_list_escapes_everything_too(read, question):
    page = read(render_queue(question))
    assert set(page.tags) <= TAGS
    assert page.tags.count("script") == 1
    for text in (question.title, question.who):
        assert visible(text) in page.text


@given(odd)
def test_segments_are_what_visible_says_and_mark_only_what_it_spelt_out(text):
    line = views.line(text)
    assert "".join(segment.text for segment in line) == visible(text)
    for one, other in pairwise(line):
        assert one.is_spelt is not other.is_spelt
    plain = "".join(segment.text for segment in line if not segment.is_spelt)
    assert visible(plain) == plain or any(segment.is_spelt for segment in line)
    assert all(segment.text.startswith("<U+") for segment in line if segment.is_spelt)


def test_an_escape_that_a_stranger_wrote_does_not_look_like_ours():
    assert [segment.is_spelt for segment in views.line("<U+202E>")] == [False]
    assert [segment.is_spelt for segment in views.line("\u202e")] == [True]
    assert [segment.is_spelt for segment in views.line("a\u202e\u200b<U+200B>b")] == [False, True, False]


def test_a_long_value_is_shown_whole_says_so_and_can_be_searched(read):
    page = read(render_detail(Question("t", "w", arguments=(("body", "x\n" + "a" * 10_240 + "END"),))))
    assert "a" * 10_240 + "END" in page.text
    assert "10,245 characters in 2 lines, all shown" in page.text
    assert "search" in page.values("type")
    assert ("pre", "tabindex", "0") in page.attributes
    assert "Argument body, 10,245 characters in 2 lines, all shown" in page.values("aria-label")


def test_a_text_of_several_lines_and_the_json_that_looks_like_it_are_told_apart(read):
    page = read(render_detail(Question("t", "w", arguments=(("one", "[\n  1\n]"), ("other", [1])))))
    assert page.text.count("[\n  1\n]") == 2
    assert page.text.count("text, as it is") == 1
    assert page.text.count("JSON") == 1


def test_a_yes_or_no_question_has_these_buttons(read):
    assert buttons(read(render_detail(Question("t", "w")))) == {"approve", "deny"}
    assert buttons(read(render_detail(Question("t", "w", grace_s=300)))) == {"approve", "deny", "grace"}
    assert "the same call for 5 minutes" in render_detail(Question("t", "w", grace_s=300))


def test_a_wanted_secret_has_a_hidden_field_and_is_kept_only_if_there_is_a_keeper(read):
    page = read(render_detail(Question("t", "w", wanted=WantedSecret("TOKEN", "of a stranger", "the vault"))))
    assert buttons(page) == {"give", "deny"}
    assert ("input", "type", "password") in page.attributes
    assert "Keep it in the vault" in page.text
    assert "checked" not in [name for _, name, _ in page.attributes]
    assert "keep" not in read(render_detail(Question("t", "w", wanted=WantedSecret("TOKEN")))).values("name")


def buttons(page) -> set:
    return {value for tag, name, value in page.attributes if tag == "button" and name == "value"}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 seconds"), (1, "1 second"), (300, "5 minutes"), (3725, "1 hour 2 minutes"), (61, "1 minute 1 second")],
)
def test_durations_read_like_this(seconds, words):
    assert views.duration(seconds) == words


# --- going through them -----------------------------------------------------------------------------------------------


def test_the_list_groups_what_is_alike_and_names_each_question(board, person, read):
    names = ["a", "b", "a", "", "b"]
    all_of_them = [board.post(Question(f"Run {n}", "w", group=group)) for n, group in enumerate(names)]
    page = read(person.get(person.home).text)
    ids = page.values("data-question")
    assert ids == [all_of_them[n].id for n in (0, 2, 1, 4, 3)]
    assert "(5) Waiting for you" in page.text
    assert {f"{person.home}q/{one.id}" for one in all_of_them} <= set(page.values("href"))


def test_an_empty_list_says_that_nothing_waits(person):
    assert "Nothing is waiting" in person.get(person.home).text


def test_a_yes_is_put_down_and_leads_to_the_next_of_the_same_kind(board, person):
    one, other, alike = (board.post(Question(f"Run {n}", "w", group=group)) for n, group in enumerate("aba"))
    answer = person.decide(one, "approve")
    assert answer.headers["location"] == f"{person.home}q/{alike.id}?done={one.id}"
    assert "was approved once" in person.get(answer.headers["location"]).text
    assert person.decide(alike, "approve").headers["location"] == f"{person.home}q/{other.id}?done={alike.id}"
    ((_, given, by), _) = board.answers
    assert (given.approved, given.grace, given.value, given.reason) == (
        True,
        False,
        None,
        "approved on the approval page",
    )
    assert by == "the approval page"


def test_the_last_decision_leads_to_the_list_which_says_what_was_decided(board, person):
    posted = board.post(Question("Run <b>it</b>", "w"))
    answer = person.decide(posted, "deny", reason=" too\r\nlate\u202e ")
    assert answer.headers["location"] == f"{person.home}?done={posted.id}"
    text = person.get(answer.headers["location"]).text
    assert "was denied" in text
    assert "Run &lt;b&gt;it&lt;/b&gt;" in text
    ((_, given, _),) = board.answers
    assert (given.approved, given.reason) == (False, "declined on the approval page: too late<U+202E>")


def test_a_yes_for_a_while_says_so(board, person):
    posted = board.post(Question("Run it", "w", grace_s=900))
    person.decide(posted, "grace")
    ((_, given, _),) = board.answers
    assert (given.approved, given.grace) == (True, True)
    assert given.reason == "approved on the approval page for 15 minutes"


@pytest.mark.parametrize("keep", [True, False])
def test_a_secret_is_handed_over_as_it_was_typed(board, person, keep):
    posted = board.post(Question("t", "w", wanted=WantedSecret("TOKEN", keeper="the vault")))
    value = " pä$$+w%rd&x= \u202e "
    person.decide(posted, "give", value=value, **({"keep": "yes"} if keep else {}))
    ((_, given, _),) = board.answers
    assert (given.approved, given.value, given.keep) == (True, value, keep)


def test_a_secret_that_nobody_keeps_is_not_kept_whatever_the_form_says(board, person):
    person.decide(board.post(Question("t", "w", wanted=WantedSecret("TOKEN"))), "give", value="v", keep="yes")
    assert board.answers[0][1].keep is False


def test_a_reason_of_five_hundred_characters_is_the_longest(board, person):
    posted = board.post(Question("Run it", "w"))
    assert person.decide(posted, "deny", reason="x" * 501).status_code == 400
    assert board.answers == []
    assert person.decide(posted, "deny", reason="x" * 500).status_code == 303


@pytest.mark.parametrize("state", ["expired", "withdrawn", "denied"])
def test_a_question_that_does_not_wait_any_more_says_why(board, person, state):
    posted = board.post(Question("Run it", "w"))
    board.put(replace(posted, state=state, reason="because <of> that"))
    answer = person.get(f"{person.home}q/{posted.id}")
    assert answer.status_code == 410
    assert "because &lt;of&gt; that" in answer.text
    assert "Approve" not in answer.text


def test_a_question_whose_time_is_over_is_not_decided(board, person):
    posted = board.post(Question("Run it", "w"))
    hidden = person.open(posted).fields
    board.put(replace(posted, expires_at=0))
    form = {"csrf": hidden["csrf"], "digest": hidden["digest"], "choice": "approve"}
    answer = person.post(f"{person.home}q/{posted.id}", form)
    assert answer.status_code == 410
    assert "was not answered in time" in answer.text
    assert board.answers == []


def test_a_hundred_questions_are_listed_in_little_time(board, person):
    arguments = (("body", "x" * 10_240),)
    for number in range(100):
        board.post(Question(f"Run {number}", "w", (("tool", "t"),), "d", arguments, group=str(number % 7)))
    person.get(person.home)
    started = time.process_time()
    answer = person.get(person.home)
    assert time.process_time() - started < 10  # of this process alone, however busy the machine is
    assert answer.text.count("data-question=") == 100
