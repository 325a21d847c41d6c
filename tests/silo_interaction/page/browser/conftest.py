"""Chromium, and profiles in it: what a person does with the page, and everything that went wrong meanwhile.

The browser lives for a module, not for the session: while Playwright's synchronous API is up, its event loop counts as
running in the main thread, and no test with its own loop could run.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

PATIENCE_MS = 300_000
"""How long one step of a browser may take on a busy machine; a step that works takes some milliseconds."""

REFUSED = re.compile(r"Failed to load resource: the server responded with a status of 4\d\d")
"""Chromium logs this for every page whose status isn't 200. Most tests that get such a page check its text."""

REPORT_VIOLATIONS = """
addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => {
    console.error(`CSP: ${violatedDirective} ${blockedURI}`);
});
"""


class Profile:
    """A browser profile, with a record of what its tabs did. Not paired at first."""

    def __init__(self, context: BrowserContext, base: str) -> None:
        self.context = context
        self.base = base
        self.bases = [base]
        self.home = ""
        self.problems: list[str] = []
        self.asked_for: list[str] = []
        self._expected: list[re.Pattern[str]] = [REFUSED]
        context.set_default_timeout(PATIENCE_MS)
        context.on("console", lambda said: self._hear(said.type, said.text))
        context.on("weberror", lambda error: self.problems.append(f"exception: {error.error}"))
        context.on("request", lambda request: self.asked_for.append(request.url))
        context.on("dialog", self._dismiss)

    def tab(self, path: str = "") -> Page:
        """Open an address of the page in a new tab."""
        tab = self.context.new_page()
        if path:
            tab.goto(self.base + path)
        return tab

    def pair(self, code: str, path: str = "/") -> Page:
        """Type a code in; return the tab once it shows the list, or the question of the link."""
        tab = self.tab(path)
        tab.get_by_label("Code").fill(code)
        tab.get_by_role("button", name="Pair").click()
        tab.wait_for_url("**/s/**")
        self.home = re.match(r"/s/[^/]+/", tab.url.removeprefix(self.base))[0]
        return tab

    def pair_at_once(self, code: str) -> None:
        """Pair without a tab, for tests that aren't about pairing."""
        request = self.context.request
        form = re.search(r'name="form" value="([^"]+)"', request.get(f"{self.base}/").text())[1]
        sent = {"form": form, "code": code}
        answer = request.post(f"{self.base}/pair", form=sent, headers={"Origin": self.base}, max_redirects=0)
        self.home = answer.headers["location"]

    def see(self, posted) -> Page:
        """Open a question in a new tab."""
        return self.tab(f"{self.home}q/{posted.id}")

    def moves_to(self, base: str) -> None:
        """Use the page at another address from now on."""
        self.base = base
        self.bases.append(base)

    def expects(self, problem: str) -> None:
        """Accept this text in the console."""
        self._expected.append(re.compile(problem))

    def check(self) -> None:
        """Check that nothing went wrong, and that no other server got a request."""
        assert self.problems == []
        ours = (*(f"{base}/" for base in self.bases), "data:")
        assert [url for url in self.asked_for if not url.startswith(ours)] == []

    def _hear(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and not any(one.search(text) for one in self._expected):
            self.problems.append(f"{kind}: {text}")

    def _dismiss(self, dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "there is no chromium on the PATH; scripts/test installs it (Debian: apt-get install chromium)"
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            chromium_sandbox=False,  # it doesn't work in containers or as root, and only our own pages are shown
            args=["--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def clock(_shown):
    """The page's clock, unchanged: the browser's clock couldn't follow a change."""
    return _shown[1]


@pytest.fixture
def profiles(chromium, page) -> Iterator[Callable[..., Profile]]:
    """Make profiles; after the test nothing may have gone wrong in them."""
    made: list[Profile] = []

    def make(*, base: str = "", **options) -> Profile:
        context = chromium.new_context(**options)
        if options.get("java_script_enabled", True):
            context.add_init_script(REPORT_VIOLATIONS)
        made.append(Profile(context, base or page.start()))
        return made[-1]

    yield make
    for profile in made:
        profile.context.close()
    for profile in made:
        profile.check()


@pytest.fixture
def profile(profiles) -> Profile:
    """A person's profile, not paired."""
    return profiles()


@pytest.fixture
def ready(profile, board) -> Profile:
    """A person's profile, paired; no tab is open."""
    profile.pair_at_once(board.new_code())
    return profile
