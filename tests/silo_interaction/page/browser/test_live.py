"""Open tabs that nobody reloads, in Chromium: new questions, expiry, decisions in another tab, a restart; and keys."""

import re
from dataclasses import replace

import pytest
from playwright.sync_api import expect
from silo_interaction import Answer, Question, WantedSecret
from silo_interaction.page import Page

CLOSE = Question("Run github.close_issue", "claude-code through MCP", (("tool", "github.close_issue"),), group="close")
DELETE = Question(
    "Run github.delete_repo", "claude-code through MCP", (("tool", "github.delete_repo"),), group="delete"
)
TOKEN = Question("Type in TOKEN for github", "claude-code through MCP", wanted=WantedSecret("TOKEN"))

MARK = "window.isTheSameDocument = true"
IS_MARKED = "window.isTheSameDocument === true"


def titles(tab):
    return tab.locator("main h3").all_inner_texts()


def approve(tab):
    return tab.get_by_role("button", name="Approve once")


# --- the list ---------------------------------------------------------------------------------------------------------


def test_a_question_shows_up_in_the_list_and_goes_without_the_page_being_loaded_again(ready, board):
    tab = ready.tab(ready.home)
    expect(tab.get_by_role("heading", name="Nothing is waiting")).to_be_visible()
    tab.evaluate(MARK)
    posted = board.post(CLOSE)
    expect(tab.get_by_role("link", name="Run github.close_issue")).to_be_visible()
    expect(tab.get_by_role("status").first).to_have_text("One more question waits.")
    expect(tab).to_have_title("(1) Waiting for you · silo")
    board.decide(posted.id, posted.digest, Answer(False, "no"), by="the command line")
    expect(tab.get_by_role("heading", name="Nothing is waiting")).to_be_visible()
    expect(tab).to_have_title("Nothing is waiting · silo")
    assert tab.evaluate(IS_MARKED)


def test_questions_that_are_alike_stand_together_and_a_new_one_joins_them(ready, board):
    tab = ready.tab(ready.home)
    for question in (CLOSE, DELETE, CLOSE):
        board.post(question)
    expect(tab.locator("main h3")).to_have_count(3)
    board.post(CLOSE)
    expect(tab.locator("main h3")).to_have_count(4)
    assert titles(tab) == ["Run github.close_issue"] * 3 + ["Run github.delete_repo"]
    assert [re.sub(r"\s+", " ", text) for text in tab.locator("main h2").all_inner_texts()] == ["close 3", "delete 1"]


def test_questions_that_are_alike_are_told_apart_by_how_their_arguments_begin(ready, board):
    for number in (7, 8):
        board.post(Question("Run it", "w", arguments=(("number", number), ("body", "x" * 10_000)), group="it"))
    tab = ready.tab(ready.home)
    starts = [f'number: {number}, body: "{"x" * 82}…' for number in (7, 8)]
    assert tab.locator(".preview").all_inner_texts() == starts


def test_who_walks_the_list_stays_where_they_were_when_it_changes(ready, board):
    for number in range(3):
        board.post(Question(f"Run {number}", "w"))
    tab = ready.tab(ready.home)
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    expect(tab.get_by_role("link", name="Run 1")).to_be_focused()
    board.post(Question("Run 3", "w"))
    expect(tab.get_by_role("link", name="Run 3")).to_be_visible()
    expect(tab.get_by_role("link", name="Run 1")).to_be_focused()


def test_an_open_question_counts_what_else_waits(ready, board):
    tab = ready.see(board.post(CLOSE))
    expect(tab.locator("#waiting-link")).to_have_text("1 waiting")
    board.post(DELETE)
    expect(tab.locator("#waiting-link")).to_have_text("2 waiting")
    expect(tab.get_by_role("status").first).to_have_text("One more question waits.")


def test_a_question_that_comes_before_the_first_event_is_announced_too(ready, board):
    """On a busy machine the page may have been rendered long before its stream opens (a past bug)."""
    posted = board.post(CLOSE)
    tab = ready.see(posted)
    held, is_open = [], []
    tab.route("**/events", lambda route: route.continue_() if is_open else held.append(route))
    with tab.expect_request("**/events"):
        tab.reload()
    expect(tab.locator("#waiting-link")).to_have_text("1 waiting")
    board.post(DELETE)
    is_open.append(True)
    for route in held:  # the page may have opened its stream a second time meanwhile
        route.continue_()
    expect(tab.locator("#waiting-link")).to_have_text("2 waiting")
    expect(tab.get_by_role("status").first).to_have_text("One more question waits.")


def test_every_tab_is_told_through_one_stream(ready, board, page):
    first, *tabs = [ready.tab(ready.home) for _ in range(8)]  # a browser opens six connections to a server
    board.post(CLOSE)
    for tab in tabs:
        expect(tab.get_by_role("link", name="Run github.close_issue")).to_be_visible()
    assert page._feed.viewers == 1
    first.close()  # the tab that listened
    board.post(DELETE)
    for tab in tabs:
        expect(tab.get_by_role("link", name="Run github.delete_repo")).to_be_visible()


# --- one question -----------------------------------------------------------------------------------------------------


def test_another_tab_learns_that_it_was_decided_and_its_buttons_are_dead(ready, board):
    posted = board.post(CLOSE)
    first, second = ready.see(posted), ready.see(posted)
    expect(approve(second)).to_be_enabled()
    second.evaluate(MARK)
    first.get_by_role("button", name="Deny", exact=True).click()
    expect(second.get_by_role("alert")).to_contain_text("This question no longer waits")
    for button in second.locator(".decide button").all():
        expect(button).to_be_disabled()
    second.locator("h1").click()
    second.keyboard.press("a")
    second.keyboard.press("d")
    assert second.evaluate(IS_MARKED)
    assert [answer.approved for _, answer, _ in board.answers] == [False]


def test_a_question_whose_time_is_over_says_so_and_can_not_be_answered(ready, board):
    tab = ready.see(board.post(CLOSE, stands_s=3))
    expect(tab.locator(".head [data-expires]")).to_have_text(re.compile(r"^[0-2] seconds?$"))
    tab.evaluate(MARK)
    expect(tab.get_by_role("alert")).to_contain_text("it expired")
    expect(tab.locator(".head [data-expires]")).to_be_hidden()
    expect(approve(tab)).to_be_disabled()
    expect(tab.get_by_role("button", name="Deny", exact=True)).to_be_disabled()
    assert tab.evaluate(IS_MARKED)
    tab.reload()
    expect(tab.get_by_role("heading", level=1)).to_have_text("This question no longer waits")
    assert board.answers == []


def test_a_secret_half_typed_stays_when_other_questions_come_and_go(ready, board):
    tab = ready.see(board.post(TOKEN))
    tab.get_by_label("TOKEN", exact=True).fill("half")
    other = board.post(CLOSE)
    expect(tab.locator("#waiting-link")).to_have_text("2 waiting")
    board.decide(other.id, other.digest, Answer(False, "no"), by="the command line")
    expect(tab.locator("#waiting-link")).to_have_text("1 waiting")
    expect(tab.get_by_label("TOKEN", exact=True)).to_have_value("half")


# --- the page goes away -----------------------------------------------------------------------------------------------


def test_a_tab_says_when_the_page_is_gone_and_takes_no_secret_until_it_is_back(profiles, board):
    """Another program that takes the port afterwards must not get what is typed into an old tab."""
    brief = Page(board)
    try:
        profile = profiles(base=brief.start())
        profile.expects("ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET")
        profile.pair(board.new_code())
        tab = profile.see(board.post(TOKEN))
        expect(tab.get_by_role("button", name="Hand it over")).to_be_enabled()
        tab.get_by_label("TOKEN", exact=True).fill("half")
        brief.stop()
        expect(tab.locator("#connection")).to_contain_text("Not connected")
        expect(tab.get_by_role("button", name="Hand it over")).to_be_disabled()
        tab.get_by_label("TOKEN", exact=True).press("Enter")
        expect(tab.locator("#connection")).to_be_visible()
        assert board.answers == []
    finally:
        brief.stop()


def test_after_a_restart_the_browser_pairs_again_and_decides(profiles, board):
    posted = board.post(CLOSE)
    old = Page(board)
    new = Page(board)
    try:
        profile = profiles(base=old.start())
        profile.expects("ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET")
        profile.pair(board.new_code())
        tab = profile.see(posted)
        expect(approve(tab)).to_be_enabled()
        old.stop()
        expect(tab.locator("#connection")).to_contain_text("Not connected")
        profile.moves_to(new.start())
        again = profile.pair(board.new_code(), "/q/" + board.new_link(posted))
        approve(again).click()
        expect(again.locator(".done")).to_contain_text("was approved once")
        assert [answer.approved for _, answer, _ in board.answers] == [True]
    finally:
        old.stop()
        new.stop()


def test_a_page_that_paused_comes_back_to_the_tabs_that_are_open(profiles, board):
    brief = Page(board, linger_s=1)
    try:
        profile = profiles(base=brief.start())
        profile.expects("ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_CONNECTION_RESET")
        posted = board.post(CLOSE)  # keeps the page listening until the browser is paired, however long that takes
        tab = profile.pair(board.new_code())
        board.put(replace(posted, state="withdrawn"))
        expect(tab.locator("#connection")).to_contain_text("Not connected")
        board.post(CLOSE)
        brief.start()
        expect(tab.get_by_role("link", name="Run github.close_issue")).to_be_visible()
        expect(tab.locator("#connection")).to_be_hidden()
    finally:
        brief.stop()


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_walk_the_list_open_a_question_and_walk_on(ready, board):
    for number in range(3):
        board.post(Question(f"Run {number}", "w"))
    tab = ready.tab(ready.home)
    for key, name in (("j", "Run 0"), ("j", "Run 1"), ("ArrowDown", "Run 2"), ("j", "Run 2"), ("k", "Run 1")):
        tab.keyboard.press(key)
        expect(tab.get_by_role("link", name=name)).to_be_focused()
    tab.keyboard.press("Enter")
    heading = tab.get_by_role("heading", level=1)
    expect(heading).to_have_text("Run 1")
    for key, title in (("j", "Run 2"), ("k", "Run 1")):
        tab.wait_for_load_state()  # the heading can be there before the script that handles the keys
        tab.keyboard.press(key)
        expect(heading).to_have_text(title)
    assert board.answers == []


@pytest.mark.parametrize(("key", "is_approved"), [("Control+Shift+Enter", True), ("d", False)])
def test_a_key_decides(ready, board, key, is_approved):
    tab = ready.see(board.post(CLOSE))
    expect(approve(tab)).to_be_enabled()
    tab.keyboard.press(key)
    expect(tab.locator(".done")).to_be_visible()
    assert [answer.approved for _, answer, _ in board.answers] == [is_approved]


def test_no_key_decides_in_the_list_or_hands_a_secret_over(ready, board):
    posted = board.post(TOKEN)
    tab = ready.tab(ready.home)
    expect(tab.get_by_role("link", name="Type in TOKEN for github")).to_be_visible()
    tab.keyboard.type("aad")
    assert tab.url.endswith(ready.home)
    tab = ready.see(posted)
    expect(tab.get_by_role("button", name="Hand it over")).to_be_enabled()
    for key in ("a", "d", "Enter", "Control+Shift+Enter"):
        tab.keyboard.press(key)
    expect(tab.get_by_role("heading", level=1)).to_have_text("Type in TOKEN for github")
    assert [answer.approved for _, answer, _ in board.answers] == []


def test_a_question_mark_shows_the_keys(ready):
    tab = ready.tab(ready.home)
    expect(tab.get_by_text("approve once")).to_be_hidden()
    tab.keyboard.press("?")
    expect(tab.get_by_text("approve once")).to_be_visible()
    tab.keyboard.press("?")
    expect(tab.get_by_text("approve once")).to_be_hidden()


def test_what_is_typed_into_a_field_is_text_and_no_key(ready, board):
    tab = ready.see(board.post(Question("Run it", "w", arguments=(("body", "a word\n" * 300),))))
    expect(approve(tab)).to_be_enabled()
    tab.get_by_text("Deny, and say why").click()
    for field in (tab.get_by_label("Why not?"), tab.get_by_label("Find in this value")):
        field.press_sequentially("daj?k")
        expect(field).to_have_value("daj?k")
    assert board.answers == []


def test_a_key_with_another_one_held_is_the_browsers(ready, board):
    tab = ready.see(board.post(CLOSE))
    expect(approve(tab)).to_be_enabled()
    for keys in ("Control+a", "Alt+d", "Control+d"):
        tab.keyboard.press(keys)
    expect(approve(tab)).to_be_enabled()
    assert board.answers == []
