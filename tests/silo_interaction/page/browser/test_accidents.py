"""Keys and clicks that were meant for another window, or for another question: none of them may approve anything.

silo opens a browser by itself, and a question can come up at any time. A person may be typing a letter then, or about
to click. The page's clock stands still in these tests unless they move it, so that no machine is too slow for them.
"""

from __future__ import annotations

import random

import pytest
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import expect
from silo_interaction import Question, WantedSecret

QUIET_MS = 1500
PAYMENT = Question(
    "Run bank.pay", "an agent", (("tool", "bank.pay"),), arguments=(("amount", 900),), grace_s=600, group="bank.pay"
)
TOKEN = Question("Type in TOKEN for bank", "an agent", wanted=WantedSecret("TOKEN"))
CHORD = "Control+Shift+Enter"

SENTENCES = (
    "Dear Anna, thank you for the draft; I read it on the train and agree with nearly all of it.",
    "a list of all that we still need: apples, a kettle, tea, and something for Daddy's dog.",
    "Apologies, I was away yesterday. Shall we add a day to the deadline, and ask Dana again?",
    "def add(a, b):\n    return a + b\n\nassert add(1, 2) == 3",
    "Yes! I approve of that, as does the board. All aboard!\n\nKind regards,\nAda",
    "The quick brown fox jumps over the lazy dog, jackdaws love my big sphinx of quartz.",
    "git add -A && git commit -a -m 'fix' && make all && ./deploy --yes",
    "What about Adana?\tOr Kabul?\tAnd is j the letter before k, or a? I asked, and nobody answered.",
)
STRAY = ("Enter", "Tab", "Shift+Tab", "Space", "Backspace", "Control+Enter", "Shift+Enter", "Alt+Enter", "Control+a")
STRAY += ("ArrowDown", "ArrowUp", "Escape", "Control+Backspace", "Meta+Enter", "Control+Alt+Enter", "Delete", "End")
"""Keys between words, those that send a message elsewhere among them; not the page's own chord."""


DRAWN = "new Promise((resolve) => new ResizeObserver(resolve).observe(document.body))"
"""Ends once the browser has told the page's own observers of its size, which starts the wait anew."""


def approve(tab):
    return tab.get_by_role("button", name="Approve once")


def status(tab):
    return tab.get_by_role("status").first


def yeses(board):
    return [answer for _, answer, _ in board.answers if answer.approved]


@pytest.fixture
def still(ready, clock):
    """Open a tab of the paired browser in which time stands still."""

    def open_tab(path):
        tab = ready.tab(ready.home)
        tab.clock.install()
        tab.clock.pause_at(tab.evaluate("Date.now()") + 1000)
        tab.goto(ready.base + path)
        tab.evaluate(DRAWN)
        return tab

    return open_tab


@pytest.fixture
def wait(clock):
    """Let time pass on a page and on the server, which takes no quick yes either."""

    def pass_by(tab, ms):
        tab.clock.run_for(ms)
        clock.ahead_s += ms / 1000

    return pass_by


@pytest.fixture
def look(wait):
    """Look at a page until it takes a yes."""

    def look_at(tab):
        tab.evaluate(DRAWN)
        wait(tab, QUIET_MS)
        expect(approve(tab)).to_be_enabled()

    return look_at


def question_path(ready, posted):
    return f"{ready.home}q/{posted.id}"


def go(tab, url):
    """Open a page. After a no, the page is on its way to another one by itself, and the two cut each other off."""
    for _ in range(20):
        try:
            tab.goto(url)
            return
        except PlaywrightError as error:
            if "ERR_ABORTED" not in str(error) and "interrupted by another" not in str(error):
                raise
    raise AssertionError(f"{url} did not open")


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_sentences_that_somebody_types_into_another_window_approve_nothing(ready, board, still, wait, seed):
    """The window comes up in the middle of them; between words there are pauses of any length."""
    chance = random.Random(seed)
    posted = [board.post(chance.choice((PAYMENT, PAYMENT, TOKEN))) for _ in range(4)]
    tab = still(chance.choice((ready.home, question_path(ready, posted[0]))))
    for sentence in chance.sample(SENTENCES, 4):
        for word in sentence.split(" "):
            tab.keyboard.type(f"{word} ")
            if chance.random() < 0.3:
                tab.keyboard.press(chance.choice(STRAY))
            if chance.random() < 0.4:
                wait(tab, chance.choice((40, 400, QUIET_MS - 100, QUIET_MS, QUIET_MS + 100, 5000)))
            if chance.random() < 0.05:
                board.post(PAYMENT)
        # Silo opens a window, or the person switches to it.
        go(tab, ready.base + question_path(ready, board.post(PAYMENT)))
    assert yeses(board) == []


@pytest.mark.parametrize("letters", ["abcdefghij", "klmnopqrst", "uvwxyzAY1 "])
def test_no_single_key_approves_even_after_a_long_look(ready, board, still, wait, letters, look):
    tab = still(ready.home)
    for letter in letters:
        go(tab, ready.base + question_path(ready, board.post(PAYMENT)))
        tab.evaluate(DRAWN)
        look(tab)
        wait(tab, 60_000)
        key = "Space" if letter == " " else letter
        tab.keyboard.press(key)
        for target in (approve(tab), tab.get_by_role("button", name="Approve, and")):
            if letter not in "djk":  # which deny, or go to another question
                target.focus()
                tab.keyboard.press(key)
        assert yeses(board) == [], letter


@pytest.mark.parametrize("key", ["Enter", "Space"])
@pytest.mark.parametrize("name", ["Approve once", "Approve, and the same call"])
def test_enter_and_space_on_a_button_do_not_approve_and_say_what_does(ready, board, still, key, name, look):
    tab = still(question_path(ready, board.post(PAYMENT)))
    look(tab)
    button = tab.get_by_role("button", name=name)
    button.focus()
    tab.keyboard.press(key)
    expect(status(tab)).to_contain_text("With the keyboard, approve with Ctrl+Shift+Enter.")
    expect(button).to_be_focused()
    assert board.answers == []


@pytest.mark.parametrize(("focus", "is_grace"), [("", False), ("Approve once", False), ("Approve, and the", True)])
def test_the_chord_approves_with_the_keyboard_alone(ready, board, still, look, focus, is_grace):
    tab = still(question_path(ready, board.post(PAYMENT)))
    if focus:
        tab.get_by_role("button", name=focus).focus()
    look(tab)
    tab.keyboard.press(CHORD)
    expect(tab.locator(".done")).to_contain_text("was approved for a while" if is_grace else "was approved once")
    assert [answer.grace for answer in yeses(board)] == [is_grace]


@pytest.mark.parametrize("key", ["x", "Tab", "Shift+Tab", "PageDown", "Enter", "Control+Enter", "Escape", CHORD])
def test_each_other_key_starts_the_wait_anew(ready, board, still, wait, key, look):
    tab = still(question_path(ready, board.post(PAYMENT)))
    wait(tab, 60_000 if key != CHORD else QUIET_MS - 1)
    tab.keyboard.press(key)
    wait(tab, QUIET_MS - 1)
    expect(approve(tab)).to_be_disabled()
    tab.keyboard.press(CHORD)
    expect(status(tab)).to_contain_text("too quick")
    assert board.answers == []
    look(tab)
    tab.keyboard.press(CHORD)
    expect(tab.locator(".done")).to_contain_text("was approved once")


def test_a_chord_that_is_held_down_approves_one_question_and_not_the_next(ready, board, still, wait, look):
    first, second = board.post(PAYMENT), board.post(PAYMENT)
    tab = still(question_path(ready, first))
    look(tab)
    for key in ("Control", "Shift", "Enter"):
        tab.keyboard.down(key)
    tab.wait_for_url(f"**/q/{second.id}?*")
    expect(approve(tab)).to_be_visible()
    for _ in range(20):
        wait(tab, QUIET_MS)
        tab.keyboard.down("Enter")  # the keyboard repeats it
    assert [question_id for question_id, _, _ in board.answers] == [first.id]


def test_the_chord_in_a_field_for_a_reason_or_a_search_is_no_yes(ready, board, still, wait):
    tab = still(question_path(ready, board.post(Question("Run it", "w", arguments=(("body", "a word\n" * 300),)))))
    tab.get_by_text("Deny, and say why").click()
    for name in ("Why not?", "Find in this value"):
        wait(tab, 2 * QUIET_MS)
        tab.get_by_label(name).press(CHORD)
    assert board.answers == []


def test_a_key_denies_after_a_look_and_a_click_at_once(ready, board, still, wait):
    first, second = board.post(PAYMENT), board.post(PAYMENT)
    tab = still(question_path(ready, first))
    tab.keyboard.press("d")
    expect(status(tab)).to_contain_text("too quick")
    assert board.answers == []
    wait(tab, QUIET_MS)
    tab.keyboard.press("d")
    tab.wait_for_url(f"**/q/{second.id}?*")
    tab.get_by_role("button", name="Deny", exact=True).click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Nothing is waiting")
    assert [answer.approved for _, answer, _ in board.answers] == [False, False]


# --- a secret ---------------------------------------------------------------------------------------------------------


def test_what_somebody_types_elsewhere_is_not_handed_over_as_a_secret(ready, board, still, wait):
    tab = still(question_path(ready, board.post(TOKEN)))
    wait(tab, 60_000)
    tab.keyboard.type("my bank's password is swordfish")
    expect(tab.get_by_label("TOKEN", exact=True)).to_have_value("")
    tab.get_by_label("TOKEN", exact=True).focus()  # by the Tab key, say
    tab.keyboard.type("swordfish")
    tab.keyboard.press("Enter")
    expect(status(tab)).to_contain_text("With the keyboard, approve with Ctrl+Shift+Enter.")
    assert board.answers == []


def test_the_chord_hands_a_secret_over_from_its_field(ready, board, still, wait):
    tab = still(question_path(ready, board.post(TOKEN)))
    field = tab.get_by_label("TOKEN", exact=True)
    field.focus()
    wait(tab, QUIET_MS)
    field.press(CHORD)
    assert tab.evaluate("document.querySelector('#value').validity.valueMissing")
    assert board.answers == []
    tab.keyboard.type("s3cret")
    field.press(CHORD)
    expect(tab.locator(".done")).to_contain_text("was handed over")
    assert [answer.value for answer in yeses(board)] == ["s3cret"]


# --- clicks -----------------------------------------------------------------------------------------------------------


def center(tab, name="Approve once"):
    box = tab.get_by_role("button", name=name).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_clicks_on_one_spot_approve_none_of_the_questions_that_come_up_under_them(ready, board, still, wait, look):
    posted = [board.post(PAYMENT) for _ in range(6)]
    tab = still(question_path(ready, posted[0]))
    tab.set_viewport_size({"width": 1200, "height": 2000})  # nothing has to be scrolled
    for one in posted[:2]:
        tab.wait_for_url(f"**/q/{one.id}*")
        look(tab)
        tab.mouse.move(1, 1)
        approve(tab).click()
    tab.wait_for_url(f"**/q/{posted[2].id}?*")
    spot = center(tab)
    for pause in (0, 10, QUIET_MS, QUIET_MS, 60_000, 60_000):
        wait(tab, pause)
        assert tab.evaluate("([x, y]) => document.elementFromPoint(x, y).closest('.approve') !== null", spot)
        tab.mouse.click(*spot)
    expect(status(tab)).to_contain_text("Move the pointer, then press again.")
    assert [question_id for question_id, _, _ in board.answers] == [one.id for one in posted[:2]]
    tab.mouse.move(1, 1)
    look(tab)
    tab.mouse.click(*spot)
    tab.wait_for_url(f"**/q/{posted[3].id}?*")
    assert [question_id for question_id, _, _ in board.answers] == [one.id for one in posted[:3]]


def test_a_click_soon_after_the_question_came_up_does_not_count_and_starts_the_wait_anew(ready, board, still, wait):
    tab = still(question_path(ready, board.post(PAYMENT)))
    spot = center(tab)
    for _ in range(5):
        tab.mouse.click(*spot)
        expect(status(tab)).to_contain_text("too quick")
        wait(tab, QUIET_MS - 1)
    assert board.answers == []
    wait(tab, 1)
    tab.mouse.click(*spot)
    expect(tab.locator(".done")).to_contain_text("was approved once")


def test_a_click_on_a_button_that_has_just_moved_does_not_count(ready, board, still, look):
    tab = still(question_path(ready, board.post(PAYMENT)))
    look(tab)
    tab.evaluate("document.querySelector('.head').insertAdjacentHTML('beforeend', '<p>A line more.</p>')")
    expect(approve(tab)).to_be_disabled()
    tab.mouse.click(*center(tab))
    expect(status(tab)).to_contain_text("too quick")
    assert board.answers == []


def test_a_message_moves_no_button(ready, board, still):
    tab = still(question_path(ready, board.post(PAYMENT)))
    before = center(tab)
    board.post(PAYMENT)
    expect(status(tab)).to_have_text("One more question waits.")
    assert center(tab) == before


@pytest.mark.parametrize("event", ["focus", "blur"])
def test_a_click_that_brings_the_window_to_the_front_does_not_count(ready, board, still, event, look):
    tab = still(question_path(ready, board.post(PAYMENT)))
    look(tab)
    tab.evaluate("event => dispatchEvent(new Event(event))", event)
    tab.mouse.click(*center(tab))
    expect(status(tab)).to_contain_text("too quick")
    assert board.answers == []


def test_a_page_behind_another_window_never_gets_ready(ready, board, still, wait, look):
    tab = still(question_path(ready, board.post(PAYMENT)))
    tab.evaluate("document.hasFocus = () => false")
    wait(tab, 60_000)
    expect(approve(tab)).to_be_disabled()
    tab.keyboard.press(CHORD)
    tab.mouse.click(*center(tab))
    assert board.answers == []
    tab.evaluate("delete document.hasFocus")
    wait(tab, QUIET_MS - 1)
    expect(approve(tab)).to_be_disabled()
    look(tab)


def test_a_button_that_was_pressed_before_the_question_came_up_and_let_go_on_it_does_not_count(
    ready, board, still, wait
):
    posted = board.post(PAYMENT)
    tab = still(question_path(ready, posted))
    wait(tab, QUIET_MS)
    spot = center(tab)
    tab.mouse.move(1, 1)
    tab.mouse.down()
    tab.mouse.move(*spot)
    tab.mouse.up()
    assert board.answers == []


def test_a_script_presses_no_button(ready, board, still, wait):
    """An extension or a bookmarklet is not a person."""
    tab = still(question_path(ready, board.post(PAYMENT)))
    wait(tab, QUIET_MS)
    tab.evaluate("""() => {
        const button = document.querySelector(".approve");
        button.click();
        button.form.requestSubmit(button);
        button.form.requestSubmit();
        const chord = { key: "Enter", ctrlKey: true, shiftKey: true, bubbles: true };
        document.body.dispatchEvent(new KeyboardEvent("keydown", chord));
    }""")
    expect(tab.get_by_role("heading", level=1)).to_have_text("Run bank.pay")
    assert board.answers == []


def test_who_hears_the_page_learns_how_to_approve(ready, board):
    tab = ready.see(board.post(PAYMENT))
    for button in (approve(tab), tab.get_by_role("button", name="Approve, and")):
        expect(button).to_have_accessible_description(
            "To say yes, click, or press Ctrl+Shift+Enter. "
            "That counts once this page has been in front for a second and a half without another key."
        )
    expect(approve(tab)).to_have_attribute("aria-keyshortcuts", CHORD)
    expect(tab.locator("#how")).to_be_visible()
