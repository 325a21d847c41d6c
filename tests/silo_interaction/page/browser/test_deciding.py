"""A person pairs a browser and decides, in one tab of Chromium. `test_live` tests what changes while a page is open."""

import re
import time

import pytest
from playwright.sync_api import expect
from silo_interaction import Answer, Question, WantedSecret
from silo_interaction.page.forms import DECIDED_BY

READ_S = 1.1

CLOSE = Question(
    "Run github.close_issue",
    "claude-code through MCP",
    (("tool", "github.close_issue"), ("network", "api.github.com")),
    arguments=(("repo", "acme/site"), ("number", 7)),
    grace_s=900,
    group="github.close_issue",
)
TOKEN = Question(
    "Type in GITHUB_TOKEN for github",
    "claude-code through MCP",
    wanted=WantedSecret("GITHUB_TOKEN", "closes issues", "the vault of this machine"),
)
UNKEPT = Question("Type in PIN for bank", "claude-code through MCP", wanted=WantedSecret("PIN"))


def press(tab, name):
    tab.get_by_role("button", name=name).click()


def said(board):
    """The answers, without how they came about."""
    return [answer for _, answer, _ in board.answers]


# --- pairing ----------------------------------------------------------------------------------------------------------


def test_a_code_typed_in_lower_case_and_with_spaces_pairs_the_browser(profile, board):
    board.post(CLOSE)
    tab = profile.pair(board.new_code().lower().replace("-", "  "))
    expect(tab.get_by_role("heading", level=1)).to_have_text("1 question waits for you")
    expect(tab.get_by_role("link", name="Run github.close_issue")).to_be_visible()


def test_a_wrong_code_pairs_nothing_and_says_so(profile, board):
    board.post(CLOSE)
    tab = profile.tab("/")
    tab.get_by_label("Code").fill("0000-0000")
    press(tab, "Pair")
    expect(tab.get_by_role("alert")).to_contain_text("This code is wrong, used or expired. Get a new one.")
    expect(tab.get_by_label("Code")).to_be_focused()
    expect(tab.locator("body")).not_to_contain_text("github")
    assert profile.context.cookies() == []


def test_a_browser_that_signed_out_sees_the_pairing_form_and_a_new_code_pairs_it(ready, board):
    board.post(CLOSE)
    tab = ready.tab(ready.home)
    press(tab, "Sign out")
    expect(tab.get_by_role("alert")).to_contain_text("This browser is no longer paired.")
    assert ready.context.cookies() == []
    again = ready.tab("/")
    expect(again.get_by_label("Code")).to_be_focused()
    expect(ready.pair(board.new_code()).get_by_role("link", name="Run github.close_issue")).to_be_visible()


def test_a_paired_browser_that_follows_a_link_is_at_the_question_at_once(ready, board, page):
    tab = ready.tab(ready.home)
    tab.goto(page.link(board.new_link(board.post(CLOSE))))
    expect(tab.get_by_role("heading", level=1)).to_have_text("Run github.close_issue")


def test_a_paired_browser_that_opens_the_bare_address_is_at_its_list(ready, board):
    board.post(CLOSE)
    ready.tab(ready.home)
    expect(ready.tab("/").get_by_role("link", name="Run github.close_issue")).to_be_visible()


def test_a_browser_that_is_not_paired_sees_only_the_pairing_form_and_then_the_question(profile, board, page):
    path = "/q/" + board.new_link(board.post(CLOSE))
    tab = profile.tab(path)
    expect(tab.get_by_role("heading", level=1)).to_have_text("Pair this browser")
    expect(tab.locator("html")).not_to_contain_text("github")
    expect(profile.pair(board.new_code(), path).get_by_role("heading", level=1)).to_have_text("Run github.close_issue")


def test_a_link_that_one_browser_followed_is_dead_in_another_one(ready, profiles, board, page):
    link = page.link(board.new_link(board.post(CLOSE)))
    tab = ready.tab(ready.home)
    tab.goto(link)
    expect(tab.get_by_role("button", name="Deny", exact=True)).to_be_visible()
    other = profiles()
    other.pair(board.new_code())
    tab = other.tab()
    tab.goto(link)
    expect(tab.get_by_role("heading", level=1)).to_have_text("This link does not work")
    tab.get_by_role("link", name="See waiting questions").click()
    expect(tab.get_by_role("link", name="Run github.close_issue")).to_be_visible()


# --- deciding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("button", "answer", "notice"),
    [
        ("Approve once", Answer(True, f"approved on {DECIDED_BY}"), "was approved once"),
        (
            "Approve, and the same call for 15 minutes",
            Answer(True, f"approved on {DECIDED_BY} for 15 minutes", grace=True),
            "was approved for a while",
        ),
        ("Deny", Answer(False, f"declined on {DECIDED_BY}"), "was denied"),
    ],
)
def test_a_button_decides_what_it_says(ready, board, button, answer, notice):
    posted = board.post(CLOSE)
    tab = ready.see(posted)
    tab.get_by_role("button", name=button, exact=True).click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Nothing is waiting")
    expect(tab.locator(".done")).to_contain_text(notice)
    assert board.answers == [(posted.id, answer, DECIDED_BY)]


def test_a_no_takes_its_reason_along(ready, board):
    tab = ready.see(board.post(CLOSE))
    tab.get_by_text("Deny, and say why").click()
    tab.get_by_label("Why not?").fill("not this repository,\nuse acme/test")
    press(tab, "Deny with this reason")
    expect(tab.locator(".done")).to_contain_text("was denied")
    assert said(board) == [Answer(False, f"declined on {DECIDED_BY}: not this repository, use acme/test")]


@pytest.mark.parametrize("keep", [True, False])
def test_a_secret_is_handed_over_and_kept_only_if_the_person_says_so(ready, board, keep):
    tab = ready.see(board.post(TOKEN))
    tab.get_by_label("GITHUB_TOKEN", exact=True).fill("ghp_é 1%+&=")
    if keep:
        tab.get_by_label("Keep it in the vault of this machine").check()
    press(tab, "Hand it over")
    expect(tab.locator(".done")).to_contain_text("was handed over")
    assert said(board) == [Answer(True, f"typed in on {DECIDED_BY}", value="ghp_é 1%+&=", keep=keep)]
    assert "ghp_" not in tab.content()


def test_a_secret_that_nobody_keeps_has_no_box_for_it(ready, board):
    tab = ready.see(board.post(UNKEPT))
    expect(tab.get_by_role("checkbox")).to_have_count(0)
    tab.get_by_label("PIN", exact=True).fill("1234")
    press(tab, "Hand it over")
    expect(tab.locator(".done")).to_contain_text("was handed over")
    assert said(board)[0].keep is False


@pytest.mark.parametrize("reason", ["", "ask me for another one"])
def test_a_secret_can_be_refused(ready, board, reason):
    tab = ready.see(board.post(TOKEN))
    tab.get_by_label("GITHUB_TOKEN", exact=True).fill("typed, then thought better of")
    if reason:
        tab.get_by_text("Don't give it, and say why").click()
        tab.get_by_label("Why not?").fill(reason)
    press(tab, "Don't give it, with this reason" if reason else re.compile("^Don't give it$"))
    expect(tab.locator(".done")).to_contain_text("was not given")
    assert said(board) == [Answer(False, f"declined on {DECIDED_BY}" + (f": {reason}" if reason else ""))]


def test_enter_in_an_empty_field_hands_nothing_over(ready, board):
    tab = ready.see(board.post(TOKEN))
    expect(tab.get_by_role("button", name="Hand it over")).to_be_enabled()
    tab.get_by_label("GITHUB_TOKEN", exact=True).press("Enter")
    expect(tab.get_by_label("GITHUB_TOKEN", exact=True)).to_be_focused()
    assert tab.evaluate("document.querySelector('#value').validity.valueMissing")
    assert board.answers == []


def test_going_back_after_a_decision_shows_that_it_is_made_and_sending_it_again_decides_nothing(ready, board):
    posted = board.post(CLOSE)
    tab = ready.see(posted)
    fields = {name: tab.locator(f".decide [name={name}]").get_attribute("value") for name in ("csrf", "digest")}
    press(tab, "Approve once")
    expect(tab.locator(".done")).to_contain_text("was approved once")
    tab.go_back()
    expect(tab.get_by_role("heading", level=1)).to_have_text("This question no longer waits")
    expect(tab.get_by_role("button", name=re.compile("Approve|Deny"))).to_have_count(0)
    send = """async ([path, fields]) => {
        const answer = await fetch(path, { method: "POST", body: new URLSearchParams(fields) });
        return [answer.status, await answer.text()];
    }"""
    status, text = tab.evaluate(send, [f"{ready.home}q/{posted.id}", {**fields, "choice": "deny"}])
    assert status == 410
    assert "What you pressed just now decided nothing." in text
    tab.reload()
    assert len(board.answers) == 1


def test_a_double_click_is_one_answer(ready, board):
    first, second = board.post(CLOSE), board.post(CLOSE)
    tab = ready.see(first)
    tab.get_by_role("button", name="Deny", exact=True).dblclick()
    tab.wait_for_url(f"**/q/{second.id}")
    expect(tab.locator(".done")).to_be_visible()
    assert [question_id for question_id, _, _ in board.answers] == [first.id]


def test_of_a_hundred_questions_a_decision_lands_on_the_one_that_was_shown(ready, board):
    posted = {
        one.id: one for one in (board.post(Question(f"Run number {n}", "w", group=str(n % 9))) for n in range(100))
    }
    tab = ready.tab(ready.home)
    tab.get_by_role("link", name="Run number").nth(50).click()
    decided = {}
    for turn in range(12):
        tab.wait_for_function(
            "done => !done.includes(document.querySelector('main').dataset.question)", arg=list(decided)
        )
        shown = tab.locator("main").get_attribute("data-question")
        assert tab.locator("h1").inner_text() == posted[shown].question.title
        # A yes can only be pressed a while after the page came up, so not each of them is one.
        decided[shown] = turn % 4 == 0
        tab.locator(f".buttons [value={'approve' if decided[shown] else 'deny'}]").click()
    expect(tab.locator("#waiting-count")).to_have_text("88")
    assert {question_id: answer.approved for question_id, answer, _ in board.answers} == decided
    assert {one.id for one in board.waiting()} == posted.keys() - decided.keys()


# --- without JavaScript -----------------------------------------------------------------------------------------------


def test_without_javascript_a_person_pairs_reads_the_list_and_decides(profiles, board, clock):
    first, second, third = board.post(CLOSE), board.post(CLOSE), board.post(TOKEN)
    tab = profiles(java_script_enabled=False).pair(board.new_code())
    tab.get_by_role("link", name="Run github.close_issue").first.click()
    expect(tab.locator("#how")).to_be_hidden()
    clock.ahead_s += READ_S
    tab.get_by_role("button", name="Approve once").click()
    expect(tab.locator(".done")).to_contain_text("was approved once")
    tab.get_by_text("Deny, and say why").click()
    tab.get_by_label("Why not?").fill("no")
    press(tab, "Deny with this reason")
    expect(tab.locator(".done")).to_contain_text("was denied")
    tab.get_by_label("GITHUB_TOKEN", exact=True).fill("t")
    press(tab, "Hand it over")
    expect(tab.get_by_role("heading", level=1)).to_have_text("Nothing is waiting")
    assert [(question_id, answer.approved, answer.value) for question_id, answer, _ in board.answers] == [
        (first.id, True, None),
        (second.id, False, None),
        (third.id, True, "t"),
    ]


def test_without_javascript_a_second_click_and_a_held_key_approve_nothing_that_comes_up_under_them(
    profiles, board, clock
):
    """Without scripts, only the server can tell that nobody has read the question. Its time stands still meanwhile."""
    first, second = board.post(CLOSE), board.post(CLOSE)
    profile = profiles(java_script_enabled=False)
    profile.pair_at_once(board.new_code())
    clock.stopped_at = time.time()
    try:
        tab = profile.see(first)
        for press in (lambda button: button.click(), lambda button: button.press("Enter")):
            press(tab.get_by_role("button", name="Approve once"))
            expect(tab.get_by_role("alert")).to_contain_text("That was too quick and did not count.")
    finally:
        clock.stopped_at = None
    assert board.answers == []
    assert {posted.id for posted in board.waiting()} == {first.id, second.id}


def test_without_javascript_a_link_leads_to_the_question_once_the_browser_is_paired(profiles, board):
    path = "/q/" + board.new_link(board.post(CLOSE))
    profile = profiles(java_script_enabled=False)
    expect(profile.pair(board.new_code(), path).get_by_role("heading", level=1)).to_have_text("Run github.close_issue")
