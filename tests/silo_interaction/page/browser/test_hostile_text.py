"""Questions by a hostile agent, in Chromium: all of it stays text, can be read, and can't pass for the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from playwright.sync_api import expect
from silo_interaction import Question, WantedSecret
from silo_interaction.visible import visible

TEXTS = {
    "script": "<script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)>",
    "form": '</code></pre></section></main><form method="post" action="/s/x/q/y"><button>Approve</button></form><pre>',
    "attributes": '"\' autofocus onfocus=alert(1) x="',
    "template": "{{ 7 * 7 }} {% raw %} ${7*7} &lt;b&gt; &#x202e;",
    "bidi": "pay \u202e000,1\u202c \u2066x\u2069 \u200fright",
    "unseen": "a\u200bb\u2060c\u00ad\ufeff\U000e0041\U000e007f\u3164\u2800",
    "marks": "Z" + "\u0300" * 200,
    "lines": "top\n" * 500 + "bottom",
    "labels": "Approve once\nDeny\nSwitch off the sandbox: no\n[x] checked by silo ✔\n<U+202E>",
    "word": "W" * 3000,
    "controls": "\x00\x07\x1b[2J\r\n\x85\u2028\u2029\ud800",
    "css": "</style><link rel=stylesheet href=//evil.example/x.css><base href=//evil.example/>"
    "<meta http-equiv=refresh content='0;//evil.example'>",
}
ELEMENTS = """[...document.querySelectorAll("*")].filter((element) => element.tagName !== "MARK")
    .map((element) => [element.tagName, ...element.getAttributeNames(), element.getAttribute("action")].join(" "))
    .join("\\n")"""
"""All elements of a page but the marks around spelt-out characters, with attributes' names and forms' addresses."""


def everywhere(text: str) -> Question:
    """A question with this text in every place that has one."""
    return Question(text, text, ((text, text),), text, ((text, text), ("deep", {text: [text]})), (text,), 60, text)


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_text_is_nothing_but_text_wherever_it_stands(ready, board, name):
    """The page has the same elements and forms as with a harmless text of the same length."""
    tab = ready.tab(ready.home)
    found = []
    for text in (re.sub(r"[^\n]", "x", TEXTS[name]), TEXTS[name]):
        asked = [board.post(everywhere(text)), board.post(Question(text, text, wanted=WantedSecret(text, text, text)))]
        seen = []
        for path in (ready.home, *(f"{ready.home}q/{posted.id}" for posted in asked)):
            tab.goto(ready.base + path)
            assert tab.url == ready.base + path
            seen.append(tab.evaluate(ELEMENTS).replace(path, "PATH"))
        found.append(seen)
        tab.goto(f"{ready.base}{ready.home}q/{asked[0].id}")
        shown = tab.locator(".value").first.evaluate("element => element.textContent")
        assert shown == (
            "\n".join(visible(line) for line in text.split("\n"))
            if "\n" in text
            else visible(json.dumps(text, ensure_ascii=False))
        )
        for posted in asked:
            board.put(replace(posted, state="withdrawn"))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["word", "lines", "bidi", "marks", "labels"])
def test_no_text_makes_the_page_wider_than_the_screen(ready, board, name):
    posted = board.post(everywhere(TEXTS[name]))
    tab = ready.tab(ready.home)
    for path in ("", f"q/{posted.id}"):
        tab.goto(ready.base + ready.home + path)
        for width in (360, 1440):
            tab.set_viewport_size({"width": width, "height": 800})
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.set_viewport_size({"width": 360, "height": 800})
    tab.get_by_role("button", name="Deny", exact=True).click(trial=True)  # nothing lies over it


def test_spelt_out_characters_look_unlike_the_same_written_by_a_stranger(ready, board):
    tab = ready.see(board.post(Question("Pay \u202e<U+202E>", "w")))
    expect(tab.locator("h1")).to_have_text("Pay <U+202E><U+202E>")
    expect(tab.locator("h1 mark")).to_have_count(1)
    colours = tab.evaluate(
        "[...document.querySelectorAll('h1, h1 mark')].map(element => getComputedStyle(element).backgroundColor)"
    )
    assert colours[0] != colours[1]


def test_the_buttons_of_the_page_are_the_only_ones_and_stand_after_all_that_was_asked(ready, board):
    tab = ready.see(board.post(everywhere(TEXTS["labels"] + TEXTS["form"])))
    names = [re.sub(r"\s+", " ", name).strip() for name in tab.get_by_role("button").all_inner_texts()]
    assert names == ["Sign out", "Approve once", "Deny d", "Approve, and the same call for 1 minute"]
    bottom = max(
        tab.evaluate("[...document.querySelectorAll('.value, .facts')].map(e => e.getBoundingClientRect().bottom)")
    )
    assert tab.locator(".decide").bounding_box()["y"] > bottom - tab.evaluate("scrollY")


def test_ten_thousand_characters_are_all_there_and_scroll_with_the_keyboard(ready, board):
    value = "".join(f"{number:05d} " for number in range(1666)) + "end!"
    assert len(value) == 10_000
    tab = ready.see(board.post(Question("Run it", "w", arguments=(("body", value),))))
    region = tab.get_by_role("region", name=re.compile("Argument body, 10,002 characters in 1 line, all shown"))
    assert region.evaluate("element => element.textContent") == f'"{value}"'
    region.focus()
    tab.keyboard.press("End")
    tab.wait_for_function(
        """() => {
            const { scrollTop, clientHeight, scrollHeight } = document.activeElement;
            return scrollTop > 0 && scrollTop + clientHeight >= scrollHeight - 1;
        }"""
    )
    assert board.answers == []


def test_a_long_text_can_be_searched_and_the_find_is_brought_into_view(ready, board):
    value = "\n".join(f"line {number}" for number in range(1000)) + "\nrm -RF /\nand rm -rf again"
    tab = ready.see(board.post(Question("Run it", "w", arguments=(("short", 1), ("script", value)))))
    search = tab.get_by_label("Find in this value")
    search.fill("rm -rf")
    output = tab.locator(".search output")
    expect(output).to_have_text("1 of 2")
    region = tab.locator(".value-long")
    assert region.evaluate("element => element.scrollTop") > 1000
    assert tab.evaluate("[...CSS.highlights.get('found-now')].map(range => range.toString())") == ["rm -RF"]
    search.press("Enter")
    expect(output).to_have_text("2 of 2")
    assert tab.evaluate("[...CSS.highlights.get('found-now')].map(range => range.toString())") == ["rm -rf"]
    search.press("Enter")
    expect(output).to_have_text("1 of 2")
    search.fill("nowhere")
    expect(output).to_have_text("not found")
    assert board.answers == []


def test_a_find_covers_characters_that_were_spelt_out(ready, board):
    tab = ready.see(board.post(Question("Run it", "w", arguments=(("script", "x\n" * 50 + "safe\u202eelif"),))))
    tab.get_by_label("Find in this value").fill("safe<U+202E>elif")
    expect(tab.locator(".search output")).to_have_text("1 of 1")
