"""A board in memory, the page that shows it on the loopback interface, and the browsers of a person and an attacker."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser

import httpx
import pytest
from silo_interaction import Answer, DecideOutcome, PostedQuestion, Question
from silo_interaction.page import Page

PATIENCE_S = 300.0
READ_S = 1.1
"""How long a person looks at a question at least: the page takes no yes before."""
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class MemoryBoard:
    """A complete `Board` in memory."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._version = 0
        self._clear()

    def clear(self) -> None:
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self._questions: dict[str, PostedQuestion] = {}
        self._links: dict[str, tuple[str, str | None]] = {}
        self._codes: set[str] = set()
        self._version += 1
        self.answers: list[tuple[str, Answer, str]] = []
        self.redeemed: list[str] = []
        self.is_broken = False

    # --- what a program does

    def post(self, question: Question, *, stands_s: float = 300.0) -> PostedQuestion:
        now = self._now()
        posted = PostedQuestion(secrets.token_hex(8), question, question.digest(), now, now + stands_s)
        with self._lock:
            self._questions[posted.id] = posted
            self._version += 1
        return posted

    def new_link(self, posted: PostedQuestion) -> str:
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._links[token] = (posted.id, None)
        return token

    def new_code(self) -> str:
        symbols = "".join(secrets.choice(CROCKFORD) for _ in range(8))
        code = f"{symbols[:4]}-{symbols[4:]}"
        with self._lock:
            self._codes.add(code)
        return code

    def put(self, posted: PostedQuestion) -> None:
        with self._lock:
            self._questions[posted.id] = posted
            self._version += 1

    # --- `Board`

    def waiting(self) -> Sequence[PostedQuestion]:
        with self._lock:
            now = self._now()
            return [one for one in self._questions.values() if one.state == "waiting" and one.expires_at > now]

    def get(self, question_id: str) -> PostedQuestion | None:
        with self._lock:
            return self._questions.get(question_id)

    def follow(self, token: str, session: str) -> PostedQuestion | None:
        with self._lock:
            question_id, bound = self._links.get(token, ("", None))
            if bound not in {None, session} or question_id not in self._questions:
                return None
            self._links[token] = (question_id, session)
            return self._questions[question_id]

    def decide(self, question_id: str, digest: str, answer: Answer, *, by: str) -> DecideOutcome:
        if self.is_broken:
            raise ValueError(f"can't keep {answer.value}")
        with self._lock:
            posted = self._questions.get(question_id)
            if posted is None or posted.state != "waiting" or posted.expires_at <= self._now():
                return "gone"
            if posted.digest != digest:
                return "changed"
            state = "approved" if answer.approved else "denied"
            self._questions[question_id] = replace(
                posted, state=state, reason=answer.reason, grace=answer.grace, decided_at=self._now()
            )
            self._version += 1
            self.answers.append((question_id, answer, by))
            return "decided"

    def redeem(self, code: str) -> bool:
        with self._lock:
            self.redeemed.append(code)
            fits = code in self._codes
            self._codes.discard(code)
            return fits

    def version(self) -> str:
        with self._lock:
            return str(self._version)

    def bound_to(self, token: str) -> str | None:
        return self._links[token][1]


class Read(HTMLParser):
    """A page as a browser parses it: its text, its elements, and the hidden fields of its forms."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.fields: dict[str, str] = {}
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        named = dict(attrs)
        if tag == "input" and named.get("type") == "hidden":
            self.fields[named["name"] or ""] = named["value"] or ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, name: str) -> list[str | None]:
        return [value for _, attribute, value in self.attributes if attribute == name]


class Browser:
    """An HTTP client with cookies that sends the headers of a browser."""

    def __init__(self, base: str, clock: Clock) -> None:
        self.base = base
        self.clock = clock
        self.client = httpx.Client(base_url=base, trust_env=False, timeout=PATIENCE_S)
        self.home = ""

    def get(self, path: str, **headers: str) -> httpx.Response:
        sent = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"} | _named(headers)
        return self.client.get(path, headers={name: value for name, value in sent.items() if value})

    def post(self, path: str, data: dict[str, str], **headers: str) -> httpx.Response:
        sent = {"Sec-Fetch-Site": "same-origin", "Origin": self.base} | _named(headers)
        return self.client.post(path, data=data, headers={name: value for name, value in sent.items() if value})

    def pair(self, code: str, *, token: str = "") -> httpx.Response:
        form = Read(self.get("/").text).fields["form"]
        answer = self.post("/pair", {"code": code, "form": form, "token": token})
        if answer.status_code == 303:
            self.home = re.match(r"/s/[^/]+/", answer.headers["location"])[0]
        return answer

    def open(self, posted: PostedQuestion) -> Read:
        answer = self.get(f"{self.home}q/{posted.id}")
        assert answer.status_code == 200, answer.text
        return Read(answer.text)

    def filled(self, posted: PostedQuestion, choice: str) -> dict[str, str]:
        """Return the form of a question that was read."""
        hidden = self.open(posted).fields
        self.clock.ahead_s += READ_S
        return {name: hidden[name] for name in ("csrf", "digest", "shown")} | {"choice": choice}

    def decide(
        self, posted: PostedQuestion, choice: str, headers: dict[str, str] | None = None, **fields: str
    ) -> httpx.Response:
        form = self.filled(posted, choice) | fields
        return self.post(f"{self.home}q/{posted.id}", form, **(headers or {}))


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-").title(): value for name, value in headers.items()}


class Clock:
    """The current time, which a test can move ahead, or stop."""

    def __init__(self) -> None:
        self.ahead_s = 0.0
        self.stopped_at: float | None = None

    def __call__(self) -> float:
        return (time.time() if self.stopped_at is None else self.stopped_at) + self.ahead_s


@pytest.fixture(scope="module")
def _shown() -> Iterator[tuple[MemoryBoard, Clock, Page]]:
    """One page for all tests of a file, because starting and stopping it takes longer than most tests."""
    clock = Clock()
    board = MemoryBoard(clock)
    page = Page(board, now=clock)
    yield board, clock, page
    page.stop()


@pytest.fixture
def clock(_shown) -> Clock:
    """The page's clock, a day after the previous test: its sessions, wrong codes and failures no longer count."""
    _shown[1].ahead_s += 24 * 3600
    _shown[1].stopped_at = None
    return _shown[1]


@pytest.fixture
def board(_shown, clock) -> MemoryBoard:
    """The page's board, with nothing on it."""
    _shown[0].clear()
    return _shown[0]


@pytest.fixture
def page(_shown, board) -> Page:
    return _shown[2]


@pytest.fixture
def stranger(page, clock) -> Iterator[Callable[[], Browser]]:
    """Make a browser that is not paired."""
    browsers: list[Browser] = []

    def make() -> Browser:
        browsers.append(Browser(page.start(), clock))
        return browsers[-1]

    yield make
    for browser in browsers:
        browser.client.close()


@pytest.fixture
def paired(stranger, board) -> Callable[[], Browser]:
    """Make a browser that is paired."""

    def make() -> Browser:
        browser = stranger()
        assert browser.pair(board.new_code()).status_code == 303
        return browser

    return make


@pytest.fixture
def person(paired) -> Browser:
    """The browser of a person, paired."""
    return paired()


@pytest.fixture
def read() -> Callable[[str], Read]:
    return Read


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait until a condition holds, for a limited time."""

    def wait(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        pause = threading.Event()
        while not holds():
            assert time.monotonic() < deadline, "never came true"
            pause.wait(0.01)

    return wait
