"""Requests that schemathesis makes up from the page's routes, with and without a session: none breaks the page or gets past its headers.

Which requests must be refused, and why, is said one by one in `test_attacks` and `test_guard`; here it is the ones nobody thought of.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CheckContext, not_a_server_error
from silo_interaction import Question
from silo_interaction.page.app import build_app
from silo_interaction.page.guard import HEADERS
from silo_interaction.page.live import Live
from silo_interaction.page.render import Renderer
from silo_interaction.page.sessions import Sessions

PATIENCE_S = 300.0

# A handler answers GET and HEAD alike, and FastAPI gives both the same name in the description, which the page serves to nobody.
pytestmark = pytest.mark.filterwarnings("ignore:Duplicate Operation ID:UserWarning")

SECRET_WORDS = "delete-everything-of-acme"
QUESTION = Question(SECRET_WORDS, "an agent", arguments=(("repo", SECRET_WORDS),), grace_s=60)

CASES = 10
"""Of each route and method; all of them take some seconds."""

HEADERS_READ = ("Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Content-Type", "Cookie")
"""Not Host and Content-Length: a client that lies about these gets no answer, or never ends; `test_attacks` does so on a socket."""


def security_headers(ctx: CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """Every answer has every header once, whatever was asked."""
    for name, value in HEADERS.items():
        assert response.headers.get(name.lower()) == [value], f"{name}: {response.headers.get(name.lower())}"
    assert "server" not in response.headers


def routes(board) -> dict:
    """The routes as FastAPI describes them. The page reads addresses and forms by itself, so what they hold is added by `described`."""
    sessions = Sessions(life_s=1, now=lambda: 0.0)
    renderer = Renderer("silo")
    guarded = build_app(board, sessions, Live(board), authority="127.0.0.1:1", renderer=renderer, now=lambda: 0.0)
    return guarded.app.openapi()


def described(description: dict) -> dict:
    """Add what the page reads: the parts of addresses, some headers, and forms; any text may be in them."""
    text = {"type": "string", "maxLength": 64}
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            operation["operationId"] = f"{method} {path}"
            operation["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": text} for name in re.findall(r"{(\w+)}", path)
            ] + [{"name": name, "in": "header", "required": False, "schema": text} for name in HEADERS_READ]
            if method == "post":
                fields = (
                    ("form", "code", "token")
                    if path == "/pair"
                    else ("csrf", "digest", "choice", "reason", "value", "keep")
                )
                form = {"type": "object", "properties": dict.fromkeys(fields, text), "required": list(fields[:3])}
                content = {"application/x-www-form-urlencoded": {"schema": form}}
                operation["requestBody"] = {"required": True, "content": content}
    return description


def attack(description: dict, known: dict[str, list[str]], base: str, **sent) -> list[tuple[str, int]]:
    """Make requests up, always the same ones, and return where each went and what came of it.

    Args:
        known: values that are right, by name; most of the made-up ones are replaced by one of these, or no request would get far.
    """
    schema = schemathesis.openapi.from_dict(described(description))
    seen: list[tuple[str, int]] = []
    with requests.Session() as session:
        session.trust_env = False

        def send(case: schemathesis.Case, chance: random.Random) -> None:
            for part in (case.path_parameters, case.headers, case.body):
                for name in [name for name in known if isinstance(part, Mapping) and name in part]:
                    if chance.random() < 0.9:
                        part[name] = chance.choice(known[name])
            answer = case.call(base_url=base, session=session, allow_redirects=False, timeout=PATIENCE_S, **sent)
            seen.append((f"{case.method} {case.operation.path}", answer.status_code))
            case.validate_response(answer, checks=[not_a_server_error, security_headers])
            if "cookies" not in sent:
                assert SECRET_WORDS not in answer.text

        for found in schema.get_all_operations():
            cases = found.ok().as_strategy()
            settings(
                max_examples=CASES,
                derandomize=True,
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )(given(cases, st.randoms(use_true_random=False))(send))()
    return seen


@pytest.fixture
def posted(board):
    """Several of the same, so that one that is decided leaves others."""
    return [board.post(QUESTION) for _ in range(12)]


def test_nothing_that_a_stranger_sends_breaks_the_page_or_shows_anything(board, page, person, posted):
    known = {
        "place": [person.home.split("/")[2]],
        "question_id": [one.id for one in posted],
        "token": [board.new_link(posted[0])],
        "digest": [QUESTION.digest()],
        "choice": ["approve", "grace", "deny"],
        "name": ["page.css", "page.js", "icon.svg"],
        "Origin": [person.base, "null", "http://127.0.0.1:1"],
        "Sec-Fetch-Site": ["same-origin", "none", "same-site", "cross-site"],
        "Sec-Fetch-Mode": ["navigate", "cors"],
        "Sec-Fetch-Dest": ["document", "iframe"],
        "Cookie": ["silo_page=x", "silo_page=", "a; =; silo_page"],
    }
    seen = attack(routes(board), known, page.start())
    assert len({where for where, _ in seen}) >= 15  # routes times methods
    assert board.answers == []
    assert {status for _, status in seen} >= {200, 403, 404}


def test_nothing_that_a_paired_browser_sends_breaks_the_page(board, page, person, posted, read):
    fields = read(person.get(f"{person.home}q/{posted[0].id}").text).fields
    known = {
        "place": [person.home.split("/")[2]],
        "question_id": [one.id for one in posted],
        "token": [board.new_link(one) for one in posted[:3]],
        "form": [read(person.get("/").text).fields["form"]],
        "code": [board.new_code() for _ in range(3)],
        "csrf": [fields["csrf"]],
        "digest": [QUESTION.digest()],
        "choice": ["approve", "grace", "deny"],
        "keep": ["yes"],
        "name": ["page.css", "page.js", "icon.svg"],
    }
    description = routes(board)
    del description["paths"]["/s/{place}/events"]["get"]  # never ends; `test_attacks` reads it
    del description["paths"]["/s/{place}/leave"]  # would be the end of this
    cookies = {cookie.name: cookie.value for cookie in person.client.cookies.jar}
    headers = {"Origin": page.start(), "Sec-Fetch-Site": "same-origin"}
    seen = attack(description, known, page.start(), cookies=cookies, headers=headers)
    reached = {"GET /s/{place}/": 200, "GET /s/{place}/q/{question_id}": 200, "GET /s/{place}/follow/{token}": 303}
    reached |= {"POST /pair": 303, "POST /s/{place}/q/{question_id}": 303, "HEAD /s/{place}/events": 200}
    assert set(seen) >= set(reached.items())
    assert board.answers
