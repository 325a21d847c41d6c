"""Attacks that need a browser: an agent's own browser, and pages of an agent's server in a person's paired browser.

`tests/silo_interaction/page/test_attacks.py` tests what other programs can send.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect
from silo_interaction import Question, WantedSecret
from silo_interaction.page.sessions import COOKIE

SECRET_WORDS = "delete-everything-of-acme"
QUESTION = Question(f"Run {SECRET_WORDS}", "an agent", arguments=(("repo", SECRET_WORDS),))
WANTED = Question(f"Type in {SECRET_WORDS}", "an agent", wanted=WantedSecret(SECRET_WORDS))

PROBE = """async (url) => {
    const tried = {};
    const form = new URLSearchParams({ choice: "approve" });
    for (const mode of ["cors", "no-cors"]) {
        for (const credentials of ["include", "omit"]) {
            for (const method of ["GET", "POST"]) {
                try {
                    const body = method === "POST" ? form : null;
                    const response = await fetch(url, { mode, credentials, method, body });
                    tried[`${mode} ${credentials} ${method}`] = response.type + (await response.text());
                } catch { }
            }
        }
    }
    return tried;
}"""


class Elsewhere:
    """An agent's server on another port of 127.0.0.1: it serves pages, and records its requests."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        self.heard: list[tuple[str, str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                outer.heard.append((self.path, body, dict(self.headers)))
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Set-Cookie", f"{COOKIE}=planted; Path=/")
                self.end_headers()
                self.wfile.write(outer.pages.get(urlsplit(self.path).path, "<p>nothing here").encode())

            do_POST = do_GET  # noqa: N815

            def log_message(self, *args) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def serve(self, html: str) -> str:
        """Serve a page, and return its address."""
        path = f"/{len(self.pages)}"
        self.pages[path] = f"<!doctype html><title>a free gift</title>{html}"
        return self.base + path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    server = Elsewhere()
    yield server
    server.close()


@pytest.fixture
def lured(ready, elsewhere):
    """The paired browser of a person who visits the agent's server. Its console may contain errors."""
    ready.bases.append(elsewhere.base)
    for noise in (
        "favicon",
        "blocked",
        "Cross-Origin",
        "Refused to",
        "net::ERR_",
        "frame",
        "violates",
        "Unsafe attempt",
    ):
        ready.expects(noise)
    return ready


# --- the agent's own browser ------------------------------------------------------------------------------------------


def test_an_agents_browser_with_every_link_sees_nothing_and_decides_nothing(ready, profiles, board, page):
    questions = [board.post(QUESTION), board.post(WANTED)]
    tokens = [board.new_link(posted) for posted in questions]
    person = ready.see(questions[0])
    fields = {name: person.locator(f".decide [name={name}]").get_attribute("value") for name in ("csrf", "digest")}
    agent = profiles()
    tab = agent.tab()
    addresses = [f"/q/{token}" for token in tokens] + [ready.home, f"{ready.home}events"]
    addresses += [f"{ready.home}follow/{token}" for token in tokens] + [f"{ready.home}q/{one.id}" for one in questions]
    for address in addresses:
        tab.goto(page.start() + address)
        tab.evaluate("secret => localStorage.setItem('path-secret', secret)", ready.home.split("/")[2])  # copied, too
        expect(tab.get_by_role("heading", level=1)).to_have_text("Pair this browser")
        assert SECRET_WORDS not in tab.content()
    send = """async ([path, fields]) => {
        return (await fetch(path, { method: "POST", body: new URLSearchParams(fields) })).status;
    }"""
    for posted in questions:
        for choice in ("approve", "deny", "give"):
            form = {**fields, "digest": posted.digest, "choice": choice, "value": "planted"}
            assert tab.evaluate(send, [f"{ready.home}q/{posted.id}", form]) == 404
    assert board.answers == []
    person.get_by_role("button", name="Approve once").click()  # and the person still can
    expect(person.locator(".done")).to_be_visible()
    for token in tokens[1:]:
        assert board.bound_to(token) is None


# --- the person's browser, led elsewhere ------------------------------------------------------------------------------


def test_a_server_on_another_port_is_sent_no_cookie_of_the_page(lured, elsewhere, board):
    (cookie,) = lured.context.cookies()
    assert cookie["name"] == COOKIE
    tab = lured.tab()
    for path in ("/", "/s/", "/q/x", lured.home[:-2], lured.home.rstrip("/") + "x/"):
        tab.goto(elsewhere.base + path)
    assert len(elsewhere.heard) >= 5
    assert cookie["value"] not in str(elsewhere.heard)


def test_a_cookie_that_another_port_plants_hides_ours_from_nobody(lured, elsewhere, board):
    board.post(QUESTION)
    tab = lured.tab()
    tab.goto(elsewhere.base)
    assert len(lured.context.cookies()) == 2
    expect(lured.tab(lured.home).get_by_role("link", name=SECRET_WORDS)).to_be_visible()


def test_a_link_out_of_the_page_tells_nobody_where_it_came_from(lured, elsewhere):
    tab = lured.tab(lured.home)
    tab.evaluate("url => { location.href = url }", elsewhere.serve("<p id=here>here"))
    expect(tab.locator("#here")).to_be_visible()
    assert lured.base not in str(elsewhere.heard)


@pytest.mark.parametrize("element", ["iframe", "embed", "object", "fencedframe"])
def test_another_page_frames_nothing(lured, elsewhere, board, element):
    posted = board.post(QUESTION)
    paths = ["/", lured.home, f"{lured.home}q/{posted.id}"]
    source = "data" if element == "object" else "src"
    frames = "".join(f"<{element} {source}='{lured.base}{path}' width=600 height=400></{element}>" for path in paths)
    answers = []
    tab = lured.tab()
    tab.on("response", lambda answer: answers.append((answer.url.removeprefix(lured.base), answer.status)))
    tab.goto(elsewhere.serve(frames), wait_until="load")
    assert {status for path, status in answers if path.startswith("/")} <= {403}
    assert SECRET_WORDS not in "".join(frame.content() for frame in tab.frames if not frame.is_detached())


def test_another_page_reads_nothing_and_decides_nothing_with_scripts(lured, elsewhere, board):
    posted = board.post(QUESTION)
    tab = lured.tab()
    tab.goto(elsewhere.serve(""))
    for path in ("/", lured.home, f"{lured.home}q/{posted.id}", f"{lured.home}events", "/static/page.js", "/pair"):
        assert tab.evaluate(PROBE, lured.base + path) == {}, path
    assert board.answers == []


@pytest.mark.parametrize("target", ["_self", "_blank"])
def test_a_form_of_another_page_decides_nothing(lured, elsewhere, board, target):
    """The form has all that the page's own form has; it is refused because of its origin."""
    posted = board.post(QUESTION)
    mine = lured.see(posted)
    csrf = mine.locator(".decide [name=csrf]").get_attribute("value")
    fields = {"csrf": csrf, "digest": posted.digest, "choice": "approve"}
    inputs = "".join(f"<input name='{name}' value='{value}'>" for name, value in fields.items())
    tab = lured.tab()
    address = f"{lured.base}{lured.home}q/{posted.id}"
    form = f"<form method=post target={target} action='{address}'>{inputs}<button>A gift</button></form>"
    tab.goto(elsewhere.serve(form))
    if target == "_blank":
        with lured.context.expect_page() as opened:
            tab.get_by_role("button").click()
        tab = opened.value
    else:
        tab.get_by_role("button").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("This form was sent by another page")
    assert board.answers == []
    mine.get_by_role("button", name="Approve once").click()
    expect(mine.locator(".done")).to_be_visible()


@pytest.mark.parametrize("scheme", ["file", "data", "srcdoc"])
def test_a_form_that_sends_itself_from_a_page_of_no_server_decides_nothing(lured, elsewhere, board, tmp_path, scheme):
    posted = board.post(QUESTION)
    html = (
        f"<form id=f method=post action='{lured.base}{lured.home}q/{posted.id}'>"
        f"<input name=digest value={posted.digest}><input name=choice value=approve></form>"
        f"<script>{'onmessage = () => f.submit()' if scheme == 'srcdoc' else 'f.submit()'}</script>"
    )
    tab = lured.tab()
    if scheme == "srcdoc":
        # It loads twice: the form, and what the browser shows instead of the answer.
        onload = "if (!window.loads) contentWindow.postMessage(1, `*`); window.loads = (window.loads ?? 0) + 1"
        tab.goto(
            elsewhere.serve(f'<iframe sandbox="allow-scripts allow-forms" srcdoc="{html}" onload="{onload}"></iframe>')
        )
        tab.wait_for_function("() => loads >= 2")
        assert SECRET_WORDS not in "".join(frame.content() for frame in tab.frames)
    else:
        (tmp_path / "gift.html").write_text(html)
        lured.bases.append("file://")
        tab.goto(
            (tmp_path / "gift.html").as_uri() if scheme == "file" else f"data:text/html,{html}", wait_until="commit"
        )
        expect(tab.get_by_role("heading", level=1)).to_have_text("This form was sent by another page")
    assert board.answers == []


def test_a_window_that_another_page_opened_is_out_of_its_reach(lured, elsewhere, board):
    posted = board.post(QUESTION)
    token = board.new_link(posted)
    tab = lured.tab(lured.home)
    tab.goto(elsewhere.serve("<button onclick='w = window.open(`" + f"{lured.base}/q/{token}" + "`)'>A gift</button>"))
    with lured.context.expect_page() as opened:
        tab.get_by_role("button").click()
    # The link leads a paired person to the question, as it should. But the page that opened it can't reach the window.
    expect(opened.value.get_by_role("heading", level=1)).to_have_text(QUESTION.title)
    tab.wait_for_function("() => w.closed")
    assert opened.value.evaluate("window.opener") is None
    tab.evaluate("() => { w.postMessage('approve', '*'); w.close(); try { w.location = 'about:blank' } catch {} }")
    expect(opened.value.get_by_role("button", name="Approve once")).to_be_enabled()
    assert board.answers == []


def test_another_page_can_not_lead_to_the_list_even_if_it_knows_where_it_is(lured, elsewhere, board):
    posted = board.post(QUESTION)
    tab = lured.tab()
    for path in (lured.home, f"{lured.home}q/{posted.id}"):
        tab.goto(elsewhere.serve(f"<a href='{lured.base}{path}'>A gift</a>"))
        tab.get_by_role("link").click()
        expect(tab.get_by_role("heading", level=1)).to_have_text("Another page led here")
        assert SECRET_WORDS not in tab.content()


def test_a_script_can_not_press_the_keys_of_the_page(ready, board):
    """An extension or a bookmarklet that only dispatches events is not a person."""
    tab = ready.see(board.post(QUESTION))
    expect(tab.get_by_role("button", name="Approve once")).to_be_enabled()
    tab.evaluate(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'a', bubbles: true, cancelable: true }))"
    )
    expect(tab.get_by_role("heading", level=1)).to_have_text(QUESTION.title)
    assert board.answers == []


def test_the_page_keeps_its_cookie_from_scripts_and_loads_nothing_from_elsewhere(ready, elsewhere):
    ready.bases.append(elsewhere.base)
    ready.expects("violates|CSP: |ERR_BLOCKED_BY_CSP")
    tab = ready.tab(ready.home)
    assert tab.evaluate("document.cookie") == ""
    tried = tab.evaluate(
        """async (base) => {
            const came = [];
            await fetch(base).then(() => came.push("fetch"), () => {});
            const load = (element) => new Promise((resolve) => {
                element.onload = () => resolve(came.push(element.tagName));
                element.onerror = () => resolve();
                document.body.append(element);
            });
            await load(Object.assign(document.createElement("img"), { src: base }));
            await load(Object.assign(document.createElement("script"), { src: base }));
            document.body.insertAdjacentHTML("beforeend", "<p onclick='window.ran = true' style='color: red'>x</p>");
            document.body.lastElementChild.click();
            return [...came, window.ran ?? "nothing"];
        }""",
        elsewhere.base,
    )
    assert tried == ["nothing"]
    assert elsewhere.heard == []
